"""`Submitter`: resolves configurations of a program and submits them, as `mtf sync` does specs."""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mtf.commands import submit_from_python
from mtf.commands.submit_from_python import Request
from mtf.commands.sync import sync_lock
from mtf.commands.uncommitted import Pin, pin_work_tree
from mtf.core.vocabulary.experiments import DIRECT, Desired, Experiment
from mtf.errors import ConfigurationError, MtfError
from mtf.framework.execution import ExecutionMode
from mtf.framework.experiment_values import as_config, as_grid, asked
from mtf.framework.run_handles import Submission
from mtf.project.spec_tree import VALUE, SpecTree
from mtf.spec.compose.composition import KEY as DEFAULTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mtf.core.vocabulary.ids import CommitId, RunId
    from mtf.framework.experiment_values import Asked, Config
    from mtf.framework.parameter_grids import ParameterGrid
    from mtf.project.project import Project
    from mtf.spec.schema.experiment_config import ExperimentConfig

_log = logging.getLogger("mtf")
_LOCK_S = 60.0  # that a program waits for a sync of this clone


@dataclass(frozen=True)
class Outcome:
    """The runs that were asked for, and those of them that the executor refused."""

    submission: Submission
    refused: Mapping[RunId, str] = field(default_factory=dict)  # -> the reason
    scripts: Mapping[RunId, str] = field(default_factory=dict)  # of a dry run

    def accepted(self) -> Submission:
        """Return the runs.

        Raises:
            MtfError: all of them were refused.
        """
        if self.refused and self.refused.keys() >= {*self.submission.ids}:
            raise MtfError("\n".join(f"{run}: {why}" for run, why in self.refused.items()))
        for run, why in self.refused.items():
            _log.warning("not submitted: %s: %s", run, why)
        return self.submission


@dataclass(frozen=True)
class Submitter:
    """Submits what a program asks for to the executors of one repository."""

    project: Project
    templates: Mapping[str, str] | None = None  # of job scripts, instead of the commit's
    pin: Pin | None = None  # None: HEAD, whatever is in the work tree

    def pinned(self, mode: ExecutionMode | None, *, snapshot: bool) -> Submitter:
        """Return a submitter that pins runs to the work tree as it is: to HEAD, or to a snapshot.

        A dry run is not refused because of what is not committed.

        Raises:
            MtfError: something is not committed, and no snapshot was asked for or can be made.
        """
        if mode is ExecutionMode.DRY_RUN and not snapshot:
            return self
        return replace(self, pin=pin_work_tree(self.project, snapshot=snapshot))

    @property
    def _commit(self) -> CommitId:
        return self.pin.commit if self.pin else self.project.repo.commit("HEAD")

    # -- configurations ----------------------------------------------------------------------------

    def config(self, config: Config) -> ExperimentConfig:
        """Return a configuration with all defaults; the code that it names is not looked at.

        Raises:
            ConfigurationError: it contains mistakes; the error has all of them.
        """
        given, desired = asked(config), self.draft(config)
        return as_config(desired, desired.experiments[0], has_slurm=self._has_slurm(given, desired))

    def draft(self, config: Config) -> Desired:
        """Return one experiment as it would run; see ``config``."""
        return self._experiment(asked(config), is_draft=True)

    def experiments(self, configs: Iterable[Config]) -> list[Desired]:
        """Return experiments that are to run; members of one grid are one item.

        Raises:
            ConfigurationError: a configuration contains mistakes, or names what HEAD has not.
        """
        found: dict[tuple[str, bool], list[Desired]] = defaultdict(list)
        for config in configs:
            given = asked(config)
            desired = self._experiment(given, is_draft=False)
            found[desired.name, given.grid is not None].append(desired)
        return [
            replace(same[0], experiments=tuple(e for d in same for e in d.experiments))
            for same in found.values()
        ]

    def grids(self, base: Config, grids: Iterable[ParameterGrid]) -> list[Desired]:
        """Return grids that are to run; see ``experiments``."""
        return [self._resolved(as_grid(base, g.name, g.axes), is_draft=False) for g in grids]

    def _experiment(self, given: Asked, *, is_draft: bool) -> Desired:
        desired = self._resolved(given.value, is_draft=is_draft)
        if given.grid is None:
            return desired
        single = desired.experiments[0]
        member = replace(
            single,
            name=given.member,
            grid=given.grid,
            parameters=given.parameters,
            config={**single.config, "experiment_name": given.member},
        )
        return replace(desired, experiments=(member,))

    def _resolved(self, spec: Mapping[str, Any], *, is_draft: bool) -> Desired:
        repo = self.project.repo
        with repo.reading():
            groups = SpecTree.at(repo, self.project.tracked()).groups
            # the code of the commit that the runs are pinned to
            code = None if is_draft else SpecTree.at(repo, self._commit).code
            loaded = SpecTree.of_value(spec, self.project.settings, groups, code).load([VALUE])
        if any(problem.is_error for problem in loaded.problems):
            raise ConfigurationError(list(loaded.problems))
        return replace(loaded.desired[0], path=DIRECT)

    def _has_slurm(self, given: Asked, desired: Desired) -> bool:
        if given.value.get("slurm") is not None:
            return True
        if DEFAULTS not in given.value:
            return False
        return self.asks_for_more(desired.experiments[0])

    def asks_for_more(self, experiment: Experiment) -> bool:
        """Return True if an experiment asks for other resources than the defaults of mtf.yaml."""
        plain = {"kind": "experiment", "experiment_name": "plain", "model": {"type": "plain:Plain"}}
        (defaults,) = self._resolved(plain, is_draft=True).experiments
        return experiment.resources != defaults.resources

    # -- runs --------------------------------------------------------------------------------------

    def submit(self, wanted: Sequence[Desired], mode: ExecutionMode | None) -> Outcome:
        """Submit the runs that were not submitted before, and return handles on all of them.

        Raises:
            MtfError: nothing was submitted.
        """
        is_dry = mode is ExecutionMode.DRY_RUN
        executor = None if mode is None or is_dry else mode.value
        request = Request(wanted, executor, self.templates, self.pin)
        if is_dry:
            found = submit_from_python.preview(self.project, request)
            new = tuple(action.run for action in found.plan.actions)
            return Outcome(Submission(self.project, new, is_planned=True), scripts=found.scripts)
        with sync_lock(self.project, wait_s=_LOCK_S):
            report, keys = submit_from_python.submit(
                self.project, request, publish=True, say=_log.info
            )
        for run, why in {**report.put_off, **report.uncertain}.items():
            _log.warning("note: %s is not in the queue yet: %s. A later look tries again", run, why)
        runs = self.project.ledger().runs.values()
        newest = {r.key: r.run for r in sorted(runs, key=lambda r: r.claimed_at) if r.key in keys}
        return Outcome(Submission(self.project, tuple(sorted(newest.values()))), report.refused)
