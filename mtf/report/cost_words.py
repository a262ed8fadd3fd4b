"""The resources of runs, and their cost in GPU and CPU hours, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtf.core.review.costs import cpus, gpus
from mtf.report.tables import count

if TYPE_CHECKING:
    from mtf.core.review.costs import Cost
    from mtf.core.vocabulary.jobs import Resources


def cost_text(cost: Cost) -> str:
    """Return a cost like ``48 GPU-h, 96 CPU-h``, or the reason why it has no upper bound."""
    if cost.gpu_hours is None:
        return "no bound: slurm.time is not set"
    gpu_text = f"{_hours(cost.gpu_hours)} GPU-h" if cost.gpu_hours else ""
    if cost.cpu_hours is None:
        if gpu_text:
            return f"{gpu_text}, CPU-h without bound"
        return "no bound: slurm.time is not set, or slurm.extra asks for whole nodes"
    return ", ".join(filter(None, [gpu_text, f"{_hours(cost.cpu_hours)} CPU-h"]))


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 1000 else f"{hours:.4g}"


def resources_text(needs: Resources) -> str:
    """Return the resources of one run, like ``1 node, 4 GPU, 8 CPU, 64G, 12:00:00``."""
    cores = cpus(needs)
    parts = [
        count(needs["nodes"], "node"),
        f"{gpus(needs)} GPU" if gpus(needs) else "",
        f"{cores} CPU" if cores else "",
        needs["mem"],
        needs["time"],
        f"partition {needs['partition']}" if needs["partition"] else "",
    ]
    return ", ".join(part for part in parts if part)
