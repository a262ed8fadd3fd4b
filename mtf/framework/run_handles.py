"""`Run` and `Submission`: handles on submitted runs, which read ledger and journals each time."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from mtf.commands.wait_for_runs import sync_until_over
from mtf.core.vocabulary.records import best_run
from mtf.errors import MtfError
from mtf.framework.live_display import show_progress
from mtf.framework.results.run_reading import ReadsRun
from mtf.framework.results.run_results import results_table
from mtf.project.run_lookup import find_run
from mtf.reconcile.gather import Options
from mtf.reconcile.live.look import WATCHED_S, Look
from mtf.report.tables import count

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from mtf.core.vocabulary.ids import JobId, RunId
    from mtf.core.vocabulary.records import RunRecord
    from mtf.framework.execution import ExecutionMode
    from mtf.framework.results.run_results import Results
    from mtf.ledger.store import Ledger
    from mtf.project.project import Project

_log = logging.getLogger("mtf")


class Run(str, ReadsRun):
    """A handle on one run. As text it is the id of its job, so that other programs can use it.

    ``print(run)``, ``run == "4711"`` and ``subprocess.run(["sacct", "-j", run])`` see the job that
    the run had when the handle was made; a run without a job is its own id. Properties are read
    from ledger, executor and journal each time.

    Attributes:
        id: the run's id, which stays the same when a later job continues the run.
        submitted_as: the job that the text stands for, None if the run had none.
        project: the repository that the run belongs to.
    """

    id: RunId
    submitted_as: JobId | None
    project: Project

    def __new__(cls, project: Project, run: RunId, job_id: JobId | None = None) -> Self:
        """Make a handle on a run that has this job."""
        handle = super().__new__(cls, job_id or run)
        handle.project, handle.id, handle.submitted_as = project, run, job_id
        return handle

    def __reduce__(self) -> tuple[type[Self], tuple[Project, RunId, JobId | None]]:
        """Return the parts that a copy is made from."""
        return type(self), (self.project, self.id, self.submitted_as)

    def __repr__(self) -> str:
        return f"Run({str(self)!r}, id={self.id!r})"

    @property
    def job_id(self) -> JobId | None:
        """Return the id of the run's newest job, None if it has none."""
        return self.record.job_id

    @property
    def record(self) -> RunRecord:
        """Return the run's record, with the newest progress in its journal."""
        ledger = self.project.ledger()
        return records_now(self.project, ledger, [find_run(ledger, self.id)])[0]

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
        from mtf.commands import act_on_runs  # late: few programs cancel runs

        act_on_runs.cancel(self.project, [self.id], publish=True, say=_log.info)

    def wait(self, every: float | None = None, *, progress: bool = True) -> RunRecord:
        """Reconcile every ``every`` seconds until the run is over, and return its record."""
        return Submission(self.project, (self.id,)).wait(every, progress=progress)[0]


@dataclass(frozen=True)
class Submission:
    """A handle on runs that were submitted together."""

    project: Project = field(repr=False)
    ids: tuple[RunId, ...]
    is_planned: bool = False  # by a dry run: there are no such runs

    def __iter__(self) -> Iterator[Run]:
        """Yield a handle on each run."""
        if self.is_planned:
            return (Run(self.project, run) for run in self.ids)
        runs = self.project.ledger().runs
        return (Run(self.project, run, runs[run].job_id) for run in self.ids)

    def __len__(self) -> int:
        """Return the number of runs."""
        return len(self.ids)

    @property
    def records(self) -> list[RunRecord]:
        """Return the runs' records in their order, with the newest progress in their journals.

        Raises:
            MtfError: they are those of a dry run.
        """
        if self.is_planned:
            raise MtfError("a dry run submits nothing, so its runs have no records")
        ledger = self.project.ledger()
        return records_now(self.project, ledger, [ledger.runs[run] for run in self.ids])

    @property
    def results(self) -> Results:
        """Return the results of the runs, in their order: a table in notebooks."""
        return results_table(self.records, count(len(self), "run"))

    def _repr_html_(self) -> str | None:
        return None if self.is_planned else self.results._repr_html_()

    def best(self) -> RunRecord | None:
        """Return the run with the best monitored value; None before any run has one."""
        return None if self.is_planned else best_run(self.records)

    def wait(self, every: float | None = None, *, progress: bool = True) -> list[RunRecord]:
        """Reconcile these runs until they are over, and return their records.

        Nothing else that is committed is submitted.

        Args:
            every: seconds between two looks; by default 0.5 for local runs, 5 on a cluster.
            progress: show the runs on standard error: a table that is redrawn on a terminal, else a
                line for each change of state.
        """
        if self.is_planned:
            raise MtfError("a dry run submits nothing, so there is nothing to wait for")
        with show_progress(is_shown=progress) as update:
            sync_until_over(
                self.project, Options(), publish=True, update=update, every=every, runs=self.ids
            )
        return self.records


@dataclass(frozen=True)
class ExperimentResult:
    """The outcome of asking for one experiment.

    Attributes:
        experiment_name: of its configuration.
        run: a handle on the run; None if there is none, as after a dry run.
        run_id: of the run; after a dry run, the one that it would have now.
        mode: that was asked for; None: the executor of mtf.yaml.
        reason: why it was not submitted, or that it had been submitted before; empty otherwise.
        script: of its job, after a dry run.
    """

    experiment_name: str
    run: Run | None
    run_id: RunId | None
    mode: ExecutionMode | None
    is_refused: bool = False
    reason: str = ""
    script: str | None = field(default=None, repr=False)

    @property
    def success(self) -> bool:
        """Return True unless the executor refused the run; it may fail later all the same."""
        return not self.is_refused

    @property
    def job_id(self) -> str | None:
        """Return the id of the run's job when it was submitted, None if it has none yet."""
        return None if self.run is None else self.run.submitted_as


def records_now(project: Project, ledger: Ledger, records: Iterable[RunRecord]) -> list[RunRecord]:
    """Return runs as of now; an answer of the executors that is a moment old will do."""
    records = list(records)
    look = Look(project, ledger.runs.values())
    if any(not record.is_over for record in records):
        look.begin(WATCHED_S)
    return [row.record for row in look.rows(records).rows]
