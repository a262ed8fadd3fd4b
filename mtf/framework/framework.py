"""`ModelTrainingFramework`: experiments and grid searches from Python."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtf.commands.sync import sync_lock, sync_once
from mtf.commands.uncommitted import noticing_uncommitted
from mtf.core.vocabulary.experiments import DIRECT, Desired, Experiment
from mtf.errors import SpecError
from mtf.framework.run_handles import Run, Submission, records_now
from mtf.framework.submitter import Submitter
from mtf.project.project import open_project
from mtf.reconcile.gather import Options
from mtf.report.outcomes import done_as_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mtf.core.vocabulary.records import RunRecord
    from mtf.framework.parameter_grids import ParameterGrid

_log = logging.getLogger("mtf")


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


class ModelTrainingFramework:
    """An experiments repository, with the same ledger as `mtf sync`."""

    def __init__(self, root: str | Path = ".") -> None:
        """Open the repository that contains ``root``.

        Raises:
            MtfError: there is no repository, or it has no commit.
        """
        self.project = open_project(Path(root))
        self._submitter = Submitter(self.project)

    def create_experiment(self, config: Mapping[str, Any]) -> Experiment:
        """Return the experiment of a configuration, validated and with all defaults.

        Raises:
            SpecError: the configuration contains mistakes; the error has all of them.
        """
        return self._submitter.resolve({"kind": "experiment", **config}).experiments[0]

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
            wanted = self._submitter.resolve({"kind": "experiment", **config})
        return next(iter(self._submitter.submit([wanted], local=local)))

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
        return self._submitter.submit(
            [self._submitter.resolve(g.as_spec(base)) for g in grids], local=local
        )

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
        for note in missed:
            _log.warning("note: %s", note)
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
        return records_now(self.project, ledger, ledger.runs.values())
