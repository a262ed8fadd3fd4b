"""The ``cluster`` section of ``mtf.yaml``: its name, and facts that ``mtf doctor --write`` adds."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from mtf.core.sbatch.demand import memory_mb
from mtf.core.vocabulary.cluster import ClusterFacts, NodeShape, Partition
from mtf.core.vocabulary.times import time_limit_s
from mtf.spec.schema.slurm_values import Memory, Time
from mtf.spec.schema.strict import Strict
from mtf.spec.schema.text_types import Name, Word

Count = Annotated[int, Field(ge=1)]


class NodeFacts(Strict):
    """Equal nodes of a partition."""

    count: Count = 1
    """Number of these nodes."""
    cpus: Count
    """CPUs of each node."""
    mem: Memory
    """Memory of each node."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """GPUs of each node."""


class PartitionFacts(Strict):
    """A partition of the cluster."""

    default: bool = False
    """True: jobs without a partition go here."""
    time: Time | None = None
    """Longest time limit; null: unlimited."""
    max_nodes: Count | None = None
    """Most nodes of one job; null: all."""
    accounts: list[Word] | None = None
    """Accounts that may use it; null: all."""
    qos: list[Word] | None = None
    """Qualities of service that may be used here; null: all."""
    nodes: list[NodeFacts] = Field(default_factory=list)
    """Its nodes, equal ones together."""


class Cluster(Strict):
    """The cluster that this controller serves. May be given as its name alone."""

    name: Name = "default"
    """Name of the cluster in specs and records."""
    partitions: dict[Word, PartitionFacts] = Field(default_factory=dict)
    """Its partitions. Without them, the resources of specs are not checked."""
    accounts: list[Word] | None = None
    """Accounts that may be charged; null: any."""
    qos: list[Word] | None = None
    """Qualities of service that may be used; null: any."""
    max_array_size: Count | None = None
    """Array indices must be lower than this (MaxArraySize)."""
    max_submit_jobs: Count | None = None
    """Jobs that one user may have, waiting and running (MaxSubmitJobs)."""

    def facts(self) -> ClusterFacts | None:
        """Return the facts that this section gives, None if it gives none."""
        if not self.partitions:
            return None
        return ClusterFacts(
            partitions=tuple(_partition(*item) for item in self.partitions.items()),
            accounts=_frozen(self.accounts),
            qos=_frozen(self.qos),
            max_array_size=self.max_array_size,
            max_submit_jobs=self.max_submit_jobs,
        )


def as_mapping(value: object) -> object:
    """Return the section as a mapping, also where the file gives a name alone."""
    return {"name": value} if isinstance(value, str) else value


def _partition(name: str, given: PartitionFacts) -> Partition:
    return Partition(
        name=name,
        nodes=tuple(NodeShape(n.count, n.cpus, memory_mb(n.mem), n.gpus) for n in given.nodes),
        is_default=given.default,
        max_time_s=None if given.time is None else limit_s(given.time),
        max_nodes=given.max_nodes,
        accounts=_frozen(given.accounts),
        qos=_frozen(given.qos),
    )


def _frozen(names: list[str] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)


def limit_s(text: str) -> int | None:
    """Return a time limit in seconds, None if it is unlimited."""
    return time_limit_s(text) if text[0].isdigit() else None


def as_section(name: str, facts: ClusterFacts) -> dict[str, Any]:
    """Return the ``cluster`` section for a cluster's facts; unlimited values are left out."""
    section = {
        "name": name,
        "partitions": {p.name: _partition_section(p) for p in facts.partitions},
        "accounts": _listed(facts.accounts),
        "qos": _listed(facts.qos),
        "max_array_size": facts.max_array_size,
        "max_submit_jobs": facts.max_submit_jobs,
    }
    return _without_none(section)


def _partition_section(partition: Partition) -> dict[str, Any]:
    limit = partition.max_time_s
    section = {
        "default": partition.is_default or None,
        "time": None if limit is None else _time_limit(limit),
        "max_nodes": partition.max_nodes,
        "accounts": _listed(partition.accounts),
        "qos": _listed(partition.qos),
        "nodes": [
            {"count": n.count, "cpus": n.cpus, "mem": f"{n.memory_mb}M", "gpus": n.gpus}
            for n in partition.nodes
        ],
    }
    return _without_none(section)


def _time_limit(seconds: int) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days}-{hours:02}:{minutes:02}:{rest:02}"


def _listed(names: frozenset[str] | None) -> list[str] | None:
    return None if names is None else sorted(names)


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
