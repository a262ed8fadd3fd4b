"""``cluster`` in ``mtf.yaml``: its name, and what ``mtf doctor --write`` has found out about it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from mtf.core.vocabulary.cluster import ClusterFacts, NodeShape, Partition
from mtf.core.vocabulary.times import time_limit_s
from mtf.spec.schema.slurm_section import Memory, Time
from mtf.spec.schema.strict import Strict
from mtf.spec.schema.text_types import Name, Word

Count = Annotated[int, Field(ge=1)]
_UNITS = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024 * 1024}


class NodeFacts(Strict):
    """Nodes that are alike."""

    count: Count = 1
    """How many there are."""
    cpus: Count
    """CPUs of each."""
    mem: Memory
    """Memory of each."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """GPUs of each."""


class PartitionFacts(Strict):
    """One partition."""

    default: bool = False
    """Whether jobs that name no partition go there."""
    time: Time | None = None
    """Longest time limit; null: none."""
    max_nodes: Count | None = None
    """Nodes that one job may have; null: all."""
    accounts: list[Word] | None = None
    """Accounts that may use it; null: all."""
    qos: list[Word] | None = None
    """Qualities of service that may be used in it; null: all."""
    nodes: list[NodeFacts] = Field(default_factory=list)
    """Its nodes, those that are alike together."""


class Cluster(Strict):
    """The cluster that this controller serves; its name alone stands for all of it."""

    name: Name = "default"
    """What specs and records call it."""
    partitions: dict[Word, PartitionFacts] = Field(default_factory=dict)
    """Its partitions; none: what specs ask for is not held against anything."""
    accounts: list[Word] | None = None
    """Accounts that may be charged; null: any."""
    qos: list[Word] | None = None
    """Qualities of service there are; null: any."""
    max_array_size: Count | None = None
    """Array indices are below it (MaxArraySize)."""
    max_submit_jobs: Count | None = None
    """Jobs that one user may have there, waiting and running (MaxSubmitJobs)."""

    def facts(self) -> ClusterFacts | None:
        """Return what is written down here, None for nothing."""
        if not self.partitions:
            return None
        return ClusterFacts(
            partitions=tuple(_partition(name, one) for name, one in self.partitions.items()),
            accounts=_frozen(self.accounts),
            qos=_frozen(self.qos),
            max_array_size=self.max_array_size,
            max_submit_jobs=self.max_submit_jobs,
        )


def named(value: object) -> object:
    """Return the section, where a name alone stands for it."""
    return {"name": value} if isinstance(value, str) else value


def _partition(name: str, one: PartitionFacts) -> Partition:
    return Partition(
        name=name,
        nodes=tuple(NodeShape(n.count, n.cpus, memory_mb(n.mem), n.gpus) for n in one.nodes),
        is_default=one.default,
        max_time_s=None if one.time is None else limit_s(one.time),
        max_nodes=one.max_nodes,
        accounts=_frozen(one.accounts),
        qos=_frozen(one.qos),
    )


def _frozen(names: list[str] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)


def memory_mb(text: str) -> int:
    """Return an amount of memory like ``2G`` or ``800`` in MiB."""
    number, unit = (text, "M") if text[-1].isdigit() else (text[:-1], text[-1])
    return int(int(number) * _UNITS[unit])


def limit_s(text: str) -> int | None:
    """Return a time limit in seconds, None where there is none."""
    return time_limit_s(text) if text[0].isdigit() else None


def as_section(name: str, facts: ClusterFacts) -> dict[str, Any]:
    """Return the section that says of a cluster what is known; what has no limit is left out."""
    partitions = {one.name: _said_of(one) for one in facts.partitions}
    return _without_none({
        "name": name,
        "partitions": partitions,
        "accounts": _listed(facts.accounts),
        "qos": _listed(facts.qos),
        "max_array_size": facts.max_array_size,
        "max_submit_jobs": facts.max_submit_jobs,
    })  # fmt: skip


def _said_of(one: Partition) -> dict[str, Any]:
    return _without_none({
        "default": one.is_default or None,
        "time": None if one.max_time_s is None else _spelled(one.max_time_s),
        "max_nodes": one.max_nodes,
        "accounts": _listed(one.accounts),
        "qos": _listed(one.qos),
        "nodes": [
            {"count": n.count, "cpus": n.cpus, "mem": f"{n.memory_mb}M", "gpus": n.gpus}
            for n in one.nodes
        ],
    })  # fmt: skip


def _spelled(seconds: int) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days}-{hours:02}:{minutes:02}:{rest:02}"


def _listed(names: frozenset[str] | None) -> list[str] | None:
    return None if names is None else sorted(names)


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
