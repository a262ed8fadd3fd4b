"""Reasons for the end of attempts, in words for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtf.core.vocabulary.causes import Cause
from mtf.core.vocabulary.states import JobState

if TYPE_CHECKING:
    from mtf.core.planner.journal_reader import Progress
    from mtf.core.vocabulary.jobs import JobView
    from mtf.core.vocabulary.records import RunRecord


_REQUESTED = "cancel requested: "


def cancel_requested(record: RunRecord, why: str) -> str:
    """Return the reason of a run that will be cancelled; the first reason given is kept."""
    return record.reason if record.reason.startswith(_REQUESTED) else f"{_REQUESTED}{why}"


def cancelled(record: RunRecord) -> str:
    """Return the reason of a run that ended because its cancellation was requested."""
    why = record.reason.removeprefix(_REQUESTED)
    return f"cancelled: {why}" if why != record.reason else "cancelled by mtf"


def reason_of(cause: Cause, record: RunRecord, job: JobView | None, progress: Progress) -> str:
    """Return the reason for the end of a run's newest attempt."""
    detail = f" ({job.reason})" if job and _adds_to(cause, job.reason) else ""
    match cause:
        case Cause.COMPLETED:
            return progress.noted or ""
        case Cause.CANCELLED:
            return _who_cancelled(record, job, progress)
        case Cause.LOST:
            return f"the job disappeared without a trace. Run mtf retry {record.run}"
        case Cause.CONFIGURATION:
            return progress.refused or _silent_end(job, detail)
        case Cause.CODE_ERROR:
            return progress.failed or _silent_end(job, detail)
        case Cause.HOST_OOM | Cause.CUDA_OOM | Cause.STORAGE if progress.failed:
            return progress.failed
        case Cause.STORAGE:
            return f"its job could not write into {record.run_dir}: see mtf logs --err"
        case _:
            pass
    if job is not None and job.state is JobState.FAILED and job.exit_code != 0:
        detail = f" ({_silent_end(job, detail)})"
    of_node = (Cause.NODE_FAILURE, Cause.NOT_STARTED)
    node = f" of {job.node}" if cause in of_node and job and job.node else ""
    return f"{cause}{node}{detail}"


def _adds_to(cause: Cause, reason: str) -> bool:
    return reason not in ("", "None", "NonZeroExitCode") and reason.lower() != cause


def _who_cancelled(record: RunRecord, job: JobView | None, progress: Progress) -> str:
    if record.cancel_requested:
        return cancelled(record)
    if job is not None and job.state is JobState.ABSENT:
        return "cancelled outside mtf while it waited: mtf retry runs it again"
    interrupted = job is not None and job.state is JobState.FAILED  # by a signal from a person
    who = progress.stopped if interrupted else job and job.cancelled_by
    return f"cancelled{f' by {who}' if who else ''} outside mtf: mtf retry runs it again"


def _silent_end(job: JobView | None, detail: str) -> str:
    """Return the reason for a failure that left no error in the journal."""
    if job is not None and job.state is JobState.COMPLETED:
        return "the job ended with exit code 0 before its training was complete"
    how = "ended"
    if job is not None:
        how = f"signal {job.signal}" if job.signal else f"exit code {job.exit_code}"
    return f"{how}{detail} without an error message: see mtf logs --err"
