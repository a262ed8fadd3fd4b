"""Lines for people on stderr, which is the job's log."""

from __future__ import annotations

import sys
from contextlib import suppress


def say(text: str) -> None:
    """Write one line to stderr, at once; a full disk loses the line and stops nothing."""
    with suppress(OSError, ValueError):  # ValueError: stderr is closed
        sys.stderr.write(f"mtf: {text}\n")
        sys.stderr.flush()


def amount(size: float) -> str:
    """Return a size in bytes as text, such as ``1.2 GB``."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
