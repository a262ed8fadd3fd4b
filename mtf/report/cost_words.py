"""The resources of runs, asked for and used, and their cost in GPU and CPU hours, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtf.core.sbatch.section_options import section_demand
from mtf.core.usage.advice import cpus_used, memory_text
from mtf.core.usage.used import GPU_MEMORY_MB, GPU_PERCENT, MEMORY_MB, RUN_S, WAIT_S
from mtf.core.vocabulary.times import duration
from mtf.report.tables import count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from mtf.core.review.costs import Cost
    from mtf.core.sbatch.demand import Demand
    from mtf.core.vocabulary.jobs import Resources
    from mtf.core.vocabulary.records import RunRecord


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


def used_text(used: Mapping[str, float]) -> str:
    """Return a line like ``waited 2 min, ran 1 h 3 min, memory 4.1G at most, 3.2 CPUs busy``."""
    texts: tuple[tuple[str, Callable[[float], str]], ...] = (
        (WAIT_S, lambda n: f"waited {duration(n)}"),
        (RUN_S, lambda n: f"ran {duration(n)}"),
        (MEMORY_MB, lambda n: f"memory {memory_text(n)} at most"),
        (GPU_MEMORY_MB, lambda n: f"GPU memory {memory_text(n)} at most"),
        (GPU_PERCENT, lambda n: f"GPU {n:.0f}% busy"),
    )
    parts = [text(used[name]) for name, text in texts if name in used]
    cpus = cpus_used(used)
    return ", ".join([*parts, *([f"{cpus:.2g} CPUs busy"] if cpus is not None else [])])


def used_columns(records: Iterable[RunRecord]) -> dict[str, Callable[[RunRecord], str]]:
    """Return the columns of a table of results, those of which something is known."""
    columns: dict[str, Callable[[RunRecord], str]] = {}
    known = {name for record in records for name in record.resources or ()}
    for name, title, text in (
        (RUN_S, "RAN", duration),
        (MEMORY_MB, "MEMORY", memory_text),
        (GPU_MEMORY_MB, "GPU MEMORY", memory_text),
    ):
        if name in known:
            columns[title] = _cell(name, text)
    return columns


def _cell(name: str, text: Callable[[float], str]) -> Callable[[RunRecord], str]:
    def cell(record: RunRecord) -> str:
        used = record.resources or {}
        return text(used[name]) if name in used else ""

    return cell
