"""Brings one run's record up to date with its job, its journal and the clock. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from mtf.core.planner.journal_reader import NOTHING, Progress, with_progress
from mtf.core.planner.reasons import reason_of
from mtf.core.usage.used import together
from mtf.core.vocabulary.causes import (
    CONTINUE_EXIT_CODE,
    ENDS,
    EXIT_CODES,
    SIGNALS,
    STANDINGS,
    STOPS,
    STORAGE_EXIT_CODE,
    Cause,
    cause_of_error,
)
from mtf.core.vocabulary.states import JobState, RunState, Sync
from mtf.core.vocabulary.times import iso, parse_time

if TYPE_CHECKING:
    from mtf.core.vocabulary.jobs import JobView
    from mtf.core.vocabulary.records import Attempt, RunRecord


@dataclass(frozen=True)
class Retry:
    """When another attempt follows one that has ended (``retry`` in mtf.yaml)."""

    max_attempts: int = 3  # in a row without progress
    on: frozenset[Cause] = frozenset({Cause.NODE_FAILURE, Cause.PREEMPTED, Cause.TIME_LIMIT})
    backoff_s: float = 60.0

    def wait(self, number: int) -> timedelta:
        """Return the wait after ``number`` tries in a row without progress."""
        seconds = self.backoff_s * 2 ** min(number - 1, 20) if number > 0 else 0.0
        return min(timedelta(seconds=seconds), LONGEST_WAIT)


LONGEST_WAIT = timedelta(hours=1)


def observe(
    record: RunRecord, job: JobView | None, progress: Progress, *, retry: Retry, now: datetime
) -> RunRecord:
    """Return the record, updated from its job and its journal.

    ``job`` is the executor's view of the newest attempt's job; None if the attempt has no job yet,
    or the executor could be read and no longer knows the job.
    """
    new = as_seen(record, job, progress, retry=retry, now=now)
    return replace(new, observed_at=iso(now))


def as_seen(
    record: RunRecord, job: JobView | None, progress: Progress, *, retry: Retry, now: datetime
) -> RunRecord:
    """Return the record as ``observe`` does, for people who look: it is not going to be written."""
    record = with_progress(record, progress)
    if record.is_over or record.retry_at is not None or record.job_id is None:
        return record
    progress = _of_newest_attempt(progress, record)
    cause = _cause(record, job, progress, now)
    if cause is None:
        return _alive(record, job, progress)
    return _ended(record, job, progress, cause, retry=retry, now=now)


def _of_newest_attempt(progress: Progress, record: RunRecord) -> Progress:
    """Return the progress without what an earlier attempt's job wrote about its starts and end."""
    if progress is NOTHING or progress.token == record.attempt.token:
        return progress
    return replace(
        progress,
        starts=0,
        attempt_starts=0,
        started_at=None,
        stopped=None,
        stopped_before=None,
        failed=None,
        refused=None,
        unsaved=None,
        used={},
    )


def _cause(
    record: RunRecord, job: JobView | None, progress: Progress, now: datetime
) -> Cause | None:
    """Return the cause of the newest attempt's end, None while it may go on."""
    if progress.finished_at is not None and (job is None or job.state is not JobState.RUNNING):
        return Cause.COMPLETED
    if job is None:
        return _cause_of_forgotten(record, progress, now)
    match job.state:
        case JobState.CANCELLED if record.cancel_requested:
            return Cause(record.attempt.outcome or Cause.CANCELLED)
        case JobState.CANCELLED if _may_learn_who_cancelled(job, now):
            return None
        case JobState.ABSENT if progress.attempt_starts:
            return _cause_of_forgotten(record, progress, now)
        case _:
            return _cause_of_end(job, progress)


def _cause_of_end(job: JobView, progress: Progress) -> Cause | None:
    """Return the cause that a job's own state and its journal tell, None while it goes on."""
    match job.state:
        case JobState.FAILED:
            return _cause_of_failure(job, progress)
        case JobState.COMPLETED:
            return Cause.CONFIGURATION if progress.refused else Cause.CODE_ERROR
        case _:
            return STANDINGS[job.state].cause


def _may_learn_who_cancelled(job: JobView, now: datetime) -> bool:
    """Return True if the accounting, which is seconds late, may still name who cancelled a job."""
    fresh = job.ended_at is not None and now - job.ended_at < ACCOUNTS_ARE_LATE
    return fresh and job.cancelled_by is None


def _cause_of_failure(job: JobView, progress: Progress) -> Cause:
    """Return the cause of a job's own failure: the journal's, else that of its exit code."""
    if job.exit_code == CONTINUE_EXIT_CODE:
        return Cause.TIME_LIMIT
    if job.exit_code == STORAGE_EXIT_CODE:
        return Cause.STORAGE
    if progress.refused:
        return Cause.CONFIGURATION
    if progress.failed:
        return cause_of_error(progress.failed)
    if by_stop := STOPS.get(progress.stopped or ""):
        return by_stop
    by_code = EXIT_CODES.get(job.exit_code or 0, Cause.CODE_ERROR)
    return SIGNALS.get(job.signal or 0, by_code)


