"""Finds the data files that come with mtf: `templates/`, `hooks/` and `experiments/`."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parent


def data_dir(name: str) -> Path:
    """Return a folder of data files: `mtf/_data/NAME` in a wheel, else next to the package."""
    in_wheel = PACKAGE / "_data" / name
    return in_wheel if in_wheel.is_dir() else PACKAGE.parent / name
