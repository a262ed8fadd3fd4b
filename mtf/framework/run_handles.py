"""`Run` and `Submission`: handles on submitted runs, which read ledger and journals each time."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mtf.commands import act_on_runs
from mtf.commands.show_runs import rows_of
from mtf.commands.sync import sync_until_over
from mtf.core.vocabulary.records import best_run
from mtf.project.run_lookup import find_run
from mtf.reconcile.gather import Options
from mtf.reconcile.live.look import WATCHED_S

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from mtf.core.vocabulary.ids import RunId
    from mtf.core.vocabulary.records import RunRecord
    from mtf.ledger.store import Ledger
    from mtf.project.project import Project

_log = logging.getLogger("mtf")


@dataclass(frozen=True)
class Run:
    """A handle on one run; its properties are read from ledger and journal each time."""

    project: Project = field(repr=False)
    id: RunId

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
        return records_now(self.project, ledger, [ledger.runs[run] for run in self.ids])

    def best(self) -> RunRecord | None:
        """Return the run with the best monitored value; None before any run has one."""
        return best_run(self.records)

    def wait(self, every: float | None = None) -> list[RunRecord]:
        """Reconcile every ``every`` seconds until the runs are over, and return their records."""
        sync_until_over(
            self.project, Options(), publish=True, update=_ignore, every=every, runs=self.ids
        )
        return self.records


def records_now(project: Project, ledger: Ledger, records: Iterable[RunRecord]) -> list[RunRecord]:
    """Return runs as of now; an answer of the executors that is a moment old will do."""
    rows = rows_of(project, ledger, records, within_s=WATCHED_S).rows
    return [row.record for row in rows]


def _ignore(_: list[RunRecord]) -> None:
    return None
