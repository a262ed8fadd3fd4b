"""One run's record brought up to date with what its job, its journal and the clock say: pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from mtf.core.planner.journal_reader import NOTHING, Progress, with_progress
from mtf.core.planner.reasons import reason_of
from mtf.core.vocabulary.causes import (
    CONTINUE_EXIT_CODE,
    ENDS,
    EXIT_CODES,
    SIGNALS,
    STANDINGS,
    STOPS,
    Cause,
    cause_of_error,
)
from mtf.core.vocabulary.states import JobState, RunState, Sync
from mtf.core.vocabulary.times import iso

if TYPE_CHECKING:
    from mtf.core.vocabulary.jobs import JobView
    from mtf.core.vocabulary.records import Attempt, RunRecord


@dataclass(frozen=True)
class Retry:
    """When an attempt that has ended is followed by another (``retry`` in mtf.yaml)."""

    max_attempts: int = 3  # in a row without progress
    on: frozenset[Cause] = frozenset({Cause.NODE_FAILURE, Cause.PREEMPTED, Cause.TIME_LIMIT})
    backoff_s: float = 60.0

    def wait(self, number: int) -> timedelta:
        """Return how long to wait before the try after ``number`` that came to nothing."""
        seconds = self.backoff_s * 2 ** min(number - 1, 20) if number > 0 else 0.0
        return min(timedelta(seconds=seconds), LONGEST_WAIT)


LONGEST_WAIT = timedelta(hours=1)


def observe(
    record: RunRecord, job: JobView | None, progress: Progress, *, retry: Retry, now: datetime
) -> RunRecord:
    """Return the record as it should stand now.

    ``job`` is what the executor says of the newest attempt's job; None when it has no job yet or
    the executor, which was readable, has forgotten it.
    """
    record = replace(with_progress(record, progress), observed_at=iso(now))
    if record.is_over or record.retry_at is not None or record.job_id is None:
        return record
    progress = _of_newest_attempt(progress, record)
    cause = _cause(record, job, progress, now)
    if cause is None:
        return _alive(record, job, progress)
    return _ended(record, job, progress, cause, retry=retry, now=now)


def _of_newest_attempt(progress: Progress, record: RunRecord) -> Progress:
    """Return the progress without what an earlier attempt's job wrote about its starts and end."""
    if progress == NOTHING or progress.token == record.attempt.token:
        return progress
    return replace(
        progress,
        starts=0,
        started_at=None,
        stopped=None,
        stopped_before=None,
        failed=None,
        refused=None,
        unsaved=None,
    )


def _cause(
    record: RunRecord, job: JobView | None, progress: Progress, now: datetime
) -> Cause | None:
    """Return why the newest attempt has ended, None while it may go on."""
    if progress.finished_at is not None and (job is None or job.state is not JobState.RUNNING):
        return Cause.COMPLETED
    if job is None:
        return _cause_of_forgotten(record, progress, now)
    match job.state:
        case JobState.CANCELLED if record.cancel_requested:
            return Cause(record.attempt.outcome or Cause.CANCELLED)
        case JobState.CANCELLED if _is_soon_told_by_whom(job, now):
            return None
        case JobState.FAILED:
            return _cause_of_failure(job, progress)
        case JobState.COMPLETED:
            return Cause.CONFIGURATION if progress.refused else Cause.CODE_ERROR
        case _:
            return STANDINGS[job.state].cause


def _is_soon_told_by_whom(job: JobView, now: datetime) -> bool:
    """Return whether the accounts may still say who has cancelled a job: they are seconds late."""
    fresh = job.ended_at is not None and now - job.ended_at < ACCOUNTS_ARE_LATE
    return fresh and job.cancelled_by is None


def _cause_of_failure(job: JobView, progress: Progress) -> Cause:
    """Return why a job ended badly by itself: its own word counts most."""
    if job.exit_code == CONTINUE_EXIT_CODE:
        return Cause.TIME_LIMIT
    if progress.refused:
        return Cause.CONFIGURATION
    if progress.failed:
        return cause_of_error(progress.failed)
    if asked := STOPS.get(progress.stopped or ""):
        return asked
    by_code = EXIT_CODES.get(job.exit_code or 0, Cause.CODE_ERROR)
    return SIGNALS.get(job.signal or 0, by_code)


def _cause_of_forgotten(record: RunRecord, progress: Progress, now: datetime) -> Cause | None:
    """Return LOST for a job that has given no sign of life for long, else None.

    squeue knows a job within milliseconds and keeps it for minutes after its end; sacct is seconds
    late. Only what both have forgotten for ``FORGOTTEN_AFTER`` is given up.
    """
    if progress.failed:
        return cause_of_error(progress.failed)
    if record.cancel_requested:  # SLURM keeps no word of a task that is cancelled before it starts
        return Cause(record.attempt.outcome or Cause.CANCELLED)
    signs = [record.attempt.submitted_at, progress.last_at]
    newest = max(datetime.fromisoformat(s) for s in signs if s)
    return Cause.LOST if now - newest > FORGOTTEN_AFTER else None


