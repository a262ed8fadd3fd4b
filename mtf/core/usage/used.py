"""The resources that one attempt of a run has used, as numbers by name. Pure.

They come from the job itself, which reports them in its journal, and from the executor's
accounting. A record keeps the names below and no others, so that its size is bounded.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from mtf.core.vocabulary.numbers import is_number
from mtf.core.vocabulary.times import is_time, parse_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

WAIT_S = "wait_s"  # from the submission to the start
RUN_S = "run_s"  # from the start to the end
MEMORY_MB = "peak_memory_mb"  # on the node that needed most: all processes of the job together
CPU_S = "cpu_s"  # CPU time of all processes
GPU_MEMORY_MB = "peak_gpu_memory_mb"  # on the GPU that needed most
GPU_PERCENT = "gpu_percent"  # mean utilisation
NAMES = (WAIT_S, RUN_S, MEMORY_MB, CPU_S, GPU_MEMORY_MB, GPU_PERCENT)
_PEAKS = (MEMORY_MB, GPU_MEMORY_MB)
_MOST = 1e15

Used = dict[str, float]


def is_amount(value: object) -> bool:
    """Return True for an amount that a record may keep."""
    return isinstance(value, int | float) and is_number(value) and 0 <= value < _MOST


def sound(values: Mapping[str, Any]) -> Used:
    """Return the amounts among some values, rounded to three digits after the point."""
    return {n: round(float(values[n]), 3) for n in NAMES if n in values and is_amount(values[n])}


def reported(events: Iterable[Mapping[str, Any]], token: str | None) -> Used:
    """Return the resources that the processes of an attempt have reported in its journal.

    Memory is added up over the processes of one node, and CPU time over all of them. The last
    report of a process counts, and each start of the job is a process of its own.
    """
    last: dict[tuple[str, str], tuple[str, Used]] = {}
    for event in events:
        if event.get("token") == token:
            who = str(event.get("restarts")), str(event.get("rank"))
            last[who] = str(event.get("host")), sound(event)
    memory: dict[tuple[str, str], float] = defaultdict(float)
    found: Used = {}
    for (start, _), (host, used) in last.items():
        if MEMORY_MB in used:
            memory[start, host] += used[MEMORY_MB]
        if CPU_S in used:
            found[CPU_S] = found.get(CPU_S, 0.0) + used[CPU_S]
        if GPU_MEMORY_MB in used:
            found[GPU_MEMORY_MB] = max(found.get(GPU_MEMORY_MB, 0.0), used[GPU_MEMORY_MB])
    if memory:
        found[MEMORY_MB] = max(memory.values())
    busy = [used[GPU_PERCENT] for _, used in last.values() if GPU_PERCENT in used]
    if busy:
        found[GPU_PERCENT] = sum(busy) / len(busy)
    return sound(found)


def together(
    own: Mapping[str, float], accounted: Mapping[str, float], times: Mapping[str, str | None]
) -> Used:
    """Return the resources of an attempt that has ended, from all sources.

    Args:
        own: as the job reported them.
        accounted: as the executor did. Of both, the greater amount counts: the job does not see the
            processes around it, and the accounting samples seldom.
        times: of the attempt: ``submitted_at``, ``started_at`` and ``ended_at``.
    """
    found: Used = {**own, **accounted}
    for name in own.keys() & accounted.keys():
        found[name] = max(own[name], accounted[name])
    for name, first, last in (
        (WAIT_S, "submitted_at", "started_at"),
        (RUN_S, "started_at", "ended_at"),
    ):
        begin, end = times.get(first), times.get(last)
        if begin and end and is_time(begin) and is_time(end):
            found[name] = max(0.0, (parse_time(end) - parse_time(begin)).total_seconds())
    return sound(found)
