"""Which checkpoints are the best ones: pure decisions over the values at the ends of epochs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mtf.trainer.storage.checkpoint_store import Place

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


def best_of(
    facts: Iterable[Mapping[str, Any]], place: Place, name: str, *, keep: int, mode: Mode
) -> Best:
    """Return the best of the checkpoints that a journal tells of and a new one at ``place``.

    Args:
        facts: of the journal: the metrics and checkpoints among them count.
        place: epochs and steps done, as they were logged with the metrics.
        name: of the metric.
        keep: how many.
        mode: whether less or more is better.
    """
    values: Best = {}
    saved = {place}
    for fact in facts:
        there = (fact.get("epoch", 0), fact.get("step", 0))
        if fact["event"] == "checkpoint":
            saved.add(there)
        elif fact["event"] == "metrics" and name in fact.get("metrics", {}):
            values[there] = fact["metrics"][name]
    best: Best = {}
    for there in sorted(saved & values.keys()):
        best = with_value(best, there, values[there], keep=keep, mode=mode)
    return best


def ranked(best: Mapping[Place, float], mode: Mode) -> list[Place]:
    """Return the places, the best one first."""
    sign = -1.0 if mode == "max" else 1.0
    return sorted(best, key=lambda place: (sign * best[place], place))
