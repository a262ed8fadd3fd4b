"""Facts about a cluster: its partitions, nodes, accounts, QOS and limits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NodeShape:
    """Identical nodes of a partition."""

    count: int
    cpus: int
    memory_mb: int
    gpus: int = 0


@dataclass(frozen=True)
class Partition:
    """One partition. None: no limit, or everybody."""

    name: str
    nodes: tuple[NodeShape, ...]
    is_default: bool = False
    max_time_s: int | None = None
    max_nodes: int | None = None
    accounts: frozenset[str] | None = None  # that may use it
    qos: frozenset[str] | None = None


@dataclass(frozen=True)
class ClusterFacts:
    """A cluster as its SLURM describes it. None: not known, or no limit."""

    partitions: tuple[Partition, ...]
    accounts: frozenset[str] | None = None  # that this user may charge, if SLURM enforces them
    qos: frozenset[str] | None = None
    max_array_size: int | None = None  # array indices are below it
    max_submit_jobs: int | None = None  # of one user, waiting and running
    version: str = ""  # of SLURM; empty: not known
    is_live: bool = False  # asked of SLURM now; False: read from mtf.yaml

    @property
    def source(self) -> str:
        """Return the source of these facts, for people."""
        return "SLURM" if self.is_live else "cluster: in mtf.yaml"

    def chosen(self, names: str | None) -> list[Partition]:
        """Return the partitions that a job may run in: those named, or the default one."""
        if names is None:
            return [partition for partition in self.partitions if partition.is_default]
        wanted = names.split(",")
        return [partition for partition in self.partitions if partition.name in wanted]
