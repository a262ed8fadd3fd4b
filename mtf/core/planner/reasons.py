"""The words of a plan for people: reasons for the end of attempts, changes of records, notes."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from mtf.core.vocabulary.causes import Cause
from mtf.core.vocabulary.ids import name_of
from mtf.core.vocabulary.states import JobState, RunState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mtf.core.planner.journal_reader import Progress
    from mtf.core.vocabulary.experiments import Desired
    from mtf.core.vocabulary.ids import CommitId, RunKey
    from mtf.core.vocabulary.jobs import JobView
    from mtf.core.vocabulary.records import RunRecord

    Keyed = tuple[Desired, tuple[RunKey, ...]]

_REQUESTED = "cancel requested: "
_UNSEEN = "cancelled outside mtf while it waited"


def cancel_requested(record: RunRecord, why: str) -> str:
    """Return the reason of a run that will be cancelled; the first reason given is kept."""
    return record.reason if record.reason.startswith(_REQUESTED) else f"{_REQUESTED}{why}"


def cancelled(record: RunRecord) -> str:
    """Return the reason of a run that ended because its cancellation was requested."""
    why = record.reason.removeprefix(_REQUESTED)
    return f"cancelled: {why}" if why != record.reason else "cancelled by mtf"


def was_cancelled_unseen(record: RunRecord) -> bool:
    """Return True if a run counts as cancelled only since its waiting job was listed no more."""
    return record.attempt.reason.startswith(_UNSEEN)


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
        return f"{_UNSEEN}: mtf retry runs it again"
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


def change_text(old: RunRecord, new: RunRecord) -> str:
    """Return the change from one record of a run to the next."""
    if old.state is not new.state:
        why = f" ({new.reason})" if new.reason else ""
        return f"{old.state} -> {new.state}{why}"
    if new.retry_at is not None and old.retry_at is None:
        return f"attempt {len(new.attempts)} ended ({new.reason})"
    if old.sync is not new.sync:
        return f"{old.sync} -> {new.sync}"
    return "progress" if old.reason == new.reason else f"{new.state}: {new.reason or 'waits'}"


def cancelled_outside(record: RunRecord) -> str | None:
    """Return a note if somebody has cancelled a run without mtf, which then leaves it alone."""
    if record.state is RunState.CANCELLED and not record.cancel_requested:
        if record.grid is None:
            run = record.run
            return f"{run} was cancelled outside mtf and stays cancelled: mtf retry {run}"
        members = f"members of {record.submission}"
        return f"{members} were cancelled outside mtf and stay cancelled: mtf retry runs one again"
    return None


def refused_notes(specs: Iterable[Keyed], records: Iterable[RunRecord], tip: CommitId) -> list[str]:
    """Return a note for each run that is wanted and that no executor has accepted at this commit.

    Nothing tells when it would be accepted, so it is not submitted again until somebody says so.
    """
    keys = {key for _, spec_keys in specs for key in spec_keys}
    return [
        f"{name_of(r.run)}: {r.executor} has refused it at {tip[:8]}. A commit that corrects it is"
        f" enough; if the cause was elsewhere: mtf retry {name_of(r.run)}"
        for r in records
        if r.was_refused and r.commit == tip and r.superseded_by is None and r.key in keys
    ]


def summed(notes: Iterable[str]) -> tuple[str, ...]:
    """Return each note once, with the number of runs that it is about."""
    counts = Counter(notes)
    return tuple(f"{text} ({n} runs)" if n > 1 else text for text, n in counts.items())
