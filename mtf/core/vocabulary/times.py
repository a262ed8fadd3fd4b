"""Times: as records spell them, limits as SLURM spells them, durations as people read them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache

UNLIMITED = "UNLIMITED"  # SLURM's word for no time limit
_YEARS = 1970, 9000  # durations can be added to a time between them
_TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")


def time_limit_s(text: str) -> int:
    """Return a SLURM time in seconds: MM, MM:SS, HH:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS.

    Raises:
        ValueError: the text is none of these.

    Source: sbatch(1), ``--time``.
    """
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r}: not a time like 30, 12:00:00 or 1-12:00:00")
    days, *parts = found.groups()
    numbers = [int(p) for p in parts if p is not None]
    if days is not None:
        hours, minutes, seconds = [*numbers, 0, 0][:3]
        return ((int(days) * 24 + hours) * 60 + minutes) * 60 + seconds
    if len(numbers) == 3:
        return (numbers[0] * 60 + numbers[1]) * 60 + numbers[2]
    return numbers[0] * 60 + (numbers[1] if len(numbers) == 2 else 0)


def duration(seconds: float) -> str:
    """Return a duration in its one or two largest units: ``2 d 3 h``, ``5 min``, ``40 s``."""
    for size, unit, small, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} {int(seconds % size // small)} {smaller}"
    return f"{int(seconds // 60)} min" if seconds >= 60 else f"{int(seconds)} s"


def iso(at: datetime) -> str:
    """Return an aware time as it stands in records: ISO 8601, UTC, whole seconds."""
    return at.astimezone(UTC).isoformat(timespec="seconds")


def parse_time(text: str) -> datetime:
    """Return a recorded time (ISO 8601) as an aware datetime in UTC."""
    return datetime.fromisoformat(text).astimezone(UTC)


@lru_cache(maxsize=4096)
def is_time(text: str) -> bool:
    """Return True if ``parse_time`` can read a text, and it names a zone and a sensible year."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return False
    return at.tzinfo is not None and _YEARS[0] < at.year < _YEARS[1]
