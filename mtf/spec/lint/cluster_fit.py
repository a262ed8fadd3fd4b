"""Finds resources in specs that the cluster cannot give: unknown partitions, exceeded limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from mtf.core.sbatch.demand import memory_mb
from mtf.core.sbatch.section_options import (
    EXPEDITE,
    knows_expedite,
    no_expedite,
    section_demand,
)
from mtf.core.vocabulary import json_text
from mtf.core.vocabulary.spelling import did_you_mean
from mtf.core.vocabulary.times import duration
from mtf.errors import Problem
from mtf.spec.lint.key_positions import position_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mtf.core.vocabulary.cluster import ClusterFacts, NodeShape, Partition
    from mtf.core.vocabulary.experiments import Desired
    from mtf.core.vocabulary.jobs import Resources

Finding = tuple[str, str]  # a field of the slurm section, the message


def unmet(desired: Desired, facts: ClusterFacts) -> Iterator[Problem]:
    """Yield a problem for each resource that the cluster lacks, at the value that asks for it."""
    for resources in distinct_resources(desired):
        for field, message in findings(resources, facts):
            value = dict(resources)[field]
            position = position_of(desired.places, f"slurm.{field}={json_text.dumps(value)}")
            kind = _severity(field, facts)
            yield Problem(*position, f"slurm.{field}: {message} ({facts.source})", kind)
    yield from _too_many_runs(desired, facts)


def distinct_resources(desired: Desired) -> list[Resources]:
    """Return the different resources that a spec's runs ask for."""
    by_id = {id(e.resources): e.resources for e in desired.experiments}
    return list({json_text.dumps(r, sort_keys=True): r for r in by_id.values()}.values())


def findings(resources: Resources, facts: ClusterFacts) -> Iterator[Finding]:
    """Yield each thing that the cluster lacks: the partition, the account, large enough nodes."""
    names = [partition.name for partition in facts.partitions]
    for name in (resources["partition"] or "").split(","):
        if name and name not in names:
            yield "partition", f"unknown partition {name!r}. {did_you_mean(name, names)}".rstrip()
    if resources["requeue"] == EXPEDITE and not knows_expedite(facts.version):
        yield "requeue", no_expedite(facts.version).removeprefix("slurm.requeue: ")
    yield from _account_and_qos(resources, facts)
    partitions = facts.chosen(resources["partition"])
    if partitions:
        yield from _in_any_partition(resources, partitions)


def _severity(field: str, facts: ClusterFacts) -> Literal["error", "warning"]:
    """Return the severity: accounts and QOS in mtf.yaml may be those of another user."""
    return "error" if facts.is_live or field not in {"account", "qos"} else "warning"


def _account_and_qos(resources: Resources, facts: ClusterFacts) -> Iterator[Finding]:
    account, qos = resources["account"], resources["qos"]
    if account is not None and facts.accounts is not None and account not in facts.accounts:
        yield (
            "account",
            f"you may not use account {account!r}. {did_you_mean(account, facts.accounts)}",
        )
    if qos is not None and facts.qos is not None and qos not in facts.qos:
        yield "qos", f"you may not use QOS {qos!r}. {did_you_mean(qos, facts.qos)}"


def _in_any_partition(resources: Resources, partitions: list[Partition]) -> Iterator[Finding]:
    """Yield the findings for the last partition, nothing if any of them can run the job."""
    found: list[Finding] = []
    for partition in partitions:
        found = list(_in_partition(resources, partition))
        if not found:
            return
    yield from found


def _in_partition(resources: Resources, partition: Partition) -> Iterator[Finding]:
    demand = section_demand(resources)
    name, nodes, hours = partition.name, resources["nodes"], demand.hours
    longest = partition.max_time_s
    if longest is not None and hours is not None and hours * 3600 > longest:
        asked = duration(hours * 3600)
        yield "time", f"asked for {asked}, partition {name} allows {duration(longest)}"
    if longest is not None and (resources["time"] or "").upper() == "UNLIMITED":
        yield "time", f"asked for no limit, partition {name} allows {duration(longest)}"
    if partition.max_nodes is not None and nodes > partition.max_nodes:
        most = partition.max_nodes
        yield "nodes", f"asked for {nodes}, partition {name} allows {most} for each job"
    account, qos = resources["account"], resources["qos"]
    if account and partition.accounts is not None and account not in partition.accounts:
        near = did_you_mean(account, partition.accounts)
        yield "account", f"{account!r} may not use partition {name}. {near}"
    if qos and partition.qos is not None and qos not in partition.qos:
        yield (
            "qos",
            f"{qos!r} is not allowed in partition {name}. {did_you_mean(qos, partition.qos)}",
        )
    if partition.nodes:
        yield from _on_nodes(resources, partition)


def _on_nodes(resources: Resources, partition: Partition) -> Iterator[Finding]:
    """Yield the first resource that no node has, or that too few nodes have."""
    fitting, name = list(partition.nodes), partition.name
    for field, wanted, unit in _per_node(resources):
        most = max(_capacity(field, node) for node in fitting)
        fitting = [node for node in fitting if _capacity(field, node) >= wanted]
        if not fitting:
            yield (
                field,
                f"asked for {wanted:,} {unit} on each node, partition {name} has {most:,} at most",
            )
            return
    number = sum(node.count for node in fitting)
    if number < resources["nodes"]:
        asked = resources["nodes"]
        yield "nodes", f"asked for {asked}, partition {name} has {number} that are large enough"


def _per_node(resources: Resources) -> Iterator[tuple[str, int, str]]:
    nodes, demand = resources["nodes"], section_demand(resources)
    cores = demand.cpus
    if devices := (demand.gpus or 0) // nodes:
        yield "gpus_per_node", devices, "GPU"
    if cores is not None:
        more_tasks = resources["ntasks_per_node"] > resources["cpus_per_task"]
        yield "ntasks_per_node" if more_tasks else "cpus_per_task", cores // nodes, "CPU"
    if resources["mem"] is not None:
        yield "mem", memory_mb(resources["mem"]), "MiB"


def _capacity(field: str, node: NodeShape) -> int:
    if field == "gpus_per_node":
        return node.gpus
    return node.memory_mb if field == "mem" else node.cpus


def _too_many_runs(desired: Desired, facts: ClusterFacts) -> Iterator[Problem]:
    """Yield a warning if a grid is too large for the user's limit and is submitted in parts."""
    number, most = len(desired.experiments), facts.max_submit_jobs
    if most is not None and number > most:
        message = (
            f"{desired.name} has {number:,} runs, the cluster accepts {most:,} jobs of a user at a"
            f" time ({facts.source}): later syncs submit the rest"
        )
        yield Problem(*position_of(desired.places, ""), message, "warning")
