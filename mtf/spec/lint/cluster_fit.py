"""What specs ask of the cluster, held against what is known of it. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

from mtf.core.review.costs import cpus, gpus, hours_of
from mtf.core.vocabulary.spelling import did_you_mean
from mtf.core.vocabulary.times import duration
from mtf.errors import Problem
from mtf.spec.lint.key_positions import position_of
from mtf.spec.schema.cluster_section import memory_mb

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mtf.core.vocabulary.cluster import ClusterFacts, NodeShape, Partition
    from mtf.core.vocabulary.experiments import Desired
    from mtf.core.vocabulary.jobs import Resources

Finding = tuple[str, str]  # a field of the slurm section, and what about it


def unmet(desired: Desired, facts: ClusterFacts) -> Iterator[Problem]:
    """Yield what the cluster cannot give a spec, at the values that ask for it."""
    for needs in shapes(desired):
        for field, message in findings(needs, facts):
            value = needs[field]  # type: ignore[literal-required]
            position = position_of(desired.places, f"slurm.{field}={json.dumps(value)}")
            kind = _severity(field, facts)
            yield Problem(*position, f"slurm.{field}: {message} ({facts.source})", kind)
    yield from _numbers(desired, facts)


def shapes(desired: Desired) -> list[Resources]:
    """Return the different resources that a spec's runs ask for."""
    by_id = {id(one.resources): one.resources for one in desired.experiments}
    return list({json.dumps(needs, sort_keys=True): needs for needs in by_id.values()}.values())


def findings(needs: Resources, facts: ClusterFacts) -> Iterator[Finding]:
    """Yield what is wrong with resources: no such partition, no node large enough, and so on."""
    names = [one.name for one in facts.partitions]
    for name in (needs["partition"] or "").split(","):
        if name and name not in names:
            yield (
                "partition",
                f"there is no partition {name!r}. {did_you_mean(name, names)}".rstrip(),
            )
    yield from _charged(needs, facts)
    partitions = facts.chosen(needs["partition"])
    if partitions:
        yield from _first_that_fits(needs, partitions)


def _severity(field: str, facts: ClusterFacts) -> Literal["error", "warning"]:
    """Return how sure a finding is: accounts written down are those of whoever wrote them."""
    return "error" if facts.is_live or field not in {"account", "qos"} else "warning"


def _charged(needs: Resources, facts: ClusterFacts) -> Iterator[Finding]:
    account, qos = needs["account"], needs["qos"]
    if account is not None and facts.accounts is not None and account not in facts.accounts:
        yield "account", f"you may not charge {account!r}. {did_you_mean(account, facts.accounts)}"
    if qos is not None and facts.qos is not None and qos not in facts.qos:
        yield "qos", f"there is no {qos!r} for you. {did_you_mean(qos, facts.qos)}"


def _first_that_fits(needs: Resources, partitions: list[Partition]) -> Iterator[Finding]:
    """Yield nothing where one of the partitions can run it, else what hinders the last."""
    found: list[Finding] = []
    for partition in partitions:
        found = list(_in_partition(needs, partition))
        if not found:
            return
    yield from found


def _in_partition(needs: Resources, partition: Partition) -> Iterator[Finding]:
    name, nodes, hours = partition.name, needs["nodes"], hours_of(needs)
    longest = partition.max_time_s
    if longest is not None and hours is not None and hours * 3600 > longest:
        yield "time", f"{duration(hours * 3600)}, {name} gives at most {duration(longest)}"
    if longest is not None and (needs["time"] or "").upper() == "UNLIMITED":
        yield "time", f"no limit, {name} gives at most {duration(longest)}"
    if partition.max_nodes is not None and nodes > partition.max_nodes:
        yield "nodes", f"{nodes}, {name} gives a job at most {partition.max_nodes}"
    account, qos = needs["account"], needs["qos"]
    if account and partition.accounts is not None and account not in partition.accounts:
        yield (
            "account",
            f"{account!r} may not use {name}. {did_you_mean(account, partition.accounts)}",
        )
    if qos and partition.qos is not None and qos not in partition.qos:
        yield "qos", f"{qos!r} is not allowed in {name}. {did_you_mean(qos, partition.qos)}"
    if partition.nodes:
        yield from _on_nodes(needs, partition)


def _on_nodes(needs: Resources, partition: Partition) -> Iterator[Finding]:
    """Yield the first thing that no node, or not enough of them, can give."""
    fitting, name = list(partition.nodes), partition.name
    for field, wanted, unit in _of_each_node(needs):
        most = max(_given(field, node) for node in fitting)
        fitting = [node for node in fitting if _given(field, node) >= wanted]
        if not fitting:
            yield (
                field,
                f"{wanted:,} {unit} on one node, the largest that fits in {name} has {most:,}",
            )
            return
    number = sum(node.count for node in fitting)
    if number < needs["nodes"]:
        yield "nodes", f"{needs['nodes']}, {name} has {number} that are large enough"


def _of_each_node(needs: Resources) -> Iterator[tuple[str, int, str]]:
    nodes, cores = needs["nodes"], cpus(needs)
    if held := gpus(needs) // nodes:
        yield "gpus_per_node", held, "GPU"
    if cores is not None:
        several = needs["ntasks_per_node"] > needs["cpus_per_task"]
        yield "ntasks_per_node" if several else "cpus_per_task", cores // nodes, "CPU"
    if needs["mem"] is not None:
        yield "mem", memory_mb(needs["mem"]), "MiB"


def _given(field: str, node: NodeShape) -> int:
    if field == "gpus_per_node":
        return node.gpus
    return node.memory_mb if field == "mem" else node.cpus


def _numbers(desired: Desired, facts: ClusterFacts) -> Iterator[Problem]:
    """Yield that a grid goes to the cluster in parts: it is submitted all the same."""
    number, most = len(desired.experiments), facts.max_submit_jobs
    if most is not None and number > most:
        message = (
            f"{desired.name} has {number:,} runs, the cluster takes {most:,} jobs of a user at a"
            f" time ({facts.source}): later syncs submit the rest"
        )
        yield Problem(*position_of(desired.places, ""), message, "warning")
