"""Decides if what was observed of a run is worth a commit. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtf.core.planner.reasons import change_text
from mtf.core.vocabulary.actions import Record
from mtf.core.vocabulary.times import parse_time

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from mtf.core.vocabulary.records import RunRecord


def if_changed(
    old: RunRecord, new: RunRecord, progress_every: timedelta, now: datetime
) -> Record | None:
    """Return a record action if the run's state changed; progress alone is recorded less often."""
    progressed = _reached(old) != _reached(new) and was_written_long_ago(old, progress_every, now)
    if _standing(old) == _standing(new) and not progressed:
        return None
    return Record(old.run, new, change_text(old, new))


def was_written_long_ago(record: RunRecord, progress_every: timedelta, now: datetime) -> bool:
    """Return True if a record is so old that progress alone may be recorded again."""
    written = record.observed_at
    return written is None or now - parse_time(written) >= progress_every


def _standing(record: RunRecord) -> tuple[object, ...]:
    attempt = record.attempt
    job = record.job_id, attempt.ended_at
    return record.state, record.reason, record.sync, record.retry_at, *job


def _reached(record: RunRecord) -> tuple[object, ...]:
    return record.epoch, record.checkpoint, record.best, record.started_at, record.packages
