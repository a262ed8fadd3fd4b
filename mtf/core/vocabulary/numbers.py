"""Numbers that records and journals may hold."""

from __future__ import annotations

from typing import Any

MOST = 1 << 63  # whole numbers stay below it, so that each can also become a float


def is_count(value: Any) -> bool:
    """Return True for a whole number of things: an int from 0 on, and no bool."""
    return type(value) is int and 0 <= value < MOST


def is_number(value: Any) -> bool:
    """Return True for a measured number: a float, or an int of a sensible size, and no bool."""
    return type(value) is float or (type(value) is int and -MOST < value < MOST)
