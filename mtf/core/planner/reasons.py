"""Why an attempt has ended, in words for people."""

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
    """Return why a run is to end, ahead of which it goes on; who asked first is kept."""
    return record.reason if record.reason.startswith(_REQUESTED) else f"{_REQUESTED}{why}"


def cancelled(record: RunRecord) -> str:
    """Return why a run has ended whose cancellation was asked for."""
    why = record.reason.removeprefix(_REQUESTED)
    return f"cancelled: {why}" if why != record.reason else "cancelled by mtf"


def reason_of(cause: Cause, record: RunRecord, job: JobView | None, progress: Progress) -> str:
    """Return how a run's newest attempt came to its end."""
    said = f" ({job.reason})" if job and _is_news(job.reason, cause) else ""
    match cause:
        case Cause.COMPLETED:
            return progress.noted or ""
        case Cause.CANCELLED:
            return _who_cancelled(record, job, progress)
        case Cause.LOST:
            return "the executor no longer knows the job, and it left no word: mtf retry"
        case Cause.CONFIGURATION:
            return progress.refused or _silent_end(job, said)
        case Cause.CODE_ERROR:
            return progress.failed or _silent_end(job, said)
        case Cause.HOST_OOM | Cause.CUDA_OOM if progress.failed:
            return progress.failed
    if job is not None and job.state is JobState.FAILED and job.exit_code != 0:
        said = f" ({_silent_end(job, said)})"
    node = f" of {job.node}" if cause is Cause.NODE_FAILURE and job and job.node else ""
    return f"{cause}{node}{said}"


def _is_news(said: str, cause: Cause) -> bool:
    return said not in ("", "None", "NonZeroExitCode") and said.lower() != cause


def _who_cancelled(record: RunRecord, job: JobView | None, progress: Progress) -> str:
    if record.cancel_requested:
        return cancelled(record)
    interrupted = job is not None and job.state is JobState.FAILED  # by a signal of somebody's
    who = progress.stopped if interrupted else job and job.cancelled_by
    return f"cancelled{f' by {who}' if who else ''} outside mtf: mtf retry runs it again"


def _silent_end(job: JobView | None, said: str) -> str:
    """Return how a job ended badly without an error in its journal."""
    if job is not None and job.state is JobState.COMPLETED:
        return "the job ended with exit code 0 before its training was complete"
    how = "ended"
    if job is not None:
        how = f"signal {job.signal}" if job.signal else f"exit code {job.exit_code}"
    return f"{how}{said}, before it could say why: see mtf logs --err"
