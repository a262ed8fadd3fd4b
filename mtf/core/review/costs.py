"""The greatest cost of runs in GPU-hours and CPU-hours, from the resources they ask for. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtf.core.vocabulary.times import time_limit_s

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mtf.core.vocabulary.jobs import Resources

_GRES = re.compile(r"gpu(?::[A-Za-z][^:,]*)?(?::(\d+))?(?:\([^)]*\))?")
_GPUS = re.compile(r"(?:[^:,]+:)?(\d+)")
_OPTION = re.compile(r"--([a-z0-9-]+)(?:=(.*))?")
# `slurm.extra` options, or prefixes of them, by which a job gets more CPUs than it names
_UNCOUNTED = (
    "exclusive",
    "mincpus",
    "cpus-per-gpu",
    "cores-per-socket",
    "sockets-per-node",
    "gpus-per-socket",
    "ntasks-per-gpu",
    "ntasks-per-core",
    "ntasks-per-socket",
    "tres-per-task",
)


@dataclass(frozen=True)
class Cost:
    """An upper bound for one attempt of each run; None: no limit is known."""

    gpu_hours: float | None
    cpu_hours: float | None


def total_cost(runs: Iterable[Resources]) -> Cost:
    """Return the total cost of these runs. Members of a grid mostly share one object."""
    gpu_hours: float | None = 0.0
    cpu_hours: float | None = 0.0
    known: dict[int, Cost] = {}
    for needs in runs:
        cost = known.get(id(needs)) or known.setdefault(id(needs), cost_of(needs))
        gpu_hours = _sum(gpu_hours, cost.gpu_hours)
        cpu_hours = _sum(cpu_hours, cost.cpu_hours)
    return Cost(gpu_hours, cpu_hours)


def cost_of(needs: Resources) -> Cost:
    """Return the greatest cost of one attempt of one run."""
    hours, number = hours_of(needs), gpus(needs)
    return Cost(
        gpu_hours=0.0 if number == 0 else _times(hours, number),
        cpu_hours=_times(hours, cpus(needs)),
    )


def hours_of(needs: Resources) -> float | None:
    """Return the time limit in hours, None where there is none."""
    limit = needs["time"]
    if limit is None or not limit[0].isdigit():  # UNLIMITED
        return None
    return time_limit_s(limit) / 3600


def gpus(needs: Resources) -> int:
    """Return the number of GPUs of one run, with those that ``extra`` options ask for."""
    nodes, tasks = needs["nodes"], needs["nodes"] * needs["ntasks_per_node"]
    number = nodes * needs["gpus_per_node"]
    for name, value in _options(needs):
        if "gres".startswith(name):
            parts = (_GRES.fullmatch(part) for part in value.split(","))
            number = max(number, nodes * sum(int(part[1] or 1) for part in parts if part))
        elif "gpus-per-task".startswith(name) and (found := _GPUS.fullmatch(value)):
            number = max(number, tasks * int(found[1]))
    return number


def cpus(needs: Resources) -> int | None:
    """Return the number of CPUs of one run, None if an ``extra`` option leaves it open."""
    if any(option.startswith(name) for name, _ in _options(needs) for option in _UNCOUNTED):
        return None
    return needs["nodes"] * needs["ntasks_per_node"] * needs["cpus_per_task"]


def _options(needs: Resources) -> list[tuple[str, str]]:
    found = (_OPTION.fullmatch(option) for option in needs["extra"])
    return [(option[1], option[2] or "") for option in found if option]


def _sum(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a + b


def _times(hours: float | None, units: int | None) -> float | None:
    return None if hours is None or units is None else hours * units
