"""What runs ask for and may cost, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtf.core.review.costs import cpus, gpus
from mtf.report.tables import count

if TYPE_CHECKING:
    from mtf.core.review.costs import Cost
    from mtf.core.vocabulary.jobs import Resources


def cost_text(cost: Cost) -> str:
    """Return ``48 GPU-h, 96 CPU-h``, or why there is no bound."""
    if cost.gpu_hours is None:
        return "no bound: slurm.time is not set"
    held = f"{_hours(cost.gpu_hours)} GPU-h" if cost.gpu_hours else ""
    if cost.cpu_hours is None:
        if held:
            return f"{held}, CPU-h without bound"
        return "no bound: slurm.time is not set, or slurm.extra takes whole nodes"
    return ", ".join(filter(None, [held, f"{_hours(cost.cpu_hours)} CPU-h"]))


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 1000 else f"{hours:.4g}"


def resources_text(needs: Resources) -> str:
    """Return what one run holds, and for how long."""
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
