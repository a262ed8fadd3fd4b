"""`ModelTrainingFramework`: experiments and grid searches from Python."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtf.commands import act_on_runs, submit_from_python
from mtf.commands.show_runs import rows_of
from mtf.commands.sync import sync_lock, sync_once, sync_until_over
from mtf.commands.uncommitted import noticing_uncommitted
from mtf.core.vocabulary.experiments import DIRECT, Desired, Experiment
from mtf.core.vocabulary.records import best_run
from mtf.errors import MtfError, SpecError
from mtf.project.project import Project, open_project
from mtf.project.run_lookup import find_run
from mtf.project.spec_tree import VALUE, SpecTree
from mtf.reconcile.gather import Options
from mtf.reconcile.live.look import WATCHED_S
from mtf.report.outcomes import done_as_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from mtf.core.vocabulary.ids import RunId
    from mtf.core.vocabulary.records import RunRecord
    from mtf.ledger.store import Ledger

_log = logging.getLogger("mtf")


class ParameterGrid:
    """A named grid over keys of a configuration, like a spec of ``kind: grid``."""

    def __init__(
        self, name: str, parameters: Mapping[str, Sequence[Any]] | None = None, **options: Any
    ) -> None:
        """Make a grid.

        Args:
            name: of the grid; its runs are called ``<name>/<timestamp>/<commit>/<member>``.
            parameters: dotted keys and their values; the grid is their cartesian product.
            options: further keys of a grid spec: linked, conditional, sample, exclude, naming...
        """
        self.name = name
        self.parameters = {k: list(v) for k, v in (parameters or {}).items()}
        self.options = options

    def add_parameter(self, path: str, values: Sequence[Any]) -> ParameterGrid:
        """Add a key with its values and return the grid."""
        self.parameters[path] = list(values)
        return self

    def as_spec(self, base: Mapping[str, Any]) -> dict[str, Any]:
        """Return the grid as a spec over a base configuration."""
        return {
            "kind": "grid",
            "name": self.name,
            "base": dict(base),
            "parameters": self.parameters,
            **self.options,
        }


@dataclass(frozen=True)
class Run:
    """A handle on one run; its properties are read from ledger and journal each time."""

    project: Project = field(repr=False)
    id: RunId

    @property
    def record(self) -> RunRecord:
        """Return the run's record, with the newest progress in its journal."""
        ledger = self.project.ledger()
        return _records(self.project, ledger, [find_run(ledger, self.id)])[0]

    @property
    def state(self) -> str:
        """Return the run's state, one of ``mtf.core.vocabulary.states.RunState``."""
        return self.record.state

    @property
    def metrics(self) -> Mapping[str, float]:
        """Return the newest value of each metric."""
        return self.record.metrics

    def cancel(self) -> None:
        """End the run for good; if it is over already, nothing happens."""
        act_on_runs.cancel(self.project, [self.id], publish=True, say=_log.info)

    def wait(self, every: float | None = None) -> RunRecord:
        """Reconcile every ``every`` seconds until the run is over, and return its record."""
        return Submission(self.project, (self.id,)).wait(every)[0]


@dataclass(frozen=True)
class Submission:
    """A handle on runs that were submitted together."""

    project: Project = field(repr=False)
    ids: tuple[RunId, ...]

    def __iter__(self) -> Iterator[Run]:
        """Yield a handle on each run."""
        return (Run(self.project, run) for run in self.ids)

    def __len__(self) -> int:
        """Return the number of runs."""
        return len(self.ids)

    @property
    def records(self) -> list[RunRecord]:
        """Return the runs' records in their order, with the newest progress in their journals."""
        ledger = self.project.ledger()
        return _records(self.project, ledger, [ledger.runs[run] for run in self.ids])

    def best(self) -> RunRecord | None:
        """Return the run with the best monitored value; None before any run has one."""
        return best_run(self.records)

    def wait(self, every: float | None = None) -> list[RunRecord]:
        """Reconcile every ``every`` seconds until the runs are over, and return their records."""
        sync_until_over(
            self.project, Options(), publish=True, update=_ignore, every=every, runs=self.ids
        )
        return self.records


@dataclass(frozen=True)
class SyncResult:
    """What one sync has done, in the words of ``mtf sync --json``."""

    commit: str
    # ``submitted``, ``failed``, ``pruned``, ... -> the runs, with their jobs or the reasons
    runs: Mapping[str, Mapping[str, str]]
    unchanged: int  # committed runs that nothing happened to
    waiting: int  # runs that begin from others, which are not over
    held: int  # runs that a policy holds back
    notes: tuple[str, ...]
    executor: str | None  # of new jobs, None if none was submitted
    cluster: str | None
    waiting_for_slurm: int  # runs that this machine, which has none, leaves to others

    @property
    def counts(self) -> dict[str, int]:
        """Return the number of runs for each thing that was done."""
        return {what: len(runs) for what, runs in self.runs.items() if runs}


