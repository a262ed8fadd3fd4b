"""The one place that finds packaged data: `templates/`, `hooks/` and `experiments/`."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent


def data_dir(name: str) -> Path:
    """Return a folder of packaged data: in a wheel under `mtf/_data`, else beside the package."""
    packed = _PACKAGE / "_data" / name
    return packed if packed.is_dir() else _PACKAGE.parent / name
