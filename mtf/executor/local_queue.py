"""The local executor's queue: one SQLite file in the run root, short transactions, no daemon.

Both sides use it: clients add jobs and wishes, the one worker starts jobs and writes their ends.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtf.core.ids import JobId, Token
from mtf.core.states import JobState
from mtf.errors import ExecutorUnavailableError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from mtf.core.jobs import JobRequest

FOLDER = ".local"  # in the run root
_PREFIX = "local-"
_SCHEMA = """
PRAGMA user_version = 1;
CREATE TABLE IF NOT EXISTS jobs (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  token TEXT NOT NULL, task INTEGER NOT NULL, run_dir TEXT NOT NULL, script TEXT NOT NULL,
  throttle INTEGER, limit_s INTEGER, lead_s INTEGER NOT NULL, requeue INTEGER NOT NULL,
  state TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '', restarts INTEGER NOT NULL DEFAULT 0,
  pid INTEGER, started_with TEXT, wish TEXT, wished_at REAL, warned INTEGER NOT NULL DEFAULT 0,
  submitted REAL NOT NULL, started REAL, ended REAL, exit_code INTEGER, signal INTEGER,
  UNIQUE (token, task)
);
CREATE INDEX IF NOT EXISTS by_state ON jobs (state);
"""


@dataclass(frozen=True)
class QueuedJob:
    """One row. Times are seconds since the epoch."""

    id: int
    token: Token
    task: int
    run_dir: str
    script: str
    throttle: int | None  # jobs of this token that may run at a time
    limit_s: int | None
    lead_s: int  # before the limit, at which USR1 is sent
    requeue: bool
    state: JobState
    reason: str
    restarts: int
    pid: int | None  # of the process group's leader
    started_with: str | None  # boot id and start time of that process: a reused pid differs
    wish: str | None  # "cancel", "preempt" or "timeout": why the job is being ended
    wished_at: float | None
    warned: bool  # of the time limit
    submitted: float
    started: float | None
    ended: float | None
    exit_code: int | None
    signal: int | None

    @property
    def job_id(self) -> JobId:
        """Return the id that others know the job by."""
        return job_id(self.id)


def job_id(number: int) -> JobId:
    """Return the job id of a row."""
    return JobId(f"{_PREFIX}{number}")


def _number(job: JobId) -> int:
    digits = job.removeprefix(_PREFIX)
    return int(digits) if digits.isdigit() else -1


class LocalQueue:
    """The queue of one run root. Each call opens the file, does one transaction, closes it."""

    def __init__(self, runs_root: Path) -> None:
        """Name the queue; nothing is made before the first submission."""
        self.folder = runs_root / FOLDER
        self._path = self.folder / "queue.sqlite"

    def exists(self) -> bool:
        """Return whether anything was ever submitted here."""
        return self._path.exists()

    def make(self) -> None:
        """Make the queue unless it is there.

        Raises:
            OSError: the run root cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.exists():
            with self._open() as db:
                db.executescript(_SCHEMA)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            db = sqlite3.connect(self._path, timeout=20, isolation_level=None)
            try:
                db.row_factory = sqlite3.Row
                yield db
            finally:
                db.close()
        except sqlite3.Error as e:
            raise ExecutorUnavailableError(f"{self._path}: {e}") from e

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    def add(self, request: JobRequest, script: str, limit_s: int | None) -> dict[int, JobId]:
        """Queue a request's tasks, all or none; a token that is there is not added again."""
        needs = request.resources
        rows = [
            (
                request.token, task.index, task.run_dir, script, request.max_parallel, limit_s,
                needs["signal_lead"], needs["requeue"], JobState.PENDING, time.time(),
            )
            for task in request.tasks
        ]  # fmt: skip
        with self._transaction() as db:
            db.executemany(
                "INSERT OR IGNORE INTO jobs (token, task, run_dir, script, throttle, limit_s,"
                " lead_s, requeue, state, submitted) VALUES (?,?,?,?,?,?,?,?,?,?)",
                rows,
            )
            found = db.execute("SELECT task, id FROM jobs WHERE token = ?", (request.token,))
            return {row["task"]: job_id(row["id"]) for row in found}

    def by_tokens(self, tokens: Collection[Token]) -> list[QueuedJob]:
        """Return the jobs of these submissions."""
        wanted = set(tokens)
        if not (wanted and self.exists()):
            return []
        with self._open() as db:
            rows = db.execute("SELECT * FROM jobs ORDER BY id").fetchall()
        return [_job(row) for row in rows if row["token"] in wanted]

    def unfinished(self) -> list[QueuedJob]:
        """Return the jobs that wait or run, the oldest first."""
        if not self.exists():
            return []
        with self._open() as db:
            rows = db.execute(
                "SELECT * FROM jobs WHERE state IN (?, ?) ORDER BY id",
                (JobState.PENDING, JobState.RUNNING),
            ).fetchall()
        return [_job(row) for row in rows]

    def wish(self, jobs: Collection[JobId], what: str) -> None:
        """Ask for unfinished jobs to be ended (``cancel``, ``preempt``, ``timeout``).

        A cancellation goes before what was wished earlier; nothing else does.
        """
        if not (jobs and self.exists()):
            return
        weaker = "" if what == "cancel" else " AND wish IS NULL"
        with self._transaction() as db:
            db.executemany(
                "UPDATE jobs SET wish = ?, wished_at = NULL WHERE id = ? AND state IN (?, ?)"
                + weaker,
                [(what, _number(job), JobState.PENDING, JobState.RUNNING) for job in jobs],
            )

    def update(self, number: int, **values: object) -> None:
        """Change columns of one row."""
        columns = ", ".join(f"{name} = ?" for name in values)
        with self._transaction() as db:
            db.execute(f"UPDATE jobs SET {columns} WHERE id = ?", (*values.values(), number))


def _job(row: sqlite3.Row) -> QueuedJob:
    values = dict(row)
    return QueuedJob(
        **{
            **values,
            "state": JobState(values["state"]),
            "requeue": bool(values["requeue"]),
            "warned": bool(values["warned"]),
        }
    )
