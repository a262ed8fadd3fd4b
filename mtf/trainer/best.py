"""Which checkpoints are the best ones: pure decisions over the values at the ends of epochs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mtf.trainer.checkpoint import Place

Mode = Literal["min", "max"]
Best = dict["Place", float]  # the metric by epochs and steps done


def with_value(
    best: Mapping[Place, float], place: Place, value: float, *, keep: int, mode: Mode
) -> Best:
    """Return the ``keep`` best of those there are and a new one. NaN is never among them.

    Of equal ones the earlier is the better one.
    """
    if math.isnan(value):
        return dict(best)
    values = {**best, place: value}
    return {known: values[known] for known in ranked(values, mode)[:keep]}


def ranked(best: Mapping[Place, float], mode: Mode) -> list[Place]:
    """Return the places, the best one first."""
    sign = -1.0 if mode == "max" else 1.0
    return sorted(best, key=lambda place: (sign * best[place], place))