FORGOTTEN_AFTER = timedelta(minutes=10)
ACCOUNTS_ARE_LATE = timedelta(seconds=15)


def _alive(record: RunRecord, job: JobView | None, progress: Progress) -> RunRecord:
    if job is None or STANDINGS[job.state].run is None:
        return record
    attempt = replace(
        record.attempt,
        started_at=record.attempt.started_at or (iso(job.started_at) if job.started_at else None),
        node=job.node or record.attempt.node,
    )
    state, reason = _standing(job, progress)
    if record.cancel_requested:
        reason = record.reason  # until it has ended
    return replace(record.with_attempt(attempt), state=state, reason=reason)


def _standing(job: JobView, progress: Progress) -> tuple[RunState, str]:
    """Return the state of a run whose job goes on, and why."""
    standing = STANDINGS[job.state]
    assert standing.run is not None
    if job.state is JobState.SUSPENDED:
        return standing.run, f"suspended: {standing.action}"
    if job.state is JobState.RUNNING:
        unsaved = progress.unsaved
        return standing.run, f"checkpoint not saved: {unsaved}" if unsaved else ""
    waits = job.reason if job.reason not in ("", "None") else "queued"
    if job.state is JobState.HELD:
        waits = f"held ({waits}): {standing.action}"
    if job.restarts or progress.starts:
        return RunState.PREEMPTED, f"requeued: {waits}"
    return standing.run, waits


def doomed(
    record: RunRecord, job: JobView | None, progress: Progress, retry: Retry
) -> RunRecord | None:
    """Return the record of a live job that is to be ended because its lives come to nothing.

    SLURM requeues a job for ever: after preemptions, failed nodes, and our own time limits. A life
    is fruitless when no checkpoint went further in it; one that still runs is not judged.
    """
    if job is None or record.cancel_requested or STANDINGS[job.state].run is None:
        return None
    if not job.restarts:
        return None
    progress = _of_newest_attempt(progress, record)
    running = job.state in (JobState.RUNNING, JobState.SUSPENDED)
    lives = progress.idle_starts - running if progress.starts else job.restarts
    if lives < retry.max_attempts:
        return None
    last = progress.stopped or progress.stopped_before
    cause = Cause.TIME_LIMIT if last == "SIGUSR1" else Cause.PREEMPTED
    reason = f"{cause}: gave up after {lives} requeues in a row without progress"
    attempt = replace(record.attempt, outcome=cause, reason=reason)
    return replace(record.with_attempt(attempt), reason=reason)


def _ended(
    record: RunRecord,
    job: JobView | None,
    progress: Progress,
    cause: Cause,
    *,
    retry: Retry,
    now: datetime,
) -> RunRecord:
    ended_at = iso(job.ended_at) if job and job.ended_at else progress.finished_at or iso(now)
    doom = record.attempt.reason if record.attempt.outcome == cause else None
    reason = doom or reason_of(cause, record, job, progress)
    attempt = replace(
        record.attempt,
        started_at=record.attempt.started_at or progress.started_at,
        ended_at=ended_at,
        outcome=cause,
        reason=reason,
        node=(job and job.node) or record.attempt.node,
        exit_code=job.exit_code if job else None,
        end_step=record.checkpoint.step if record.checkpoint else 0,
    )
    record = record.with_attempt(attempt)
    if cause in retry.on and not record.cancel_requested:
        fruitless = _fruitless(record.attempts)
        if fruitless < retry.max_attempts:
            state = RunState.PREEMPTED if cause is Cause.PREEMPTED else RunState.PENDING
            at = iso(now + retry.wait(fruitless))
            return replace(record, state=state, reason=f"{reason}; to be continued", retry_at=at)
        reason = f"{reason}; gave up after {fruitless} attempts in a row without progress"
    outside = cause is Cause.CANCELLED and not record.cancel_requested
    return replace(
        record,
        state=ENDS[cause].state,
        reason=reason,
        finished_at=ended_at,
        sync=Sync.OUT_OF_SYNC if outside else record.sync,
    )


def _fruitless(attempts: tuple[Attempt, ...]) -> int:
    """Return how many of the newest attempts in a row have not moved the checkpoint on.

    Those before one that a person has asked for do not count any more.
    """
    count = 0
    for attempt in reversed(attempts):
        if (attempt.end_step or 0) > attempt.start_step:
            break
        count += 1
        if attempt.asked:
            break
    return count
