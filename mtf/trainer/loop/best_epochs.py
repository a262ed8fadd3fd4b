"""Choose the best checkpoints by the value of a metric at the end of each epoch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mtf.spec.schema.sections import CheckpointConfig
    from mtf.trainer.compute.rank_sync import RankSync
    from mtf.trainer.loop.state import ResumeState
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


def is_among_the_best(
    state: ResumeState, policy: CheckpointConfig, monitor: str | None, rank_sync: RankSync
) -> bool:
    """Add this end of an epoch to ``state.best`` if it belongs there; return True if it does.

    All ranks must call it.
    """
    value = state.metrics.get(monitor or "")
    if value is None and policy.monitor is not None and state.epoch == 1:
        names = ", ".join(state.metrics)
        rank_sync.say(f"checkpoint.monitor: no metric {policy.monitor!r}. Metrics are {names}")
    if value is None or not policy.keep_best:
        return False
    place = (state.epoch, state.global_step)
    best = rank_sync.broadcast(state.best)  # only the first rank knows which saves have failed
    state.best = with_value(best, place, value, keep=policy.keep_best, mode=policy.mode)
    return place in state.best


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
