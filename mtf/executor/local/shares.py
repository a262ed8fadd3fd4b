"""Shares of this machine: what a job needs, what is free, and why a job waits. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mtf.core.sbatch.demand import gpu_count, memory_mb
from mtf.core.sbatch.section_options import section_demand

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from mtf.core.vocabulary.jobs import Resources

_KEYS = {"GPU": "local.gpus", "CPU": "local.cpus", "memory": "local.mem"}


@dataclass(frozen=True)
class Needs:
    """The GPUs, CPUs and memory that one job asks for."""

    gpus: int = 0
    cpus: int = 1
    memory_mb: int = 0  # 0: it does not say


@dataclass(frozen=True)
class Machine:
    """A machine, or the free part of one. GPUs by their names in CUDA_VISIBLE_DEVICES."""

    gpus: tuple[str, ...]
    cpus: int
    memory_mb: int

    def has(self, needs: Needs) -> bool:
        """Return True if a job with these needs fits."""
        return not any(_lacks(needs, self))

    def without(self, needs: Needs, gpus: Collection[str]) -> Machine:
        """Return the part that is left beside a job that uses these GPUs."""
        left = tuple(name for name in self.gpus if name not in gpus)
        return Machine(left, self.cpus - needs.cpus, self.memory_mb - needs.memory_mb)

    def reserved_for(self, needs: Needs) -> Machine:
        """Return the part that other jobs may take while a job with these needs waits.

        Of each resource that it lacks nothing is left, so that it is not overtaken for ever.
        """
        return self.without(needs, self.gpus[: needs.gpus])


def needs_of(resources: Resources, machine_mb: int) -> Needs:
    """Return the needs of a run. ``mem: 0`` is all of the machine's memory."""
    demand = section_demand(resources)
    gpus, cpus, memory = demand.gpus, demand.cpus, demand.memory_mb
    if gpus is None:
        gpus = gpu_count(resources["gpus_per_node"])
    if cpus is None:
        cpus = resources["cpus_per_task"] * resources["ntasks_per_node"]
    if resources["mem"] and memory_mb(resources["mem"]) == 0:
        memory = machine_mb
    return Needs(gpus, cpus, memory or 0)


def excess(needs: Needs, nodes: int, machine: Machine) -> str:
    """Return the reason why a job can never run on a machine, or an empty text."""
    if nodes > 1:
        return f"slurm.nodes: {nodes}, and the local executor has this machine alone"
    found = [
        f"asks for {_amount(what, asked)}, this machine has {_amount(what, there)} ({_KEYS[what]})"
        for what, asked, there in _lacks(needs, machine)
    ]
    return "; ".join(found)


def waits_for(needs: Needs, free: Machine) -> str:
    """Return the reason of a waiting job, like ``needs 2 GPUs, 1 free``, or an empty text."""
    found = (
        f"{_amount(what, asked)}, {_amount(what, max(there, 0), bare=True)} free"
        for what, asked, there in _lacks(needs, free)
    )
    text = "; ".join(found)
    return f"needs {text}" if text else ""


def free_of(machine: Machine, running: Iterable[tuple[Needs, Collection[str]]]) -> Machine:
    """Return the part of a machine that running jobs leave."""
    for needs, gpus in running:
        machine = machine.without(needs, gpus)
    return machine


def without_gpus(machine: Machine, names: Collection[str]) -> Machine:
    """Return a machine without the GPUs that something else uses."""
    return replace(machine, gpus=tuple(name for name in machine.gpus if name not in names))


def _lacks(needs: Needs, machine: Machine) -> Iterator[tuple[str, int, int]]:
    """Yield each resource that does not suffice, with what is asked for and what there is."""
    pairs = (
        ("GPU", needs.gpus, len(machine.gpus)),
        ("CPU", needs.cpus, machine.cpus),
        ("memory", needs.memory_mb, machine.memory_mb),
    )
    yield from ((what, asked, there) for what, asked, there in pairs if asked > there and asked)


def _amount(what: str, number: int, *, bare: bool = False) -> str:
    if what == "memory":
        size = f"{number / 1024:.4g}G" if number >= 1024 else f"{number}M"
        return size if bare else f"{size} of memory"
    return str(number) if bare else f"{number} {what}{'' if number == 1 else 's'}"
