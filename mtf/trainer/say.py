"""The one way the job speaks to people: lines on stderr, which the executor keeps in its log."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """Write one line to stderr, at once."""
    sys.stderr.write(f"mtf: {text}\n")
    sys.stderr.flush()
