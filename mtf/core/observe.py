"""One run's record brought up to date with what its job, its journal and the clock say: pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from mtf.core.causes import CONTINUE_EXIT_CODE, FINAL_STATE, JOB_CAUSE, Cause
from mtf.core.fold import Progress
from mtf.core.states import JobState, RunState, Sync

if TYPE_CHECKING:
    from mtf.core.jobs import JobView
    from mtf.core.records import Attempt, RunRecord


@dataclass(frozen=True)
class Retry:
    """When an attempt that has ended is followed by another (``retry`` in mtf.yaml)."""

    max_attempts: int = 3  # in a row without progress
    on: frozenset[Cause] = frozenset({Cause.NODE_FAILURE, Cause.PREEMPTED, Cause.TIME_LIMIT})
    backoff_s: float = 60.0


def observe(
    record: RunRecord, job: JobView | None, progress: Progress, *, retry: Retry, now: datetime
) -> RunRecord:
    """Return the record as it should stand now.

    ``job`` is what the executor says of the newest attempt's job; None when it has no job yet or
    the executor, which was readable, has forgotten it.
    """
    record = replace(with_progress(record, progress), observed_at=_iso(now))
    if record.is_over or record.retry_at is not None or record.job_id is None:
        return record
    if progress != _NOTHING and progress.token != record.attempt.token:  # an earlier attempt's
        progress = replace(
            progress,
            starts=0,
            started_at=None,
            stopped=None,
            failed=None,
            refused=None,
            unsaved=None,
        )
    cause = _cause(record, job, progress, now)
    if cause is None:
        return _alive(record, job, progress)
    return _ended(record, job, progress, cause, retry=retry, now=now)


def with_progress(record: RunRecord, progress: Progress) -> RunRecord:
    """Return the record with what its journal says: epoch, step, checkpoint, metrics."""
    if progress == _NOTHING:
        return record
    return replace(
        record,
        started_at=record.started_at or progress.first_started_at,
        epoch=_or(progress.epoch, record.epoch),
        max_epochs=_or(progress.max_epochs, record.max_epochs),
        step=_or(progress.step, record.step),
        checkpoint=progress.checkpoint or record.checkpoint,
        metrics=progress.metrics or record.metrics,
        best=progress.best or record.best,
        best_checkpoint=progress.best_checkpoint or record.best_checkpoint,
        packages=progress.packages or record.packages,
    )


_NOTHING = Progress()


def _or(new: int | None, old: int | None) -> int | None:
    return old if new is None else new


def _cause(
    record: RunRecord, job: JobView | None, progress: Progress, now: datetime
) -> Cause | None:
    """Return why the newest attempt has ended, None while it may go on."""
    if progress.finished_at is not None and (job is None or job.state is not JobState.RUNNING):
        return Cause.COMPLETED
    if job is None:
        return _cause_of_forgotten(record, progress, now)
    if job.state in JOB_CAUSE:
        return JOB_CAUSE[job.state]
    match job.state:
        case JobState.CANCELLED:
            return Cause.CANCELLED if record.cancel_requested else Cause.CANCELLED_OUTSIDE
        case JobState.FAILED if job.exit_code == CONTINUE_EXIT_CODE:
            return Cause.TIME_LIMIT
        case JobState.FAILED | JobState.COMPLETED:
            return Cause.CONFIGURATION if progress.refused else Cause.CODE_ERROR
        case _:
            return None


def _cause_of_forgotten(record: RunRecord, progress: Progress, now: datetime) -> Cause | None:
    """Return LOST for a job that has given no sign of life for long, else None.

    squeue knows a job within milliseconds and keeps it for minutes after its end; sacct is seconds
    late. Only what both have forgotten for ``FORGOTTEN_AFTER`` is given up.
    """
    if progress.failed:
        return Cause.CODE_ERROR
    if record.cancel_requested:  # SLURM keeps no word of a task that is cancelled before it starts
        return Cause.CANCELLED
    signs = [record.attempt.submitted_at, progress.last_at]
    newest = max(datetime.fromisoformat(s) for s in signs if s)
    return Cause.LOST if now - newest > FORGOTTEN_AFTER else None


FORGOTTEN_AFTER = timedelta(minutes=10)


def _alive(record: RunRecord, job: JobView | None, progress: Progress) -> RunRecord:
    if job is None or job.state is JobState.UNKNOWN:
        return record
    attempt = replace(
        record.attempt,
        started_at=record.attempt.started_at or _iso(job.started_at),
        node=job.node or record.attempt.node,
    )
    state, reason = _standing(job, progress)
    return replace(record, state=state, reason=reason, attempts=(*record.attempts[:-1], attempt))


def _standing(job: JobView, progress: Progress) -> tuple[RunState, str]:
    """Return the state of a run whose job goes on, and why."""
    if job.state in (JobState.RUNNING, JobState.SUSPENDED):
        reason = "suspended" if job.state is JobState.SUSPENDED else ""
        if not reason and progress.unsaved:
            reason = f"checkpoint not saved: {progress.unsaved}"
        return RunState.RUNNING, reason
    waits = job.reason if job.reason not in ("", "None") else "queued"
    if job.restarts or progress.starts:
        return RunState.PREEMPTED, f"requeued: {waits}"
    return RunState.PENDING, waits


def _ended(
    record: RunRecord,
    job: JobView | None,
    progress: Progress,
    cause: Cause,
    *,
    retry: Retry,
    now: datetime,
) -> RunRecord:
    ended_at = (job and _iso(job.ended_at)) or progress.finished_at or _iso(now)
    reason = _reason(cause, job, progress)
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
    record = replace(record, attempts=(*record.attempts[:-1], attempt))
    if cause in retry.on and not record.cancel_requested:
        fruitless = _fruitless(record.attempts)
        if fruitless < retry.max_attempts:
            wait = retry.backoff_s * 2 ** (fruitless - 1) if fruitless else 0.0
            state = RunState.PREEMPTED if cause is Cause.PREEMPTED else RunState.PENDING
            at = _iso(now + timedelta(seconds=wait))
            return replace(record, state=state, reason=f"{reason}; to be continued", retry_at=at)
        reason = f"{reason}; gave up after {fruitless} attempts without progress"
    outside = cause is Cause.CANCELLED_OUTSIDE
    return replace(
        record,
        state=FINAL_STATE[cause],
        reason=reason,
        finished_at=ended_at,
        sync=Sync.OUT_OF_SYNC if outside else record.sync,
    )


def _fruitless(attempts: tuple[Attempt, ...]) -> int:
    """Return how many of the newest attempts in a row have not moved the checkpoint on."""
    count = 0
    for attempt in reversed(attempts):
        if (attempt.end_step or 0) > attempt.start_step:
            break
        count += 1
    return count


def _reason(cause: Cause, job: JobView | None, progress: Progress) -> str:
    said = job.reason if job and job.reason not in ("", "None", "NonZeroExitCode") else ""
    in_brackets = f" ({said})" if said and said.lower() != cause else ""
    if cause is Cause.CODE_ERROR:
        return progress.failed or _silent_end(job, in_brackets)
    words = {
        Cause.COMPLETED: progress.noted or "",
        Cause.CONFIGURATION: progress.refused or "refused",
        Cause.CANCELLED: "cancelled by mtf cancel",
        Cause.CANCELLED_OUTSIDE: f"cancelled outside mtf{in_brackets}: mtf retry runs it again",
        Cause.LOST: "the executor no longer knows the job, and it left no word: mtf retry",
    }
    return words.get(cause, f"{cause}{in_brackets}")


def _silent_end(job: JobView | None, said: str) -> str:
    """Return the reason of a job that ended badly without an error in its journal."""
    if job is not None and job.state is JobState.COMPLETED:
        return "the job ended with exit code 0 before its training was complete"
    how = "ended"
    if job is not None:
        how = f"signal {job.signal}" if job.signal else f"exit code {job.exit_code}"
    return f"{how}{said}, before it could say why: see mtf logs --err"


def _iso(at: datetime | None) -> str | None:
    return at.isoformat(timespec="seconds") if at else None
