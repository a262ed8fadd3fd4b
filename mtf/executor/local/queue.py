"""The local executor's queue: an SQLite file in the run root, used in short transactions.

Clients add jobs and ask the worker to end them; the worker starts jobs and records how they ended.
SQLite keeps a rollback journal, because WAL needs shared memory, which network file systems do not
have (Source: sqlite.org/wal.html).
"""

from __future__ import annotations

import os
import re
import sqlite3
import time
from contextlib import closing, contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from mtf import rundir
from mtf.core.vocabulary import json_text
from mtf.core.vocabulary.states import JobState
from mtf.errors import ExecutorUnavailableError
from mtf.executor.local.queue_rows import QueuedJob, job_id, job_of, settings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from pathlib import Path

    from mtf.core.vocabulary.ids import JobId, Token
    from mtf.core.vocabulary.jobs import JobRequest
    from mtf.executor.local.queue_rows import DamagedJob, Settings

FOLDER = ".local"  # in the run root: the queue, the starts, the worker's lock and log
STARTS = "starts"  # in it: the files of job_process
_BUSY_S = 20.0  # how long a transaction waits for those of others
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


def _numbers(jobs: Collection[JobId]) -> str:
    """Return the row numbers of local job ids as JSON; other ids are skipped."""
    found = (re.fullmatch(r"local-([0-9]{1,15})", job) for job in jobs)
    return json_text.dumps([int(match[1]) for match in found if match])


class _QueueFile:
    """Opens the queue's file, and turns SQLite's errors into messages."""

    def __init__(self, runs_root: Path) -> None:
        self.folder = runs_root.absolute() / FOLDER
        self.path = self.folder / "queue.sqlite"

    @contextmanager
    def explaining_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as e:
            raise ExecutorUnavailableError(f"{self.path}: {e}. {_fix(e)}") from e

    def connect(self) -> sqlite3.Connection:
        uri = f"{self.path.as_uri()}?mode=rw"
        db = sqlite3.connect(uri, uri=True, timeout=_BUSY_S, isolation_level=None)
        try:
            self._check_format(db.execute("PRAGMA user_version").fetchone()[0])
        except BaseException:
            db.close()
            raise
        db.row_factory = sqlite3.Row
        db.text_factory = lambda raw: raw.decode("utf-8", "backslashreplace")
        return db

    def _check_format(self, version: int) -> None:
        if version != _VERSION:
            raise ExecutorUnavailableError(
                f"{self.path}: the queue has format {version}, this mtf needs format {_VERSION}."
                " Use the version of mtf that made the queue"
            )


def _fix(error: sqlite3.Error) -> str:
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return f"Another process has locked the queue for {_BUSY_S:g} s. Try again"
        case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
            return "The file is damaged. Kill the jobs by hand, then move the file away"
        case sqlite3.SQLITE_FULL:
            return "Free some space"
        case _:
            return "Make the run root readable and writable, or set runs_root in mtf.yaml"


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Make several changes, all of them or none."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


class LocalQueue:
    """The queue as clients use it. Each call opens the file, makes one transaction, closes it.

    All methods but ``make`` raise ExecutorUnavailableError if the file cannot be read or written.
    """

    def __init__(self, runs_root: Path) -> None:
        """Take the run root; the file is created by the first submission."""
        self._file = _QueueFile(runs_root)
        self.folder = self._file.folder

    def exists(self) -> bool:
        """Return True if anything was ever submitted here."""
        return self._file.path.exists()

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with self._file.explaining_errors(), closing(self._file.connect()) as db:
            yield db

    def make(self) -> None:
        """Create the queue if it does not exist; the file appears complete.

        Raises:
            OSError: the run root is not writable.
        """
        if not self.exists():
            self._make()
        # of a client that was killed while it created the queue
        rundir.remove_temporary_files(self._file.path)

    def _make(self) -> None:
        is_lost = (self.folder / STARTS).exists()  # there was a queue
        self.folder.mkdir(parents=True, exist_ok=True)
        new = rundir.temporary_path(self._file.path)
        try:
            self._write_empty(new, is_lost=is_lost)
            os.link(new, self._file.path)
        except (OSError, ExecutorUnavailableError):
            if not self.exists():  # otherwise another client created it and removed this file
                raise

    def _write_empty(self, path: Path, *, is_lost: bool) -> None:
        path.touch()
        with self._file.explaining_errors(), closing(sqlite3.connect(path)) as db:
            db.executescript(_SCHEMA)
            if is_lost:  # do not reuse the lost numbers: the clock is ahead of all of them
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
        """Queue all tasks of a request or none; a token that is queued already adds no jobs."""
        needs = request.resources
        lead_s, requeue = needs["signal_lead"], needs["requeue"]
        submission = (request.token, script, json_text.dumps(environment), request.max_parallel)
        now = time.time()
        tasks = [(request.token, t.index, t.run_dir, JobState.PENDING, now) for t in request.tasks]
        with self._open() as db:
            with transaction(db):
                db.execute(
                    "INSERT OR IGNORE INTO submissions (token, script, environment, throttle,"
                    " limit_s, lead_s, requeue) VALUES (?,?,?,?,?,?,?)",
                    (*submission, limit_s, lead_s, requeue),
                )
                db.executemany(
                    "INSERT INTO jobs (token, task, run_dir, state, queued) VALUES (?,?,?,?,?)"
                    " ON CONFLICT DO NOTHING",
                    tasks,
                )
            rows = db.execute("SELECT task, id FROM jobs WHERE token = ?", (request.token,))
            return {row["task"]: job_id(row["id"]) for row in rows}

    def by_tokens(self, tokens: Collection[Token]) -> list[QueuedJob | DamagedJob]:
        """Return the jobs of these submissions."""
        if not self.exists():
            return []
        query = f"{_JOBS} WHERE token IN (SELECT value FROM json_each(?)) ORDER BY id"
        with self._open() as db:
            rows = db.execute(query, (json_text.dumps(list(tokens)),))
            return [job_of(dict(row)) for row in rows]

    def has_work(self) -> bool:
        """Return True if any job waits or runs."""
        if not self.exists():
            return False
        query = "SELECT EXISTS (SELECT 1 FROM jobs WHERE state IN (?, ?))"
        with self._open() as db:
            return bool(db.execute(query, (JobState.PENDING, JobState.RUNNING)).fetchone()[0])

    def configure(self, settings: Settings) -> None:
        """Set the worker's settings."""
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
        """End waiting jobs, and ask the worker to cancel running ones; replaces other requests."""
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
        """Ask the worker to interrupt running jobs that are not being ended already."""
        if not self.exists():
            return
        with self._open() as db, transaction(db):
            db.execute(
                "UPDATE jobs SET wish = 'preempt', wished_at = NULL WHERE state = ?"
                " AND wish IS NULL AND id IN (SELECT value FROM json_each(?))",
                (JobState.RUNNING, _numbers(jobs)),
            )


