"""The lines of source that an error has come through: those of the pinned code, those of a file."""

from __future__ import annotations

import traceback
from pathlib import Path


def place_of(error: BaseException) -> str:
    """Return the line of the pinned code that raised an error, in brackets, or an empty text."""
    root, ours = f"{Path.cwd()}/", f"{Path(__file__).parents[2]}/"  # the checkout is the cwd
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename.startswith(root) and not f.filename.startswith(ours)]
    own = [f for f in own if "-packages/" not in f.filename]
    return f" ({own[-1].filename.removeprefix(root)}:{own[-1].lineno})" if own else ""


def passes(error: BaseException, file: str) -> bool:
    """Return True if an error has come through a file, given by the end of its path."""
    return any(f.filename.endswith(file) for f in traceback.extract_tb(error.__traceback__))
