"""The words of a plan: its notes, and the reasons of its actions."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from mtf.core.vocabulary.states import RunState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mtf.core.vocabulary.records import RunRecord


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


def summed(notes: Iterable[str]) -> tuple[str, ...]:
    """Return each note once, with the number of runs that it is about."""
    counts = Counter(notes)
    return tuple(f"{text} ({n} runs)" if n > 1 else text for text, n in counts.items())
