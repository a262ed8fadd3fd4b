"""The local executor's queue: an SQLite file in the run root, used in short transactions.

Clients add jobs and ask the worker to end them; the worker starts jobs and records how they ended.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import closing, contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from mtf import rundir
from mtf.core.sbatch.section_options import signal_of
from mtf.core.vocabulary import json_text
from mtf.core.vocabulary.states import JobState
from mtf.errors import ExecutorUnavailableError
from mtf.executor.local.queue_file import QueueFile, transaction
from mtf.executor.local.queue_rows import QueuedJob, job_id, job_of, settings_of
from mtf.executor.local.shares import Needs
from mtf.executor.local.waiting import Occupation, machine_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from pathlib import Path

    from mtf.core.vocabulary.ids import JobId, Token
    from mtf.core.vocabulary.jobs import JobRequest
    from mtf.executor.local.queue_rows import DamagedJob, Settings
    from mtf.executor.local.shares import Machine

STARTS = "starts"  # in it: the files of job_process
_JOBS = "SELECT * FROM jobs JOIN submissions USING (token)"
_LEAST = Needs()


def _numbers(jobs: Collection[JobId]) -> str:
    """Return the row numbers of local job ids as JSON; other ids are skipped."""
    found = (re.fullmatch(r"local-([0-9]{1,15})", job) for job in jobs)
    return json_text.dumps([int(match[1]) for match in found if match])


class LocalQueue:
    """The queue as clients use it. Each call opens the file, makes one transaction, closes it.

    All methods but ``make`` raise ExecutorUnavailableError if the file cannot be read or written.
    """

    def __init__(self, runs_root: Path) -> None:
        """Take the run root; the file is created by the first submission."""
        self._file = QueueFile(runs_root)
        self.folder = self._file.folder

    def exists(self) -> bool:
        """Return True if anything was ever submitted here."""
        try:
            return self._file.path.exists()
        except PermissionError as e:
            owner = rundir.owner_of(self.folder)
            raise ExecutorUnavailableError(
                f"{self.folder}: {owner} keeps the local queue private. See mtf doctor, or set"
                " another `runs_root:` in mtf.yaml"
            ) from e

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with self._file.explaining_errors(), closing(self._file.connect()) as db:
            yield db

    def other_owner(self) -> str | None:
        """Return the user whose queue this is, if it is another one's: jobs run as that user."""
        if not self.exists() or self._file.path.stat().st_uid == os.getuid():
            return None
        return rundir.owner_of(self._file.path)

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
            self._file.write_empty(new, is_lost=is_lost)
            os.link(new, self._file.path)
        except (OSError, ExecutorUnavailableError):
            if not self.exists():  # otherwise another client created it and removed this file
                raise

    def add(
        self,
        request: JobRequest,
        script: str,
        environment: Mapping[str, str],
        limit_s: int | None,
        needs: Needs = _LEAST,
    ) -> dict[int, JobId]:
        """Queue all tasks of a request or none; a token that is queued already adds no jobs."""
        given = request.resources
        submission = {
            "token": request.token,
            "script": script,
            "environment": json_text.dumps(environment),
            "throttle": request.max_parallel,
            "limit_s": limit_s,
            "lead_s": given["signal_lead"],
            "requeue": bool(given["requeue"]),
            "warning": signal_of(given),
            **asdict(needs),
        }
        now = time.time()
        tasks = [(request.token, t.index, t.run_dir, JobState.PENDING, now) for t in request.tasks]
        with self._open() as db:
            with transaction(db):
                db.execute(
                    f"INSERT OR IGNORE INTO submissions ({', '.join(submission)})"
                    f" VALUES (:{', :'.join(submission)})",
                    submission,
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
            return [_job(row) for row in rows]

    def throttles(self, tokens: Collection[str]) -> dict[str, int | None]:
        """Return the number of jobs of its grid that may run at a time, for each submission."""
        if not self.exists():
            return {}
        query = (
            "SELECT token, throttle FROM submissions WHERE token IN"
            " (SELECT value FROM json_each(?))"
        )
        with self._open() as db:
            rows = db.execute(query, (json_text.dumps(list(tokens)),))
            return {token: n if isinstance(n, int) else None for token, n in rows}

    def set_throttles(self, throttles: Mapping[str, int | None]) -> None:
        """Set the number of jobs of its grid that may run at a time, by submission."""
        if not self.exists():
            return
        with self._open() as db, transaction(db):
            db.executemany(
                "UPDATE submissions SET throttle = ? WHERE token = ?",
                [(most, token) for token, most in throttles.items()],
            )

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
                        "INSERT INTO settings"
                        " (max_parallel, grace_s, kill_wait_s, idle_s, gpus, cpus, memory_mb)"
                        " VALUES (:max_parallel, :grace_s, :kill_wait_s, :idle_s, :gpus, :cpus,"
                        " :memory_mb)",
                        asdict(settings),
                    )

    def occupation(self) -> Occupation | None:
        """Return the jobs on the worker's machine, None if no worker has recorded its machine."""
        with self._open() as db:
            row = db.execute("SELECT * FROM machine").fetchone()
            machine, settings = machine_of(dict(row)) if row else None, _settings(db)
            if machine is None or settings is None:
                return None
            found = db.execute(
                f"{_JOBS} WHERE state = ? AND host = ?", (JobState.RUNNING, row["host"])
            )
            running = [job for job in map(_job, found) if isinstance(job, QueuedJob)]
            query = f"{_JOBS} WHERE state = ? ORDER BY queued, id LIMIT 1"
            first = db.execute(query, (JobState.PENDING,)).fetchone()
        job = _job(first) if first else None
        first_job = job if isinstance(job, QueuedJob) else None
        return Occupation(machine, settings.max_parallel, running, first_job)

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
        self._file = QueueFile(runs_root)
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

    def set_machine(self, host: str, machine: Machine) -> None:
        """Record the worker's machine, for clients."""
        row = (host, ",".join(machine.gpus), machine.cpus, machine.memory_mb)
        with self._file.explaining_errors(), transaction(self._db):
            self._db.execute("DELETE FROM machine")
            self._db.execute("INSERT INTO machine VALUES (?,?,?,?)", row)

    def running(self) -> list[QueuedJob]:
        """Return the jobs that run or are being started."""
        query = f"{_JOBS} WHERE state = ? ORDER BY id"
        with self._file.explaining_errors():
            return list(self._sound(self._db.execute(query, (JobState.RUNNING,))))

    def next_waiting(
        self, full: Collection[Token] = (), unmet: Collection[Needs] = ()
    ) -> QueuedJob | None:
        """Return the job that has waited longest.

        Jobs of the submissions in ``full`` are left out, and those with ``unmet`` needs.
        """
        query = (
            f"{_JOBS} WHERE state = ? AND token NOT IN (SELECT value FROM json_each(?))"
            " AND gpus || ' ' || cpus || ' ' || memory_mb NOT IN (SELECT value FROM json_each(?))"
            " ORDER BY queued, id"
        )
        left_out = [f"{n.gpus} {n.cpus} {n.memory_mb}" for n in unmet]
        given = (JobState.PENDING, json_text.dumps(list(full)), json_text.dumps(left_out))
        with self._file.explaining_errors():
            rows = self._db.execute(query, given)
            with closing(rows):
                return next(self._sound(rows), None)

    def _sound(self, rows: Iterable[sqlite3.Row]) -> Iterator[QueuedJob]:
        """Yield the jobs whose rows can be read; each other one is noted once, and left alone."""
        for row in rows:
            job = _job(row)
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


def _job(row: sqlite3.Row) -> QueuedJob | DamagedJob:
    return job_of(dict(row))


def _settings(db: sqlite3.Connection) -> Settings | None:
    row = db.execute("SELECT * FROM settings").fetchone()
    return settings_of(dict(row)) if row else None
