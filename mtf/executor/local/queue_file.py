"""The file of the local queue: its tables and formats, and SQLite's errors in plain words.

SQLite keeps a rollback journal, because WAL needs shared memory, which network file systems do not
have (Source: sqlite.org/wal.html).
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from mtf.errors import ExecutorUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FOLDER = ".local"  # in the run root: the queue, the starts, the worker's lock and log
_BUSY_S = 20.0  # how long a transaction waits for those of others
_VERSION = 2
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
# what format 2 adds to format 1
_UPGRADE = (
    "ALTER TABLE settings ADD COLUMN gpus TEXT",
    "ALTER TABLE settings ADD COLUMN cpus INTEGER",
    "ALTER TABLE settings ADD COLUMN memory_mb INTEGER",
    "ALTER TABLE submissions ADD COLUMN warning TEXT NOT NULL DEFAULT 'USR1'",
    "ALTER TABLE submissions ADD COLUMN gpus INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE submissions ADD COLUMN cpus INTEGER NOT NULL DEFAULT 1",
    "ALTER TABLE submissions ADD COLUMN memory_mb INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE jobs ADD COLUMN devices TEXT NOT NULL DEFAULT ''",
    "CREATE TABLE machine (host TEXT, gpus TEXT, cpus INTEGER, memory_mb INTEGER)",
    f"PRAGMA user_version = {_VERSION}",
)


class QueueFile:
    """Opens the queue's file, and turns SQLite's errors into messages."""

    def __init__(self, runs_root: Path) -> None:
        """Take the run root."""
        self.folder = runs_root.absolute() / FOLDER
        self.path = self.folder / "queue.sqlite"

    @contextmanager
    def explaining_errors(self) -> Iterator[None]:
        """Turn an error of SQLite into a message with a cure."""
        try:
            yield
        except sqlite3.Error as e:
            raise ExecutorUnavailableError(f"{self.path}: {e}. {_fix(e)}") from e

    def connect(self) -> sqlite3.Connection:
        """Open the file, and bring it to the newest format."""
        uri = f"{self.path.as_uri()}?mode=rw"
        db = sqlite3.connect(uri, uri=True, timeout=_BUSY_S, isolation_level=None)
        try:
            if _format(db) == 1:
                with transaction(db):
                    if _format(db) == 1:  # no other client was faster
                        for statement in _UPGRADE:
                            db.execute(statement)
            self._check_format(_format(db))
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

    def write_empty(self, path: Path, *, is_lost: bool) -> None:
        """Write a queue without jobs; ``is_lost``: another one was here before."""
        path.touch()
        with self.explaining_errors(), closing(sqlite3.connect(path)) as db:
            db.executescript(_SCHEMA)
            for statement in _UPGRADE:
                db.execute(statement)
            if is_lost:  # do not reuse the lost numbers: the clock is ahead of all of them
                db.execute("INSERT INTO sqlite_sequence VALUES ('jobs', ?)", (int(time.time()),))
            db.commit()


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


def _format(db: sqlite3.Connection) -> int:
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    return version
