"""The greatest cost of runs in GPU-hours and CPU-hours, from the options of their jobs. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtf.core.sbatch.section_options import section_demand

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mtf.core.sbatch.demand import Demand
    from mtf.core.vocabulary.jobs import Resources


@dataclass(frozen=True)
class Cost:
    """An upper bound for one attempt of each run; None: no limit is known."""

    gpu_hours: float | None
    cpu_hours: float | None


def total_cost(
    runs: Iterable[Resources], demand_of: Callable[[Resources], Demand] = section_demand
) -> Cost:
    """Return the total cost of these runs. Members of a grid mostly share one object.

    ``demand_of`` returns what a run with these resources takes: by default, what they ask for.
    """
    known: dict[int, Cost] = {}
    return sum_of(
        known.get(id(needs)) or known.setdefault(id(needs), cost_of(demand_of(needs)))
        for needs in runs
    )


def sum_of(costs: Iterable[Cost]) -> Cost:
    """Return the sum of costs: without a bound if one of them has none."""
    gpu_hours: float | None = 0.0
    cpu_hours: float | None = 0.0
    for cost in costs:
        gpu_hours = _sum(gpu_hours, cost.gpu_hours)
        cpu_hours = _sum(cpu_hours, cost.cpu_hours)
    return Cost(gpu_hours, cpu_hours)


def cost_of(demand: Demand) -> Cost:
    """Return the greatest cost of one attempt of one run."""
    return Cost(
        gpu_hours=0.0 if demand.gpus == 0 else _times(demand.hours, demand.gpus),
        cpu_hours=_times(demand.hours, demand.cpus),
    )


def _sum(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a + b


def _times(hours: float | None, units: int | None) -> float | None:
    return None if hours is None or units is None else hours * units
