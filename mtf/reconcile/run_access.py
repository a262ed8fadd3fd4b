"""Reads what this host can see of a run: its folder, its journal, its claims and its submitter."""

from __future__ import annotations

import os
import re
import socket
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from mtf import rundir
from mtf.core.planner.journal_reader import NOTHING, fold
from mtf.core.planner.rows.run_rows import Sight, row_of
from mtf.core.planner.run_update import Retry
from mtf.core.vocabulary.causes import STANDINGS
from mtf.core.vocabulary.ids import JobId
from mtf.report.tables import count

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mtf.core.planner.journal_reader import Progress
    from mtf.core.vocabulary.ids import RunId, Token
    from mtf.core.vocabulary.records import Attempt, RunRecord
    from mtf.executor.protocol import Live


def read_progress(record: RunRecord) -> Progress:
    """Return the progress in a run's journal; nothing if another user keeps the folder private."""
    try:
        events = rundir.read_journal(record.run_dir)
    except PermissionError:
        return NOTHING
    return fold(events, record.run_dir) if events else NOTHING


def job_dir_of(record: RunRecord, attempt: Attempt) -> Path:
    """Return the folder of the job request that an attempt of a run is part of."""
    return Path(_job_path(record, attempt))


def _job_path(record: RunRecord, attempt: Attempt) -> str:
    return f"{root_path(record)}/{record.submission}/{rundir.JOBS}/{attempt.token}"


def root_path(record: RunRecord) -> str:
    """Return the run root that a run's folder is in, which has the run's id below it."""
    return record.run_dir.removesuffix(f"/{record.run}")


def needed_folder(record: RunRecord) -> str | None:
    """Return the folder that a run depends on: its own, or its job's before it has started.

    It is text: of thousands of runs, paths would take a fifth of a status's time.
    """
    if record.has_begun:
        return record.run_dir
    return _job_path(record, record.attempt) if record.job_id else None


def is_elsewhere(runs_root: Path, record: RunRecord) -> bool:
    """Return True if a run's folder, or the local queue of its job, cannot be reached from here.

    Another clone reconciles the runs of its local executor, and another host the runs under a run
    root that only that host can see. A folder in which mtf has made no checkout is no run root,
    whatever a record says, and a record edited by hand may also name an impossible folder.
    """
    root = record.run_dir.removesuffix(f"/{record.run}")
    if root == record.run_dir or not root.startswith("/"):
        return True
    if f"{root}/".startswith(f"{runs_root}/"):
        return False
    if record.executor == "local":
        return True
    try:
        return not Path(root, rundir.CODE).is_dir()
    except PermissionError:
        return True


def private_folder(record: RunRecord) -> str | None:
    """Return the reason why this user cannot look into the folder of a run, None if he can."""
    folder = record.run_dir
    if os.access(folder, os.R_OK | os.X_OK):
        return None
    try:
        os.stat(folder)  # noqa: PTH116 -- as above
    except PermissionError:
        pass
    except OSError:  # it does not exist yet
        return None
    owner = rundir.owner_of(Path(folder))
    return f"{owner} keeps the folders of runs private, which are left alone: see mtf doctor"


def owner_if_read_only(record: RunRecord) -> str | None:
    """Return the owner of a run's folder if this user can look into it, but not write there."""
    folder = record.run_dir
    if os.access(folder, os.W_OK) or not os.access(folder, os.R_OK):
        return None
    return rundir.owner_of(Path(folder))


def shut_out(records: Iterable[RunRecord], live: Live) -> dict[RunId, JobId | None]:
    """Return the runs whose newest job was fenced out, each with the job that executes it.

    The job is None if nothing executes the run: a sync gave the claim up and died before it could
    record that, and the job was submitted later than that sync expected; or a sync has withdrawn
    the waiting job and died. Only jobs that are over, or that the executor has forgotten, count.
    """
    found: dict[RunId, JobId | None] = {}
    for record in records:
        attempt = record.attempt
        views = live.get(record.executor)
        if record.job_id is None or views is None:
            continue
        job = views.get((attempt.token, attempt.index))
        if job is not None and STANDINGS[job.state].cause is None:
            continue
        holder = rundir.claim_holder(Path(record.run_dir), attempt.token)
        if holder is not None and holder != record.job_id:
            found[record.run] = None if holder == rundir.FENCED else JobId(holder)
    return found


def job_owner(record: RunRecord) -> str | None:
    """Return the user who has submitted a run's newest attempt if that is not this one."""
    user = record.attempt.claimed_by.partition("@")[0]
    return user if user and user != submitter().partition("@")[0] else None


def submitter() -> str:
    """Return the name of this process as a submitter: ``user@host:pid``."""
    user = os.environ.get("USER") or str(os.getuid())
    return f"{user}@{socket.gethostname()}:{os.getpid()}"


_PID = re.compile("[0-9]{1,9}")


def abandoned(records: Iterable[RunRecord]) -> frozenset[Token]:
    """Return the claims of processes on this host that have ended."""
    host = socket.gethostname()
    gone = set()
    for record in records:
        where, _, pid = record.attempt.claimed_by.rpartition(":")
        if where.endswith(f"@{host}") and _PID.fullmatch(pid) and not _may_submit(int(pid)):
            gone.add(record.attempt.token)
    return frozenset(gone)


def _may_submit(pid: int) -> bool:
    if pid == os.getpid():
        return False  # the claim is from an earlier sync of this process
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Return True if a process has ended but was not reaped, as happens in containers."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:  # not on Linux, or the process is gone by now: the next sync will see that
        return False
    return stat.rpartition(") ")[2].startswith("Z")


def with_journals(records: Iterable[RunRecord]) -> list[RunRecord]:
    """Return the records as the journals of active runs tell them; no executor is asked."""
    now = datetime.now(UTC)
    return [
        r
        if r.is_over or private_folder(r)
        else row_of(r, Sight(progress=read_progress(r)), Retry(), now).record
        for r in records
    ]


def private_notes(records: Iterable[RunRecord]) -> list[str]:
    """Return a note for each user who keeps folders of active runs private."""
    counts = Counter(why for r in records if not r.is_over and (why := private_folder(r)))
    return [f"{why} ({count(n, 'run')}, shown as recorded)" for why, n in counts.items()]
