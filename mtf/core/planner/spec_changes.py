"""Lets waiting runs follow a changed spec: new resources for what has not begun. Pure.

What a spec says about how a run is executed (``slurm``, ``logging``, ``checkpoint``) is not part of
the run's identity. If its resources change while the run's job waits, the job is withdrawn and
another one submitted. For a change of ``logging`` or ``checkpoint`` alone it is not: a new job
would queue anew. A run that waits for its next attempt takes the changes with it, and what has
begun keeps what it has.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from mtf.core.vocabulary import json_text
from mtf.core.vocabulary.actions import Record, Resume
from mtf.core.vocabulary.causes import Cause
from mtf.core.vocabulary.ids import name_of
from mtf.core.vocabulary.states import JobState
from mtf.core.vocabulary.times import iso

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from mtf.core.planner.journal_reader import Progress
    from mtf.core.vocabulary.actions import Action
    from mtf.core.vocabulary.jobs import JobView
    from mtf.core.vocabulary.records import RunRecord

_WAITS = (JobState.PENDING, JobState.HELD)


class KeyChange(NamedTuple):
    """One key of a spec whose value has changed since a run was submitted."""

    key: str  # like slurm.partition
    old: Any
    new: Any

    def __str__(self) -> str:
        """Return ``slurm.partition: low -> high``."""
        return f"{self.key}: {_shown(self.old)} -> {_shown(self.new)}"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) and value else json_text.dumps(value)


def follow_spec(
    action: Action | None,
    record: RunRecord,
    job: JobView | None,
    progress: Progress | None,
    *,
    changes: Sequence[KeyChange],
    now: datetime,
) -> tuple[Action | None, str | None]:
    """Return the action for a run whose spec has changed in these keys, and a note.

    Args:
        action: the one that was decided without them.
        record: of the run.
        job: the executor's view of its newest job.
        progress: in its journal.
        changes: of its spec.
        now: the time.
    """
    what = ", ".join(map(str, changes))
    values = {change.key: change.new for change in changes}
    if isinstance(action, Resume):
        reason = f"{action.reason}; {what}"
        return replace(action, reason=reason, changes=values, followed=values), None
    if not (action is None or isinstance(action, Record)):
        return action, None
    new = action.record if isinstance(action, Record) else record
    if new.is_over or new.cancel_requested:
        return action, None
    if new.is_put_off:
        return Resume(new.run, new, what, changes=values, followed=values), None
    if new.retry_at is not None or new.job_id is None:
        return action, None  # its next attempt takes them
    if (why := _why_it_stays(new, job, progress, changes)) is not None:
        return action, f"{name_of(new.run)}: {why}"
    record = withdrawn(new, what, now)
    note = f"{name_of(new.run)}: other resources take a new job, which queues anew"
    return Resume(new.run, record, what, changes=values, followed=values, withdraws=True), note


def _why_it_stays(
    record: RunRecord,
    job: JobView | None,
    progress: Progress | None,
    changes: Sequence[KeyChange],
) -> str | None:
    """Return the reason why a run's job goes on as it is, None if another one takes its place."""
    what = ", ".join(map(str, changes))
    if not waits(record, job, progress):
        return f"runs that have begun keep what they have ({what})"
    if job is not None and job.state is JobState.HELD and not _is_held_by_spec(changes):
        return f"held jobs keep what they have ({what})"
    if not any(change.key.startswith("slurm.") for change in changes):
        return (
            f"waiting jobs keep their place in the queue, and begin without {what}. mtf cancel and"
            " mtf retry submit a run anew, with it"
        )
    return None


def with_spec(action: Resume, changes: Sequence[KeyChange]) -> Resume:
    """Return the attempt that a person asks for, with what its spec has changed since.

    What the person sets for it counts more.
    """
    values = {change.key: change.new for change in changes}
    reason = "; ".join([action.reason, *map(str, changes)])
    return replace(action, reason=reason, changes={**values, **action.changes}, followed=values)


def waits(record: RunRecord, job: JobView | None, progress: Progress | None) -> bool:
    """Return True if a run's newest job has not begun, as far as can be seen."""
    if job is None or job.state not in _WAITS or job.restarts:
        return False
    return progress is None or progress.token != record.attempt.token


def _is_held_by_spec(changes: Sequence[KeyChange]) -> bool:
    """Return True if jobs were held because their spec said so, and no person has held them."""
    return any(c.key == "slurm.extra" and "--hold" in c.old for c in changes)


def withdrawn(record: RunRecord, why: str, now: datetime) -> RunRecord:
    """Return the record of a run whose waiting job is withdrawn."""
    reason = f"withdrawn before it began: {why}"
    attempt = replace(record.attempt, ended_at=iso(now), outcome=Cause.CANCELLED, reason=reason)
    return record.with_attempt(attempt)
