"""`ModelTrainingFramework`: experiments and grid searches from Python."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mtf.commands.sync import sync_lock, sync_once
from mtf.commands.uncommitted import noticing_uncommitted
from mtf.errors import MtfError, SpecError
from mtf.framework.config_manager import ConfigurationManager
from mtf.framework.execution import ExecutionMode, mode_of
from mtf.framework.experiment_values import name_of
from mtf.framework.grid_search import GridSearchExecutor, search
from mtf.framework.launcher import SLURMLauncher
from mtf.framework.results.run_results import results_table
from mtf.framework.run_handles import ExperimentResult, Run, records_now
from mtf.framework.run_list import list_runs
from mtf.framework.submitter import Submitter
from mtf.project.project import open_project
from mtf.project.run_lookup import find_run
from mtf.reconcile.gather import Options
from mtf.report.outcomes import done_as_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mtf.core.vocabulary.records import RunRecord
    from mtf.framework.experiment_values import Config
    from mtf.framework.grid_search import GridSearchResult
    from mtf.framework.parameter_grids import ParameterGrid
    from mtf.framework.results.run_results import Results
    from mtf.framework.run_list import RunList
    from mtf.spec.schema.experiment_config import ExperimentConfig

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
    """An experiments repository, with the same ledger as `mtf sync`.

    Attributes:
        project: the opened repository.
        project_root: the folder with mtf.yaml.
        config_manager: lists and loads the committed configurations.
        launcher: submits configurations, and shows their job scripts.
        grid_search: submits grids through the launcher.
    """

    def __init__(self, root: str | Path = ".") -> None:
        """Open the repository that contains ``root``.

        Raises:
            RepositoryError: there is no repository, or it has no commit.
        """
        self.project = open_project(Path(root))
        self.project_root = self.project.root
        self.config_manager = ConfigurationManager(self.project)
        self.launcher = SLURMLauncher(project_root=self.project)
        self.grid_search = GridSearchExecutor(self.launcher, self.config_manager)
        self._submitter = Submitter(self.project)

    def create_experiment(self, config: Config) -> ExperimentConfig:
        """Return a configuration, validated and with all defaults.

        The classes and data that it names are looked up when it is to run, at the commit that it
        then runs from.

        Raises:
            ConfigurationError: it contains mistakes; the error has all of them.
        """
        return self._submitter.config(config)

    def run_single_experiment(
        self, config: Config, mode: ExecutionMode | None = None, *, snapshot: bool = False
    ) -> ExperimentResult:
        """Submit one experiment, pinned to HEAD, unless it has been submitted before.

        Args:
            config: like an experiment spec, or a result of ``create_experiment``.
            mode: where it runs; None: on the executor in mtf.yaml.
            snapshot: pin the work tree as it is, with what is not committed; otherwise that is
                refused.

        Raises:
            ConfigurationError: it contains mistakes, or names what HEAD does not have.
            MtfError: it cannot be submitted now. If the executor has refused it, the result says so
                instead.
        """
        mode = mode_of(mode)
        submitter, name = self._submitter.pinned(mode, snapshot=snapshot), name_of(config)
        outcome = submitter.submit(submitter.experiments([config]), mode)
        if mode is ExecutionMode.DRY_RUN:
            (run,) = outcome.submission.ids or (None,)
            why = "" if run else "submitted before: nothing would be submitted"
            script = outcome.scripts.get(run) if run else None
            return ExperimentResult(name, None, run, mode, reason=why, script=script)
        (handle,) = outcome.submission
        why = outcome.refused.get(handle.id, "")
        return ExperimentResult(name, handle, handle.id, mode, bool(why), why)

    def run_experiment(
        self, config: Config, *, local: bool | None = None, snapshot: bool = False
    ) -> Run:
        """Submit one experiment, pinned to HEAD, unless it has been submitted before.

        Args:
            config: like an experiment spec, or a result of ``create_experiment``.
            local: True runs it here, False on SLURM, None on the executor in mtf.yaml.
            snapshot: as in ``run_single_experiment``.

        Raises:
            ConfigurationError: it contains mistakes, or names what HEAD does not have.
            MtfError: the experiment was not submitted.
        """
        result = self.run_single_experiment(config, _mode(local), snapshot=snapshot)
        if result.run is None or result.is_refused:
            raise MtfError(f"{result.run_id}: {result.reason}")
        return result.run

    def run_grid_search(
        self,
        base_config: Config,
        grids: ParameterGrid | Iterable[ParameterGrid],
        *,
        local: bool | None = None,
        mode: ExecutionMode | None = None,
        snapshot: bool = False,
    ) -> GridSearchResult:
        """Submit all members of the grids that have not been submitted before.

        Args:
            base_config: the configuration that the grids vary.
            grids: to submit.
            local: as in ``run_experiment``.
            mode: where the runs go, as in ``run_single_experiment``.
            snapshot: as in ``run_single_experiment``.

        Raises:
            ConfigurationError: base or grids contain mistakes.
            MtfError: no member was submitted. Where only some were refused, they are among the
                ``failures`` of the result.
        """
        mode = mode_of(mode) or _mode(local)
        return search(self._submitter, base_config, grids, mode, snapshot=snapshot)

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

    def run(self, name: str) -> Run:
        """Return a handle on a run, by a name or id as in `mtf show`.

        Raises:
            MtfError: no run, or more than one, has that name.
        """
        record = find_run(self.project.ledger(), name)
        return Run(self.project, record.run, record.job_id)

    def runs(
        self, *globs: str, where: str | Sequence[str] = (), superseded: bool = False
    ) -> RunList:
        """Return the runs that match, the newest submission first.

        Args:
            globs: patterns for ids, names and job ids; without any, all runs match.
            where: conditions such as ``"state=completed and val_loss<0.5"``, as in `--where`.
            superseded: list runs that `mtf rerun` has superseded, too.

        Raises:
            MtfError: a condition is not valid.
        """
        return list_runs(self.project, globs, where, superseded=superseded)

    def results(self, name: str) -> Results:
        """Return the results of a grid or an experiment, the best first, as `mtf results` does.

        Raises:
            MtfError: no run has that name.
        """
        from mtf.commands.show_runs import results_of  # late: submitting needs none of it

        return results_table(results_of(self.project, name), name)


def _mode(local: bool | None) -> ExecutionMode | None:  # noqa: FBT001 -- the value of an option
    return None if local is None else (ExecutionMode.LOCAL if local else ExecutionMode.SLURM)