def _cause_of_forgotten(record: RunRecord, progress: Progress, now: datetime) -> Cause | None:
    """Return LOST for a job without a sign of life for ``FORGOTTEN_AFTER``, else None.

    squeue knows a job within milliseconds and keeps it for minutes after its end; sacct is seconds
    late. A job is given up only if both have not known it for that long.
    """
    if progress.failed:
        return cause_of_error(progress.failed)
    if record.cancel_requested:  # SLURM forgets a task that is cancelled before it starts
        return Cause(record.attempt.outcome or Cause.CANCELLED)
    signs = [record.attempt.submitted_at or record.attempt.claimed_at, progress.last_at]
    newest = max(datetime.fromisoformat(s) for s in signs if s)
    return Cause.LOST if now - newest > FORGOTTEN_AFTER else None


FORGOTTEN_AFTER = timedelta(minutes=10)
ACCOUNTS_ARE_LATE = timedelta(seconds=15)


def _alive(record: RunRecord, job: JobView | None, progress: Progress) -> RunRecord:
    if job is None or STANDINGS[job.state].run is None:
        return record
    last = record.attempt
    started_at = last.started_at or (iso(job.started_at) if job.started_at else None)
    node = job.node or last.node
    if (started_at, node) != (last.started_at, last.node):
        record = record.with_attempt(replace(last, started_at=started_at, node=node))
    state, reason = _standing(job, progress)
    if record.cancel_requested:
        reason = record.reason  # kept until the run has ended
    if (state, reason) == (record.state, record.reason):
        return record
    return record.in_state(state, reason)


def _standing(job: JobView, progress: Progress) -> tuple[RunState, str]:
    """Return the state and the reason of a run whose job goes on.

    Why a job waits changes all the time: the reason has it if a person must do something. The
    journal knows a start that is newer than the executor's view.
    """
    standing = STANDINGS[job.state]
    assert standing.run is not None
    if job.state is JobState.SUSPENDED:
        return standing.run, f"suspended: {standing.action}"
    is_newer = job.state is JobState.PENDING and progress.attempt_starts > job.restarts
    if job.state is JobState.RUNNING or is_newer:
        if progress.finished_at is not None:
            return RunState.RUNNING, "the training is complete, and its job is ending"
        unsaved = progress.unsaved
        return RunState.RUNNING, f"checkpoint not saved: {unsaved}" if unsaved else ""
    waits = f"{job.reason}: {job.cure}" if job.cure else ""
    if job.restarts or progress.starts:
        return RunState.PREEMPTED, f"requeued: {waits}" if waits else "requeued"
    return standing.run, waits


def doomed(
    record: RunRecord, job: JobView | None, progress: Progress, retry: Retry
) -> RunRecord | None:
    """Return the record of a run to cancel because its job is requeued again and again in vain.

    SLURM requeues a job without a limit: after preemptions, node failures and time limits.
    A start is fruitless if no later checkpoint was saved after it; the current start is not counted
    while it runs.
    """
    if job is None or record.cancel_requested or STANDINGS[job.state].run is None:
        return None
    if not job.restarts:
        return None
    progress = _of_newest_attempt(progress, record)
    running = job.state in (JobState.RUNNING, JobState.SUSPENDED)
    fruitless = progress.idle_starts - running if progress.starts else job.restarts
    if fruitless < retry.max_attempts:
        return None
    last = progress.stopped or progress.stopped_before
    by_stop = STOPS.get(last or "")
    cause = Cause.TIME_LIMIT if by_stop is Cause.TIME_LIMIT else Cause.PREEMPTED
    reason = f"{cause}: gave up after {fruitless} requeues in a row without progress"
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
    given_up = record.attempt.reason if record.attempt.outcome == cause else None
    reason = given_up or reason_of(cause, record, job, progress)
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
    used = together(progress.used, job.used if job else {}, vars(attempt))
    attempt = replace(attempt, resources=used)
    record = record.with_attempt(attempt)
    if cause in retry.on and not (record.cancel_requested or record.trial):
        fruitless = _fruitless(record.attempts)
        if fruitless < retry.max_attempts:
            state = RunState.PREEMPTED if cause is Cause.PREEMPTED else RunState.PENDING
            at = iso(now + retry.wait(fruitless))
            return replace(record, state=state, reason=f"{reason}; to be continued", retry_at=at)
        reason = f"{reason}; gave up after {fruitless} attempts in a row without progress"
    by_hand = cause is Cause.CANCELLED and not record.cancel_requested
    return replace(
        record,
        state=ENDS[cause].state,
        reason=reason,
        finished_at=ended_at,
        sync=Sync.OUT_OF_SYNC if by_hand else record.sync,
    )


def ended_by_journal(record: RunRecord, progress: Progress) -> RunRecord | None:
    """Return the record of a run whose journal alone says that it is over, None if it does not.

    For viewers who cannot ask the executor: mtf may still continue a run that has failed so.
    """
    progress = _of_newest_attempt(progress, record)
    if progress.finished_at is not None:
        cause = Cause.COMPLETED
    elif progress.refused:
        cause = Cause.CONFIGURATION
    elif progress.failed:
        cause = cause_of_error(progress.failed)
    else:
        return None
    at = parse_time(progress.finished_at or progress.last_at or record.claimed_at)
    record = with_progress(record, progress)
    return _ended(record, None, progress, cause, retry=Retry(on=frozenset()), now=at)


def _fruitless(attempts: tuple[Attempt, ...]) -> int:
    """Return the number of newest attempts in a row without a later checkpoint.

    Attempts before one that a person asked for are not counted.
    """
    count = 0
    for attempt in reversed(attempts):
        if attempt.outcome == Cause.CANCELLED and attempt.started_at is None:
            continue  # it never began
        if (attempt.end_step or 0) > attempt.start_step:
            break
        count += 1
        if attempt.asked:
            break
    return count
