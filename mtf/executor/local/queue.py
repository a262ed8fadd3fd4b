"""The local executor's queue: one SQLite file in the run root, short transactions, no server.

Clients add jobs and wishes; the one worker starts jobs and writes down their ends. The journal is a
rollback journal: WAL needs shared memory, which network file systems do not have
(Source: sqlite.org/wal.html).
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import time
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mtf import rundir
from mtf.core.vocabulary.ids import JobId, Token
from mtf.core.vocabulary.states import JobState
from mtf.errors import ExecutorUnavailableError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    from mtf.core.vocabulary.jobs import JobRequest

FOLDER = ".local"  # in the run root: queue, starts, the worker's lock and log
STARTS = "starts"  # in it: the files of local_process
_BUSY_S = 20.0  # that a transaction waits for others'
_VERSION = 1
_SCHEMA = """
CREATE TABLE settings (max_parallel INTEGER, grace_s REAL, kill_wait_s REAL, idle_s REAL);
CREATE TABLE submissions (
  token TEXT PRIMARY KEY, script TEXT NOT NULL, environment TEXT NOT NULL,
  throttle INTEGER, limit_s INTEGER, lead_s INTEGER NOT NULL, requeue INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE jobs (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  token TEXT NOT NULL REFERENCES submissions, task INTEGER NOT NULL, run_dir TEXT NOT NULL,
  state TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '', restarts INTEGER NOT NULL DEFAULT 0,
  queued REAL NOT NULL, host TEXT, started REAL, began REAL, warned INTEGER NOT NULL DEFAULT 0,
  wish TEXT, wished_at REAL, ended REAL, exit_code INTEGER, signal INTEGER,
  UNIQUE (token, task)
);
CREATE INDEX by_state ON jobs (state, queued, id);
"""
_JOBS = "SELECT * FROM jobs JOIN submissions USING (token)"


@dataclass(frozen=True)
class Settings:
    """What the worker goes by; the newest client's word counts."""

    max_parallel: int  # jobs at a time
    grace_s: float  # from TERM to KILL at a preemption
    kill_wait_s: float  # from TERM to KILL at a cancellation and at the time limit
    idle_s: float  # without work, until the worker ends


@dataclass(frozen=True)
class QueuedJob:
    """One job with its submission.

    ``queued``, ``started`` and ``ended`` are seconds since the epoch; ``began`` and ``wished_at``
    are of the host's monotonic clock, which nobody sets.
    """

    id: int
    token: Token
    task: int
    run_dir: str
    script: str
    environment: str  # of the job, as JSON
    throttle: int | None  # jobs of this token that may run at a time
    limit_s: int | None
    lead_s: int  # before the limit, at which USR1 is sent
    requeue: bool
    state: JobState
    reason: str
    restarts: int
    queued: float
    host: str | None  # that started it last
    started: float | None
    began: float | None
    warned: bool  # of the time limit
    wish: str | None  # "cancel", "preempt" or "timeout": why the job is being ended
    wished_at: float | None  # when it was told so; None: not yet
    ended: float | None
    exit_code: int | None
    signal: int | None

    @property
    def job_id(self) -> JobId:
        """Return the id that others know the job by."""
        return job_id(self.id)


def job_id(number: int) -> JobId:
    """Return the job id of a row."""
    return JobId(f"local-{number}")


def _numbers(jobs: Collection[JobId]) -> str:
    """Return the rows of those job ids that are ours, as JSON."""
    found = (re.fullmatch(r"local-([0-9]{1,15})", job) for job in jobs)
    return json.dumps([int(match[1]) for match in found if match])


class _Door:
    """Opens the queue's file, and says in words what is wrong with it."""

    def __init__(self, runs_root: Path) -> None:
        self.folder = runs_root.absolute() / FOLDER
        self.path = self.folder / "queue.sqlite"

    @contextmanager
    def telling(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as e:
            raise ExecutorUnavailableError(f"{self.path}: {e}. {_cure(e)}") from e

    def connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(f"{self.path.as_uri()}?mode=rw", uri=True, timeout=_BUSY_S,
                             isolation_level=None)  # fmt: skip
        try:
            self._check_format(db.execute("PRAGMA user_version").fetchone()[0])
        except BaseException:
            db.close()
            raise
        db.row_factory = sqlite3.Row
        return db

    def _check_format(self, version: int) -> None:
        if version != _VERSION:
            raise ExecutorUnavailableError(
                f"{self.path}: a queue of format {version}, this mtf knows {_VERSION}."
                " Use the version of mtf that made it"
            )


def _cure(error: sqlite3.Error) -> str:
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return f"Another process has held it for {_BUSY_S:g} s: try again"
        case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
            return "The file is damaged: end its jobs by hand, then move it away"
        case sqlite3.SQLITE_FULL:
            return "Free some space"
        case _:
            return "Make the run root readable and writable, or set `runs_root:` in mtf.yaml"


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Do a few changes whole or not at all."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


class LocalQueue:
    """The clients' side. Each call opens the file, does one transaction, closes it.

    All but ``make`` raise ExecutorUnavailableError where the file cannot be read or written.
    """

    def __init__(self, runs_root: Path) -> None:
        """Name the queue; nothing is made before the first submission."""
        self._door = _Door(runs_root)
        self.folder = self._door.folder

    def exists(self) -> bool:
        """Return whether anything was ever submitted here."""
        return self._door.path.exists()

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with self._door.telling(), closing(self._door.connect()) as db:
            yield db

    def make(self) -> None:
        """Make the queue unless it is there; it appears whole.

        Raises:
            OSError: the run root cannot be written.
        """
        if not self.exists():
            self._make()
        rundir.remove_temporary_files(
            self._door.path
        )  # of a client that was killed while it made the queue

    def _make(self) -> None:
        lost = (self.folder / STARTS).exists()
        self.folder.mkdir(parents=True, exist_ok=True)
        new = rundir.temporary_path(self._door.path)
        try:
            self._write_empty(new, lost=lost)
            os.link(new, self._door.path)
        except (OSError, ExecutorUnavailableError):
            if not self.exists():  # else another client was faster, and has swept ours away
                raise

    def _write_empty(self, path: Path, *, lost: bool) -> None:
        path.touch()
        with self._door.telling(), closing(sqlite3.connect(path)) as db:
            db.executescript(_SCHEMA)
            if lost:  # its numbers are not used again: the clock is ahead of any count
                db.execute("INSERT INTO sqlite_sequence VALUES ('jobs', ?)", (int(time.time()),))
            db.execute(f"PRAGMA user_version = {_VERSION}")
            db.commit()

    def add(
        self,
        request: JobRequest,
        script: str,
        environment: Mapping[str, str],
        limit_s: int | None,
    ) -> dict[int, JobId]:
        """Queue a request's tasks, all or none; a token that is there is not added again."""
        needs = request.resources
        submission = (
            request.token, script, json.dumps(environment), request.max_parallel, limit_s,
            needs["signal_lead"], needs["requeue"],
        )  # fmt: skip
        now = time.time()
        tasks = [(request.token, t.index, t.run_dir, JobState.PENDING, now) for t in request.tasks]
        with self._open() as db:
            with transaction(db):
                db.execute(
                    "INSERT OR IGNORE INTO submissions (token, script, environment, throttle,"
                    " limit_s, lead_s, requeue) VALUES (?,?,?,?,?,?,?)",
                    submission,
                )
                db.executemany(
                    "INSERT INTO jobs (token, task, run_dir, state, queued) VALUES (?,?,?,?,?)"
                    " ON CONFLICT DO NOTHING",
                    tasks,
                )
            rows = db.execute("SELECT task, id FROM jobs WHERE token = ?", (request.token,))
            return {row["task"]: job_id(row["id"]) for row in rows}

    def by_tokens(self, tokens: Collection[Token]) -> list[QueuedJob]:
        """Return the jobs of these submissions."""
        if not self.exists():
            return []
        query = f"{_JOBS} WHERE token IN (SELECT value FROM json_each(?)) ORDER BY id"
        with self._open() as db:
            return [_job(row) for row in db.execute(query, (json.dumps(list(tokens)),))]

    def has_work(self) -> bool:
        """Return whether any job waits or runs."""
        if not self.exists():
            return False
        query = "SELECT EXISTS (SELECT 1 FROM jobs WHERE state IN (?, ?))"
        with self._open() as db:
            return bool(db.execute(query, (JobState.PENDING, JobState.RUNNING)).fetchone()[0])

    def configure(self, settings: Settings) -> None:
        """Make these the worker's settings."""
        with self._open() as db:
            if _settings(db) != settings:
                with transaction(db):
                    db.execute("DELETE FROM settings")
                    db.execute(
                        "INSERT INTO settings VALUES"
                        " (:max_parallel, :grace_s, :kill_wait_s, :idle_s)",
                        asdict(settings),
                    )

    def cancel(self, jobs: Collection[JobId]) -> None:
        """End waiting jobs, and ask the worker to end running ones; before any other wish."""
        if not self.exists():
            return
        chosen = "id IN (SELECT value FROM json_each(?))"
        with self._open() as db, transaction(db):
            db.execute(
                "UPDATE jobs SET state = ?, ended = ?, reason = 'before it started', wish = NULL"
                f" WHERE state = ? AND {chosen}",
                (JobState.CANCELLED, time.time(), JobState.PENDING, _numbers(jobs)),
            )
            db.execute(
                "UPDATE jobs SET wish = 'cancel', wished_at = NULL"
                f" WHERE state = ? AND wish IS NOT 'cancel' AND {chosen}",
                (JobState.RUNNING, _numbers(jobs)),
            )

    def preempt(self, jobs: Collection[JobId]) -> None:
        """Ask the worker to interrupt running jobs, unless they are being ended already."""
        if not self.exists():
            return
        with self._open() as db, transaction(db):
            db.execute(
                "UPDATE jobs SET wish = 'preempt', wished_at = NULL WHERE state = ?"
                " AND wish IS NULL AND id IN (SELECT value FROM json_each(?))",
                (JobState.RUNNING, _numbers(jobs)),
            )


class WorkerQueue:
    """The worker's side: one connection, kept.

    All calls raise ExecutorUnavailableError where the file cannot be read or written, or is gone.
    """

    def __init__(self, runs_root: Path) -> None:
        self._door = _Door(runs_root)
        with self._door.telling():
            self._db = self._door.connect()
        self._file = self._door.path.stat().st_ino
        self._seen = -1

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def has_news(self) -> bool:
        """Return whether somebody else has changed the queue since the last call."""
        with self._door.telling():
            version: int = self._db.execute("PRAGMA data_version").fetchone()[0]
        news, self._seen = version != self._seen, version
        return news

    def is_gone(self) -> bool:
        """Return whether the file was deleted or replaced: nobody would read what we write."""
        try:
            return self._door.path.stat().st_ino != self._file
        except FileNotFoundError:
            return True

    def settings(self) -> Settings | None:
        """Return what the newest client wants; None when none has said."""
        with self._door.telling():
            return _settings(self._db)

    def running(self) -> list[QueuedJob]:
        """Return the jobs that run, or are to be starting."""
        query = f"{_JOBS} WHERE state = ? ORDER BY id"
        with self._door.telling():
            return [_job(row) for row in self._db.execute(query, (JobState.RUNNING,))]

    def next_waiting(self, full: Collection[Token] = ()) -> QueuedJob | None:
        """Return the job that has waited longest, but none of the submissions ``full``."""
        query = (
            f"{_JOBS} WHERE state = ? AND token NOT IN (SELECT value FROM json_each(?))"
            " ORDER BY queued, id LIMIT 1"
        )
        with self._door.telling():
            row = self._db.execute(query, (JobState.PENDING, json.dumps(list(full)))).fetchone()
        return _job(row) if row else None

    def update(self, job: QueuedJob, **values: object) -> bool:
        """Change a job; False, and no change, when it is no longer what ``job`` says.

        So a wish that came in the meantime is neither lost nor overruled: look again.
        """
        columns = ", ".join(f"{name} = :{name}" for name in values)
        query = (
            f"UPDATE jobs SET {columns} WHERE id = :if_id AND state = :if_state"
            " AND restarts = :if_restarts AND wish IS :if_wish"
        )
        expected = {"id": job.id, "state": job.state, "restarts": job.restarts, "wish": job.wish}
        given = {**values, **{f"if_{name}": value for name, value in expected.items()}}
        with self._door.telling(), transaction(self._db):
            return self._db.execute(query, given).rowcount == 1


def _settings(db: sqlite3.Connection) -> Settings | None:
    row = db.execute("SELECT * FROM settings").fetchone()
    return Settings(**dict(row)) if row else None


def _job(row: sqlite3.Row) -> QueuedJob:
    values: dict[str, Any] = dict(row)
    values["state"] = JobState(values["state"])
    values["requeue"] = bool(values["requeue"])
    values["warned"] = bool(values["warned"])
    return QueuedJob(**values)