class WorkerQueue:
    """The queue as the worker uses it, on one connection.

    All methods raise ExecutorUnavailableError if the file is gone or cannot be read or written.
    """

    def __init__(self, runs_root: Path, note: Callable[[str], None] = lambda _: None) -> None:
        """Take the run root, and a function that takes messages for people."""
        self._file = _QueueFile(runs_root)
        with self._file.explaining_errors():
            self._db = self._file.connect()
        self._inode = self._file.path.stat().st_ino
        self._seen = -1
        self._note = note
        self._damaged: set[int] = set()  # rows that were noted

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    def has_changed(self) -> bool:
        """Return True if another process has changed the queue since the last call."""
        with self._file.explaining_errors():
            version: int = self._db.execute("PRAGMA data_version").fetchone()[0]
        changed, self._seen = version != self._seen, version
        return changed

    def is_gone(self) -> bool:
        """Return True if the file was deleted or replaced, so that nobody reads this one."""
        try:
            return self._file.path.stat().st_ino != self._inode
        except FileNotFoundError:
            return True

    def settings(self) -> Settings | None:
        """Return the settings of the newest client, None if there are none."""
        with self._file.explaining_errors():
            return _settings(self._db)

    def running(self) -> list[QueuedJob]:
        """Return the jobs that run or are being started."""
        query = f"{_JOBS} WHERE state = ? ORDER BY id"
        with self._file.explaining_errors():
            return list(self._sound(self._db.execute(query, (JobState.RUNNING,))))

    def next_waiting(self, full: Collection[Token] = ()) -> QueuedJob | None:
        """Return the job that has waited longest, except jobs of the submissions in ``full``."""
        query = (
            f"{_JOBS} WHERE state = ? AND token NOT IN (SELECT value FROM json_each(?))"
            " ORDER BY queued, id"
        )
        with self._file.explaining_errors():
            rows = self._db.execute(query, (JobState.PENDING, json_text.dumps(list(full))))
            with closing(rows):
                return next(self._sound(rows), None)

    def _sound(self, rows: Iterable[sqlite3.Row]) -> Iterator[QueuedJob]:
        """Yield the jobs whose rows can be read; each other one is noted once, and left alone."""
        for row in rows:
            job = job_of(dict(row))
            if isinstance(job, QueuedJob):
                yield job
            elif job.id not in self._damaged:
                self._damaged.add(job.id)
                self._note(f"{self._file.path}: {job.problem}")

    def update(self, job: QueuedJob, **values: object) -> bool:
        """Change a job if it still is as ``job`` says; return False, without a change, if not.

        A request that came in between is therefore neither lost nor overridden.
        """
        columns = ", ".join(f"{name} = :{name}" for name in values)
        query = (
            f"UPDATE jobs SET {columns} WHERE id = :if_id AND state = :if_state"
            " AND restarts = :if_restarts AND wish IS :if_wish"
        )
        expected = {"id": job.id, "state": job.state, "restarts": job.restarts, "wish": job.wish}
        given = {**values, **{f"if_{name}": value for name, value in expected.items()}}
        with self._file.explaining_errors(), transaction(self._db):
            return self._db.execute(query, given).rowcount == 1


def _settings(db: sqlite3.Connection) -> Settings | None:
    row = db.execute("SELECT * FROM settings").fetchone()
    return settings_of(dict(row)) if row else None
