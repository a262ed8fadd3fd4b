"""`ModelTrainingFramework`: experiments and grid searches from Python, by the same reconciler."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtf.commands import act_on_runs, submit_from_python
from mtf.commands.sync import sync_lock, sync_once, sync_until_over
from mtf.core.vocabulary.experiments import DIRECT, Desired, Experiment
from mtf.core.vocabulary.records import best_run
from mtf.errors import MtfError, SpecError
from mtf.project.project import Project, open_project
from mtf.project.run_lookup import find_run
from mtf.project.spec_tree import VALUE, SpecTree
from mtf.reconcile.gather import Options
from mtf.reconcile.run_access import with_journals

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mtf.core.vocabulary.ids import RunId
    from mtf.core.vocabulary.records import RunRecord

_log = logging.getLogger("mtf")


class ParameterGrid:
    """A named grid over dotted paths, as ``kind: grid`` specs have them."""

    def __init__(
        self, name: str, parameters: Mapping[str, Sequence[Any]] | None = None, **options: Any
    ) -> None:
        """Make a grid.

        Args:
            name: of the grid; its runs go by ``<name>/<timestamp>/<commit>/<member>``.
            parameters: dotted path to values; the cartesian product is taken.
            options: further keys of a grid spec: linked, conditional, sample, exclude, naming...
        """
        self.name = name
        self.parameters = {k: list(v) for k, v in (parameters or {}).items()}
        self.options = options

    def add_parameter(self, path: str, values: Sequence[Any]) -> ParameterGrid:
        """Add an axis and return the grid."""
        self.parameters[path] = list(values)
        return self

    def as_spec(self, base: Mapping[str, Any]) -> dict[str, Any]:
        """Return the grid spec this stands for, over ``base``."""
        return {
            "kind": "grid",
            "name": self.name,
            "base": dict(base),
            "parameters": self.parameters,
            **self.options,
        }


@dataclass(frozen=True)
class Run:
    """A handle on one run; every answer is read anew."""

    project: Project = field(repr=False)
    id: RunId

    @property
    def record(self) -> RunRecord:
        """Return all that is known of the run."""
        return with_journals([find_run(self.project.ledger(), self.id)])[0]

    @property
    def state(self) -> str:
        """Return the run's state, one of ``mtf.core.vocabulary.states.RunState``."""
        return self.record.state

    @property
    def metrics(self) -> Mapping[str, float]:
        """Return the newest value of each metric."""
        return self.record.metrics

    def cancel(self) -> None:
        """End the run for good."""
        with sync_lock(self.project, wait_s=60):
            act_on_runs.cancel(self.project, [self.id], publish=True, say=_log.info)

    def wait(self, every: float | None = None) -> RunRecord:
        """Reconcile until the run is over and return its record; ``every`` is in seconds."""
        return Submission(self.project, (self.id,)).wait(every)[0]


@dataclass(frozen=True)
class Submission:
    """A handle on runs that were asked for together."""

    project: Project = field(repr=False)
    ids: tuple[RunId, ...]

    def __iter__(self) -> Iterator[Run]:
        """Yield a handle on each run."""
        return (Run(self.project, run) for run in self.ids)

    def __len__(self) -> int:
        """Return how many runs there are."""
        return len(self.ids)

    @property
    def records(self) -> list[RunRecord]:
        """Return all that is known of the runs, in their order."""
        runs = self.project.ledger().runs
        return with_journals(runs[run] for run in self.ids)

    def best(self) -> RunRecord | None:
        """Return the run with the best value of the monitored metric."""
        return best_run(self.records)

    def wait(self, every: float | None = None) -> list[RunRecord]:
        """Reconcile until the runs are over and return their records; ``every`` is in seconds."""
        sync_until_over(
            self.project, Options(), publish=True, update=_ignore, every=every, runs=self.ids
        )
        return self.records


def _ignore(_: list[RunRecord]) -> None:
    return None


class ModelTrainingFramework:
    """An experiments repository from Python. What it submits is recorded as `mtf sync` does it."""

    def __init__(self, root: str | Path = ".") -> None:
        """Open the repository that holds ``root``.

        Raises:
            MtfError: it is not a repository with a commit.
        """
        self.project = open_project(Path(root))

    def create_experiment(self, config: Mapping[str, Any]) -> Experiment:
        """Return the validated, resolved experiment of a configuration like a spec's.

        Raises:
            SpecError: it is wrong; every mistake is said.
        """
        return self._resolve({"kind": "experiment", **config}).experiments[0]

    def run_experiment(
        self, config: Mapping[str, Any] | Experiment, *, local: bool | None = None
    ) -> Run:
        """Submit one experiment, pinned to HEAD, unless the same one has been.

        Args:
            config: like an experiment spec, or what ``create_experiment`` has made of one.
            local: True runs it here, False on SLURM, None where mtf.yaml says.

        Raises:
            MtfError: it was not submitted.
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
        """Submit every member of the grids that has not been.

        Raises:
            MtfError: nothing was submitted.
        """
        return self._submit([self._resolve(g.as_spec(base)) for g in grids], local=local)

    def sync(self) -> None:
        """Reconcile the committed experiments once, as ``mtf sync`` does.

        Raises:
            SpecError: some of what is committed is wrong and was left out; all else was done.
        """
        with sync_lock(self.project, wait_s=60):
            report = sync_once(self.project, Options(), publish=True, say=_log.info)
        for note in report.plan.notes:
            _log.info("note: %s", note)
        if report.problems:
            raise SpecError(list(report.problems))

    def status(self) -> list[RunRecord]:
        """Return every run that the ledger knows."""
        return with_journals(self.project.ledger().runs.values())

    def _resolve(self, spec: Mapping[str, Any]) -> Desired:
        groups = SpecTree.at(self.project.repo, self.project.tracked()).groups
        loaded = SpecTree.of_value(spec, self.project.settings, groups).load([VALUE])
        if loaded.problems:
            raise SpecError(list(loaded.problems))
        return replace(loaded.desired[0], path=DIRECT)

    def _submit(self, wanted: Sequence[Desired], *, local: bool | None) -> Submission:
        executor = None if local is None else ("local" if local else "slurm")
        with sync_lock(self.project, wait_s=60):
            report, keys = submit_from_python.submit(
                self.project, wanted, executor=executor, publish=True, say=_log.info
            )
        if report.refused:
            raise MtfError("\n".join(f"{run}: {why}" for run, why in report.refused.items()))
        runs = self.project.ledger().runs.values()
        newest = {r.key: r.run for r in sorted(runs, key=lambda r: r.claimed_at) if r.key in keys}
        return Submission(self.project, tuple(sorted(newest.values())))
