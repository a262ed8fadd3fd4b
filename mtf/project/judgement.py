"""Judges the scripts that a sync is about to submit by the policies in force now.

The options in the very text that is submitted count, whatever they come from: spec, settings,
template, `mtf retry --set` or a Python program.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtf.core.sbatch.option_table import OPTIONS, Kind
from mtf.core.sbatch.read_script import JobOptions
from mtf.core.sbatch.section_options import job_options
from mtf.core.vocabulary import json_text
from mtf.core.vocabulary.actions import Submit
from mtf.core.vocabulary.experiments import Desired, Experiment
from mtf.core.vocabulary.ids import SINGLE, member_of, name_of, submission_of
from mtf.errors import MtfError
from mtf.executor.template_names import TEMPLATES
from mtf.spec.lint.policy_rules import script_violations, violations
from mtf.spec.set_overrides import changed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from mtf.core.vocabulary.actions import Resume
    from mtf.core.vocabulary.ids import RunId, SubmissionId
    from mtf.core.vocabulary.jobs import Resources
    from mtf.core.vocabulary.records import RunRecord, SubmissionRecord
    from mtf.errors import Problem
    from mtf.spec.schema.policies import Policies

Script = tuple["SubmissionId", "Resources", JobOptions]  # the runs it is for, and its options
_TEMPLATE = f"templates/{TEMPLATES['slurm']}"


@dataclass(frozen=True)
class Judge:
    """The policies, and the recorded runs that budgets count as well."""

    policies: Policies
    records: Mapping[RunId, RunRecord]
    submission_record: Callable[[SubmissionId], SubmissionRecord]
    max_parallel: Callable[[SubmissionRecord], int | None]  # of a grid now

    def refused(
        self, actions: Sequence[Submit | Resume], scripts: Iterable[Script]
    ) -> dict[RunId, tuple[Problem, ...]]:
        """Return the runs that must not get a job now, each with the rules that are broken.

        Every rule counts, also for runs that were allowed when they were submitted first.
        All runs of a spec are judged together: budgets are for all of them.

        Raises:
            MtfError: two scripts for equal resources of a submission have different options.
        """
        known = _Scripts(scripts)
        refused: dict[RunId, tuple[Problem, ...]] = {}
        for desired, runs in self._specs(actions):
            options_of = known.of(submission_of(runs[0]))
            found = (
                *violations(desired, self.policies),
                *script_violations(desired, self.policies, options_of, _TEMPLATE),
            )
            refused |= dict.fromkeys(runs, found) if found else {}
        return refused

    def _specs(
        self, actions: Sequence[Submit | Resume]
    ) -> Iterator[tuple[Desired, tuple[RunId, ...]]]:
        """Yield each spec, with those of its runs that are to be started."""
        new: dict[int, list[Submit]] = defaultdict(list)
        again: dict[SubmissionId, list[Resume]] = defaultdict(list)
        for action in actions:
            if isinstance(action, Submit):
                new[id(action.desired)].append(action)
            else:
                again[submission_of(action.run)].append(action)
        for group in new.values():
            yield group[0].desired, tuple(a.run for a in group)
        for submission, resumed in again.items():
            yield self._recorded(submission, resumed), tuple(a.run for a in resumed)

    def _recorded(self, submission: SubmissionId, resumed: Iterable[Resume]) -> Desired:
        """Return a submission as if a spec asked for it, with the changes of `retry --set`."""
        record = self.submission_record(submission)
        changes = {
            run: self.records[run].attempt.changes for run in record.runs if run in self.records
        }
        for action in resumed:
            changes[action.run] = {**action.record.attempt.changes, **action.changes}
        known: dict[str, Resources] = {}
        experiments = []
        for run in record.runs:
            config = record.configs[member_of(run) or SINGLE]
            # the changes of a run that is left alone may be invalid; those of the others are not
            with suppress(MtfError, LookupError, TypeError, ValueError):
                config = changed(config, changes[run]) if changes.get(run) else config
            needs: Resources = config["slurm"]
            needs = known.setdefault(json_text.dumps(needs, sort_keys=True), needs)
            name = member_of(run) or name_of(run)
            experiments.append(Experiment(name, record.grid, config, needs, {}, 0, ()))
        return Desired(
            name=name_of(submission),
            path=record.spec,
            experiments=tuple(experiments),
            max_parallel=self.max_parallel(record),
            cluster=None,
            places={"": (record.spec, 1, 1)},
        )


class _Scripts:
    """The options in scripts, by submission and by the resources that their runs ask for."""

    def __init__(self, scripts: Iterable[Script]) -> None:
        """Take the options in scripts.

        Raises:
            MtfError: two scripts for equal resources have different options.
        """
        self._options: dict[tuple[SubmissionId, str], JobOptions] = {}
        for submission, needs, options in scripts:
            chosen = _without_ours(options)
            if self._options.setdefault((submission, _key(needs)), chosen) != chosen:
                raise MtfError(
                    f"{_TEMPLATE}: its scripts for equal runs of {name_of(submission)} have"
                    " different options. Let them depend on names and resources alone"
                )

    def of(self, submission: SubmissionId) -> Callable[[Resources], JobOptions]:
        """Return a function that returns the options of a submission's runs.

        For a run that is not started now, they are those of its resources.
        """

        def options_of(needs: Resources) -> JobOptions:
            return self._options.get((submission, _key(needs))) or job_options(needs)

        return options_of


def _without_ours(options: JobOptions) -> JobOptions:
    """Return the options that a spec, a template or a person may choose."""
    return JobOptions(
        tuple(
            option._replace(line=0)
            for option in options.all
            if not (option.is_known and OPTIONS[option.name].kind is Kind.OURS)
        )
    )


def _key(needs: Resources) -> str:
    return json_text.dumps(needs, sort_keys=True)
