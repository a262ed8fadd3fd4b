"""Derives what a run is now, from its record, its job and its journal, as people see it. Pure.

The planner and ``mtf status`` bring records up to date by the same function (``as_seen``), so that
they never disagree. Here is what else a viewer sees: why a job waits, and how old the state is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mtf.core.planner.journal_reader import NOTHING, Progress, with_progress
from mtf.core.planner.run_update import Retry, as_seen, ended_by_journal
from mtf.core.vocabulary.causes import STANDINGS
from mtf.core.vocabulary.ids import JobId, name_of
from mtf.core.vocabulary.states import JobState, RunState
from mtf.core.vocabulary.times import iso, parse_time

if TYPE_CHECKING:
    from datetime import datetime

    from mtf.core.vocabulary.jobs import JobView
    from mtf.core.vocabulary.records import RunRecord


@dataclass(frozen=True)
class Sight:
    """What is seen of one run, besides its record."""

    asked_at: datetime | None = None  # when its executor answered; None: it was not asked
    job: JobView | None = None  # the executor's view; None: it knows no job of the newest attempt
    progress: Progress = NOTHING
    holder: JobId | None = None  # the job that executes the run, if it is not the recorded one


@dataclass(frozen=True)
class Row:
    """A run as it is now, or as it was when it was last seen."""

    record: RunRecord  # state, reason, sync and progress agree with each other
    as_of: str  # when it was so (ISO 8601, UTC)
    live: bool  # False: nobody could be asked, and it may have changed since


def recorded_row(record: RunRecord) -> Row:
    """Return a run as the ledger has it."""
    return Row(record, record.observed_at or record.claimed_at, live=False)


def row_of(record: RunRecord, sight: Sight, retry: Retry, now: datetime) -> Row:
    """Return a run as it is now; without its executor's answer, as its journal tells it."""
    if record.is_over:
        recorded = recorded_row(record)
        return recorded if sight.asked_at is None else Row(record, iso(sight.asked_at), live=True)
    job = sight.job
    if sight.asked_at is None or (job is not None and job.state is JobState.UNKNOWN):
        return _from_journal(record, sight.progress, job)
    if sight.holder is not None:
        record = record.with_attempt(replace(record.attempt, job_id=sight.holder))
        return _from_journal(record, sight.progress, None)
    if job is not None:
        record = with_found_job(record, job)
        if job.state is JobState.CANCELLED and job.cancelled_by is None:
            job = replace(job, cancelled_by="")  # its name may come later: do not wait for it
    new = as_seen(record, job, sight.progress, retry=retry, now=now)
    if new.job_id is None and not new.is_over and not new.reason:
        new = replace(new, reason=_claim_text(new, now))
    if (job is None or job.state is JobState.ABSENT) and _is_missing(new):
        return _from_journal(record, sight.progress, None)
    if job is not None and _waits(new, job) and not new.cancel_requested:
        text = waiting_text(new, job, now)
        new = new.in_state(new.state, text) if text != new.reason else new
    return Row(new, iso(sight.asked_at), live=True)


def _is_missing(record: RunRecord) -> bool:
    """Return True if a run should have a job, which its executor does not know."""
    return not record.is_over and record.job_id is not None and record.retry_at is None


def with_found_job(record: RunRecord, job: JobView) -> RunRecord:
    """Return the record of a claim with the job that was found by its token."""
    attempt = record.attempt
    if attempt.job_id is not None or record.retry_at is not None or not job.job_id:
        return record
    attempt = replace(attempt, job_id=job.job_id, submitted_at=attempt.claimed_at)
    return record.with_attempt(attempt)


def _from_journal(record: RunRecord, progress: Progress, job: JobView | None) -> Row:
    """Return a run as its record and its journal tell it; the newer of the two dates it."""
    written = record.observed_at or record.claimed_at
    as_of = max(written, progress.last_at or written, key=parse_time)
    if record.retry_at is None and (ended := ended_by_journal(record, progress)):
        return Row(ended, as_of, live=False)
    new = with_progress(record, progress)
    if progress.token == record.attempt.token and progress.attempt_starts:
        state = RunState.PREEMPTED if progress.stopped else RunState.RUNNING
        reason = f"stopped at {progress.stopped}" if progress.stopped else ""
        reason = new.reason if new.cancel_requested else reason
        new = replace(new, state=state, reason=reason)
    if job is not None and job.reason:
        new = replace(new, reason=job.reason)
    return Row(new, as_of, live=False)


def _claim_text(record: RunRecord, now: datetime) -> str:
    attempt = record.attempt
    if attempt.reason:
        return f"submission outcome unknown: {attempt.reason}"
    if parse_time(attempt.lease_until) <= now:
        return "claimed, never submitted: the next mtf sync submits it"
    return f"being submitted by {attempt.claimed_by}"


def _waits(record: RunRecord, job: JobView) -> bool:
    return (
        record.state in (RunState.PENDING, RunState.PREEMPTED)
        and record.retry_at is None
        and STANDINGS[job.state].run is RunState.PENDING
    )


def waiting_text(record: RunRecord, job: JobView, now: datetime) -> str:
    """Return the reason of a run whose job waits, with what will change by itself."""
    waits = f"{job.reason or 'queued'}{f': {job.cure}' if job.cure else ''}"
    if job.expected_at is not None and job.expected_at > now and not job.cure:
        day = "" if job.expected_at.date() == now.date() else f"{job.expected_at:%Y-%m-%d} "
        waits = f"{waits}, expected {day}{job.expected_at:%H:%M} UTC"
    return f"requeued: {waits}" if record.state is RunState.PREEMPTED else waits


def blocked_note(record: RunRecord, job: JobView | None) -> str | None:
    """Return a note about a job that waits for a person, in the same words for a whole array."""
    if job is None or not job.cure or not _waits(record, job):
        return None
    cure = job.cure.replace(job.job_id, job.job_id.partition("_")[0])
    return f"{name_of(record.run)}: {job.reason}: {cure}"
