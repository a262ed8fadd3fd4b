"""The resources of runs, and their cost in GPU and CPU hours, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtf.core.sbatch.section_options import section_demand
from mtf.report.tables import count

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtf.core.review.costs import Cost
    from mtf.core.sbatch.demand import Demand
    from mtf.core.vocabulary.jobs import Resources


def cost_text(cost: Cost) -> str:
    """Return a cost like ``48 GPU-h, 96 CPU-h``, or the reason why it has no upper bound."""
    if cost.gpu_hours is None:
        return "no bound: slurm.time is not set, or slurm.extra asks for whole nodes"
    gpu_text = f"{_hours(cost.gpu_hours)} GPU-h" if cost.gpu_hours else ""
    if cost.cpu_hours is None:
        if gpu_text:
            return f"{gpu_text}, CPU-h without bound"
        return "no bound: slurm.time is not set, or slurm.extra asks for whole nodes"
    return ", ".join(filter(None, [gpu_text, f"{_hours(cost.cpu_hours)} CPU-h"]))


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 1000 else f"{hours:.4g}"


def resources_text(
    needs: Resources, demand_of: Callable[[Resources], Demand] = section_demand
) -> str:
    """Return the resources of one run, like ``1 node, 4 GPU, 8 CPU, 64G, 12:00:00``."""
    demand = demand_of(needs)
    parts = [
        count(demand.nodes, "node") if demand.nodes else "",
        f"{demand.gpus} GPU" if demand.gpus else "",
        f"{demand.cpus} CPU" if demand.cpus else "",
        needs["mem"],
        demand.time,
        f"partition {demand.partition}" if demand.partition else "",
    ]
    return ", ".join(part for part in parts if part)
