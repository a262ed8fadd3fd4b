"""Choose the best checkpoints by the value of a metric at the end of each epoch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mtf.trainer.storage.checkpoint_store import Place

Mode = Literal["min", "max"]
Best = dict["Place", float]  # the metric's value by epochs and steps done


def with_value(
    best: Mapping[Place, float], place: Place, value: float, *, keep: int, mode: Mode
) -> Best:
    """Return the ``keep`` best values of ``best`` and a new one; NaN is never among them.

    Of equal values, the earlier one is better.
    """
    if math.isnan(value):
        return dict(best)
    values = {**best, place: value}
    return {kept: values[kept] for kept in ranked(values, mode)[:keep]}


def best_of(
    events: Iterable[Mapping[str, Any]], place: Place, name: str, *, keep: int, mode: Mode
) -> Best:
    """Return the best of the checkpoints in a journal and of a new one at ``place``.

    Args:
        events: the journal's events, of which metrics and checkpoints count.
        place: epochs and steps done, as logged with the metrics.
        name: the metric.
        keep: number of checkpoints to return.
        mode: whether less or more is better.
    """
    values: Best = {}
    saved = {place}
    for event in events:
        at = (event.get("epoch", 0), event.get("step", 0))
        if event["event"] == "checkpoint":
            saved.add(at)
        elif event["event"] == "metrics" and name in event.get("metrics", {}):
            values[at] = event["metrics"][name]
    best: Best = {}
    for at in sorted(saved & values.keys()):
        best = with_value(best, at, values[at], keep=keep, mode=mode)
    return best


def ranked(best: Mapping[Place, float], mode: Mode) -> list[Place]:
    """Return the places, the best first."""
    sign = -1.0 if mode == "max" else 1.0
    return sorted(best, key=lambda place: (sign * best[place], place))
