"""Reads and writes SLURM's lists of array indices: ``0-9:3,12``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def parse_indices(text: str) -> list[int]:
    """Return the indices in a list of array tasks: ``0-9:3,12``.

    `squeue --array` would expand the list, but 22.05 omits the last index of a range with a step.

    Raises:
        ValueError: the text is not such a list, or is truncated with ``...``.
    """
    indices: list[int] = []
    for part in text.split(","):
        span, _, step = part.partition(":")
        first, _, last = span.partition("-")
        indices += range(int(first), int(last or first) + 1, int(step or 1))
    return indices


def render_indices(indices: Iterable[int]) -> str:
    """Return indices as sbatch and scancel accept them: ``0-3,7``."""
    parts: list[list[int]] = []
    for index in sorted(indices):
        if parts and parts[-1][-1] == index - 1:
            parts[-1][1:] = [index]
        else:
            parts.append([index])
    return ",".join("-".join(map(str, part)) for part in parts)
