"""Parses what jobs have used from the output of sacct. Pure.

sacct prints a line for the allocation, and one for each step: ``batch`` (the script), ``extern``
(what else ran on the nodes) and numbered ones (each ``srun``). Only steps have memory.
"""

from __future__ import annotations

import re
from collections import defaultdict
from math import ceil
from typing import TYPE_CHECKING

from mtf.core.usage.used import CPU_S, GPU_MEMORY_MB, GPU_PERCENT, MEMORY_MB, sound
from mtf.core.vocabulary.ids import JobId, is_job_id
from mtf.executor.slurm.job_text import SEPARATOR, number_in

if TYPE_CHECKING:
    from collections.abc import Mapping

USAGE_FIELDS = (
    "JobID",
    "TotalCPU",
    "MaxRSS",
    "NTasks",
    "NNodes",
    "TRESUsageInMax",
    "TRESUsageInTot",
    "TRESUsageInAve",
)
_AROUND = ("batch", "extern")  # steps that last as long as the job
_UNITS = {"": 1 / 1024**2, "K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0**2}  # in MiB
_AMOUNT = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)([KMGT]?)")
_SPAN = re.compile(r"(?:(?:([0-9]{1,6})-)?([0-9]{1,3}):)?([0-9]{1,3}):([0-9]{1,3}(?:\.[0-9]+)?)")


def parse_usage(printed: str) -> dict[JobId, Mapping[str, float]]:
    """Return the resources that each job has used, from ``sacct`` with ``USAGE_FIELDS``.

    Lines and fields that cannot be read are left out.
    """
    found: dict[JobId, dict[str, float]] = defaultdict(dict)
    memory: dict[JobId, dict[bool, list[float]]] = defaultdict(lambda: {True: [], False: []})
    for line in printed.splitlines():
        fields = line.split(SEPARATOR)[: len(USAGE_FIELDS)]
        name, _, step = fields[0].partition(".")
        if len(fields) < len(USAGE_FIELDS) or not is_job_id(name):
            continue
        job = JobId(name)
        if not step:
            _keep_greatest(found[job], CPU_S, _seconds(fields[1]))
            continue
        most, average = _tres(fields[5]), _tres(fields[7])
        if (mb := _step_memory(fields, most)) is not None:
            memory[job][step in _AROUND].append(mb)
        _keep_greatest(found[job], GPU_MEMORY_MB, _mib(most.get("gres/gpumem", "")))
        _keep_greatest(found[job], GPU_PERCENT, _mib(f"{average.get('gres/gpuutil', '')}M"))
    for job, steps in memory.items():
        # numbered steps follow each other, beside those that last as long as the job
        found[job][MEMORY_MB] = sum(steps[True]) + max(steps[False], default=0.0)
    return {job: used for job, values in found.items() if (used := sound(values))}


def _step_memory(fields: list[str], most: Mapping[str, str]) -> float | None:
    """Return the memory of a step on one node, in MiB: that of all of its tasks there.

    SLURM keeps the greatest task, and the sum of all tasks.
    """
    greatest = _mib(fields[2]) or _mib(most.get("mem", ""))
    if greatest is None:
        return None
    tasks, nodes = number_in(fields[3]) or 1, number_in(fields[4]) or 1
    on_node = greatest * ceil(tasks / nodes)
    total = _mib(_tres(fields[6]).get("mem", ""))
    return on_node if total is None else min(on_node, max(total, greatest))


def _keep_greatest(values: dict[str, float], name: str, amount: float | None) -> None:
    if amount is not None:
        values[name] = max(values.get(name, 0.0), amount)


def _tres(text: str) -> dict[str, str]:
    """Return the amounts in a list like ``cpu=00:00:05,mem=320492K,gres/gpuutil=37``."""
    return dict(part.split("=", 1) for part in text.split(",") if "=" in part)


def _mib(text: str) -> float | None:
    """Return an amount like ``320492K`` or ``1.5G`` in MiB; without a unit, it is in bytes."""
    found = _AMOUNT.fullmatch(text)
    return float(found[1]) * _UNITS[found[2]] if found else None


def _seconds(text: str) -> float | None:
    """Return a span like ``1-02:03:04`` or ``00:01.250`` in seconds."""
    found = _SPAN.fullmatch(text)
    if found is None:
        return None
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
