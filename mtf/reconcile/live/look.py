"""Looks at runs: asks executors and journals, and derives a row for each run. Writes no ledger."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from threading import Thread
from typing import TYPE_CHECKING

from mtf.core.planner.rows.run_rows import Row, Sight, recorded_row, row_of
from mtf.core.planner.run_update import Retry
from mtf.core.vocabulary.causes import Cause
from mtf.errors import ExecutorUnavailableError, MtfError
from mtf.reconcile.live.job_views import read_live
from mtf.reconcile.live.shared_answer import Answer, SharedAnswer
from mtf.reconcile.run_access import (
    is_elsewhere,
    private_folder,
    private_notes,
    read_progress,
    shut_out,
)
from mtf.report.tables import count

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from mtf.core.vocabulary.records import RunRecord
    from mtf.executor.protocol import JobSource
    from mtf.ledger.store import Ledger
    from mtf.project.project import Project
    from mtf.spec.schema.settings import Settings

_PATIENCE_S = 10.0  # for each program of SLURM
WATCHED_S = 2.0  # the age of an answer that will do for somebody who keeps looking


@dataclass(frozen=True)
class Looked:
    """Rows in the order of the records, and notes on those that are not of now."""

    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


class Look:
    """A look at the runs of one clone; the executors answer while the caller goes on."""

    def __init__(self, project: Project, records: Iterable[RunRecord]) -> None:
        """Take all records of the ledger, so that all viewers ask the same question."""
        self._root, self._folder = project.runs_root, project.folder
        self._retry = retry_of(project.settings)
        self._cluster = project.settings.cluster.name
        active = [r for r in records if not r.is_over and r.cluster == self._cluster]
        near = [r for r in active if not is_elsewhere(self._root, r)]
        self._private = [r for r in near if private_folder(r)]
        hidden = {r.run for r in self._private}
        self._here = {r.run: r for r in near if r.run not in hidden}
        self._answer = Answer(time.time())
        self._thread: Thread | None = None

    def begin(self, within_s: float = 0.0) -> Look:
        """Ask the executors in the background, unless an answer is at most ``within_s`` s old."""
        if self._here:
            self._thread = Thread(target=self._ask, args=(within_s,), daemon=True)
            self._thread.start()
        return self

    def _ask(self, within_s: float) -> None:
        question = sorted(
            f"{r.executor} {r.attempt.token} {r.attempt.index}" for r in self._here.values()
        )
        shared = SharedAnswer(self._folder)
        try:
            self._answer = shared.newest(question, within_s, self._asked)
        except (MtfError, OSError) as e:
            self._answer = Answer(
                time.time(), unreadable={r.executor: str(e) for r in self._here.values()}
            )

    def _asked(self) -> Answer:
        now = time.time()
        live, unreadable = read_live(_Viewers(self._root), self._here.values())
        return Answer(now, live, unreadable)

    def rows(self, records: Iterable[RunRecord]) -> Looked:
        """Return the rows of these runs, once the executors have answered."""
        if self._thread is not None:
            self._thread.join()
        answer, records = self._answer, list(records)
        asked = [r for r in records if r.run in self._here and r.executor in answer.live]
        held = shut_out(asked, answer.live)
        now = datetime.now(UTC)
        rows = []
        for record in records:
            can_be_asked = record.executor not in answer.unreadable
            if record.is_over:
                is_here = record.cluster == self._cluster and not is_elsewhere(self._root, record)
                sight = Sight(answer.at if is_here and can_be_asked else None)
            elif record.run in self._here and record.executor in answer.live:
                place = record.attempt.token, record.attempt.index
                job = answer.live[record.executor].get(place)
                sight = Sight(answer.at, job, read_progress(record), held.get(record.run))
            else:
                sight = Sight(progress=read_progress(record))
            rows.append(row_of(record, sight, self._retry, now))
        return Looked(tuple(rows), tuple(self._why_not(rows)))

    def _why_not(self, rows: Sequence[Row]) -> Iterable[str]:
        """Yield the reasons that some active runs are not shown as of now."""
        old = [row.record for row in rows if not row.live and not row.record.is_over]
        unreadable = self._answer.unreadable
        counts = Counter(
            r.executor for r in old if r.run in self._here and r.executor in unreadable
        )
        for executor, n in counts.items():
            yield f"{executor} cannot be asked ({unreadable[executor]}): {_shown(n)}"
        private = {r.run for r in self._private}
        yield from private_notes(r for r in old if r.run in private)
        far = [r for r in old if r.run not in self._here and r.run not in private]
        if far:
            yield f"another clone, host or cluster runs them: {_shown(len(far))}"


def retry_of(settings: Settings) -> Retry:
    """Return when another attempt follows one that has ended."""
    retry = settings.retry
    on = frozenset(Cause(cause) for cause in retry.on)
    return Retry(max_attempts=retry.max_attempts, on=on, backoff_s=retry.backoff)


class _Viewers:
    """Opens the executors for looking alone: nothing is started, and nobody waits for long."""

    def __init__(self, runs_root: Path) -> None:
        self._root = runs_root

    def open(self, name: str) -> JobSource:
        """Return the source of the jobs of an executor."""
        if name == "slurm":
            from mtf.executor.slurm.job_query import JobQuery

            return JobQuery(timeout_s=_PATIENCE_S)
        if name == "local":
            from mtf.executor.local.queue_view import QueueView

            return QueueView(self._root)
        raise ExecutorUnavailableError(f"no executor is called {name!r}")


def _shown(n: int) -> str:
    return f"{count(n, 'active run')} shown as last seen (column AS OF)"


def as_recorded(records: Iterable[RunRecord]) -> Looked:
    """Return rows as the ledger has them, asking nobody."""
    return Looked(tuple(map(recorded_row, records)))


def as_of_now(project: Project, ledger: Ledger) -> Ledger:
    """Return a ledger with each run's state of now, to choose runs by it and never to write it."""
    active = [r for r in ledger.runs.values() if not r.is_over]
    if not active:
        return ledger
    rows = Look(project, ledger.runs.values()).begin().rows(active).rows
    return replace(ledger, runs={**ledger.runs, **{row.record.run: row.record for row in rows}})


def with_ends(project: Project, ledger: Ledger) -> Ledger:
    """Return a ledger in which runs that are over as of now are over, though no sync has run since.

    For commands on runs that are over, such as ``mtf retry`` right after ``scancel``.
    """
    active = [r for r in ledger.runs.values() if not r.is_over]
    if not active:
        return ledger
    rows = Look(project, ledger.runs.values()).begin().rows(active).rows
    ended = {row.record.run: row.record for row in rows if row.live and row.record.is_over}
    return replace(ledger, runs={**ledger.runs, **ended}) if ended else ledger