def _warn_of(missed: Iterable[str]) -> None:
    """Log what runs will not have; as warnings, which Python shows unless told otherwise."""
    for note in missed:
        _log.warning("note: %s", note)


def _records(project: Project, ledger: Ledger, records: Iterable[RunRecord]) -> list[RunRecord]:
    """Return runs as of now; an answer of the executors that is a moment old will do."""
    rows = rows_of(project, ledger, records, within_s=WATCHED_S).rows
    return [row.record for row in rows]


def _ignore(_: list[RunRecord]) -> None:
    return None


class ModelTrainingFramework:
    """An experiments repository, with the same ledger as `mtf sync`."""

    def __init__(self, root: str | Path = ".") -> None:
        """Open the repository that contains ``root``.

        Raises:
            MtfError: there is no repository, or it has no commit.
        """
        self.project = open_project(Path(root))

    def create_experiment(self, config: Mapping[str, Any]) -> Experiment:
        """Return the experiment of a configuration, validated and with all defaults.

        Raises:
            SpecError: the configuration contains mistakes; the error has all of them.
        """
        return self._resolve({"kind": "experiment", **config}).experiments[0]

    def run_experiment(
        self, config: Mapping[str, Any] | Experiment, *, local: bool | None = None
    ) -> Run:
        """Submit one experiment, pinned to HEAD, unless it has been submitted before.

        Args:
            config: like an experiment spec, or a result of ``create_experiment``.
            local: True runs it here, False on SLURM, None on the executor in mtf.yaml.

        Raises:
            MtfError: the experiment was not submitted.
        """
        if isinstance(config, Experiment):
            wanted = Desired(config.owner_name, DIRECT, (config,), max_parallel=None, cluster=None)
        else:
            wanted = self._resolve({"kind": "experiment", **config})
        return next(iter(self._submit([wanted], local=local)))

    def run_grid_search(
        self,
        base: Mapping[str, Any],
        grids: Sequence[ParameterGrid],
        *,
        local: bool | None = None,
    ) -> Submission:
        """Submit all members of the grids that have not been submitted before.

        Args:
            base: the configuration that the grids vary.
            grids: to submit.
            local: as in ``run_experiment``.

        Raises:
            MtfError: not all members were submitted.
        """
        return self._submit([self._resolve(g.as_spec(base)) for g in grids], local=local)

    def sync(self) -> SyncResult:
        """Reconcile the committed experiments once, as ``mtf sync`` does; return what was done.

        Raises:
            SpecError: some committed specs contain mistakes and were left out; everything else was
                done.
        """
        with noticing_uncommitted(self.project) as uncommitted:
            with sync_lock(self.project, wait_s=60):
                report = sync_once(self.project, Options(), publish=True, say=_log.info)
            missed = uncommitted()
        for note in report.plan.notes:
            _log.info("note: %s", note)
        _warn_of(missed)
        if report.problems:
            raise SpecError(list(report.problems))
        plan = report.plan
        return SyncResult(
            commit=report.commit,
            runs=done_as_json(report.done),
            unchanged=plan.unchanged,
            waiting=plan.waiting,
            held=plan.held,
            notes=(*plan.notes, *missed),
            executor=report.placement.executor if report.placement else None,
            cluster=report.placement.cluster if report.placement else None,
            waiting_for_slurm=plan.waiting_for_slurm,
        )

    def status(self) -> list[RunRecord]:
        """Return the records of all runs, with the newest progress in their journals."""
        ledger = self.project.ledger()
        return _records(self.project, ledger, ledger.runs.values())

    def _resolve(self, spec: Mapping[str, Any]) -> Desired:
        repo = self.project.repo
        groups = SpecTree.at(repo, self.project.tracked()).groups
        code = SpecTree.at(repo, repo.commit("HEAD")).code  # the commit that the runs are pinned to
        loaded = SpecTree.of_value(spec, self.project.settings, groups, code).load([VALUE])
        if any(problem.is_error for problem in loaded.problems):
            raise SpecError(list(loaded.problems))
        return replace(loaded.desired[0], path=DIRECT)

    def _submit(self, wanted: Sequence[Desired], *, local: bool | None) -> Submission:
        executor = None if local is None else ("local" if local else "slurm")
        with noticing_uncommitted(self.project) as uncommitted:
            with sync_lock(self.project, wait_s=60):
                report, keys = submit_from_python.submit(
                    self.project, wanted, executor=executor, publish=True, say=_log.info
                )
            _warn_of(uncommitted())
        if report.refused:
            raise MtfError("\n".join(f"{run}: {reason}" for run, reason in report.refused.items()))
        runs = self.project.ledger().runs.values()
        newest = {r.key: r.run for r in sorted(runs, key=lambda r: r.claimed_at) if r.key in keys}
        return Submission(self.project, tuple(sorted(newest.values())))
