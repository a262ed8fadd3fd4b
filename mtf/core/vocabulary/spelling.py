"""Suggestions for misspelled names: the known names that are spelled most like them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_FEW = 24  # names that a message may list
_MOST = 50_000  # characters of names that one is compared with


def nearest(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return the known name spelled most like ``name``, whatever the case; None if none is near.

    Of very many names, only the first ones are compared: a thousand take 3 ms.
    """
    import difflib  # only once something is misspelled: the command line imports this module

    by_lower, left = {}, _MOST
    for other in sorted(known):
        left -= len(other)
        if left < 0:
            break
        by_lower[other.lower()] = other
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=cutoff)
    return by_lower[found[0]] if found else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a sentence with the nearest known name, or with all names if they are few, or ""."""
    names = sorted(known)
    near = nearest(name, names)
    if near is not None:
        return f"Did you mean {near!r}?"
    return f"Known: {', '.join(names)}" if 0 < len(names) <= _FEW else ""
