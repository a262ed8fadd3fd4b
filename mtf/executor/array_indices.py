"""Reads and writes SLURM's lists of array indices: ``0-9:3,12``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


_PART = re.compile(r"([0-9]{1,7})(?:-([0-9]{1,7})(?::([0-9]{1,7}))?)?")
_MOST = 4_000_001  # the greatest MaxArraySize. Source: slurm.conf(5)


def parse_indices(text: str) -> list[int]:
    """Return the indices in a list of array tasks: ``0-9:3,12``.

    `squeue --array` would expand the list, but 22.05 omits the last index of a range with a step.

    Raises:
        ValueError: the text is not such a list, is truncated with ``...``, or has more indices than
            an array can have.
    """
    indices: list[int] = []
    for part in text.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise ValueError(f"{part[:40]!r} is not a range of array indices")
        first, last, step = (int(number or 0) for number in match.groups())
        added = range(first, (last if match[2] else first) + 1, step if match[3] else 1)
        if len(indices) + len(added) > _MOST:
            raise ValueError(f"more than {_MOST:,} array indices")
        indices += added
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
