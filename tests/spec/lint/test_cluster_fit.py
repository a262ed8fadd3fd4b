"""Resources of specs against the facts of a cluster."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf.core.vocabulary.cluster import ClusterFacts, NodeShape, Partition
from mtf.spec.lint.cluster_fit import unmet
from mtf.spec.schema.cluster_section import Cluster, as_section
from tests.spec.samples import BASE, EXPERIMENT, load

FACTS = ClusterFacts(
    partitions=(
        Partition("low", (NodeShape(3, 4, 8000), NodeShape(1, 16, 64_000)), True, 86400, 3),
        Partition("gpu", (NodeShape(2, 32, 256_000, 4),), accounts=frozenset({"lab"}),
                  qos=frozenset({"normal"})),
    ),
    accounts=frozenset({"lab", "class"}),
    qos=frozenset({"normal", "high"}),
    max_array_size=1001,
    max_submit_jobs=10,
    is_live=True,
)  # fmt: skip


def problems(slurm: str, facts: ClusterFacts = FACTS) -> list[str]:
    (one,) = load(one=EXPERIMENT + f"slurm: {{{slurm}}}\n").desired
    return [str(p).removeprefix("experiments/") for p in unmet(one, facts)]


@pytest.mark.parametrize(
    ("slurm", "problem"),
    [
        ("partition: lwo", "5:20: slurm.partition: unknown partition 'lwo'. Did you mean 'low'? (SLURM)"),
        ("partition: 'gpu,lwo'", "5:20: slurm.partition: unknown partition 'lwo'. Did you mean 'low'? (SLURM)"),
        ("cpus_per_task: 17", "5:24: slurm.cpus_per_task: asked for 17 CPU on each node, partition low has 16 at most (SLURM)"),
        ("ntasks_per_node: 5, cpus_per_task: 4", "5:26: slurm.ntasks_per_node: asked for 20 CPU on each node, partition low has 16 at most (SLURM)"),
        ("mem: 100G", "5:14: slurm.mem: asked for 102,400 MiB on each node, partition low has 64,000 at most (SLURM)"),
        ("gpus_per_node: 1", "5:24: slurm.gpus_per_node: asked for 1 GPU on each node, partition low has 0 at most (SLURM)"),
        ("gpus_per_node: 8, partition: gpu", "5:24: slurm.gpus_per_node: asked for 8 GPU on each node, partition gpu has 4 at most (SLURM)"),
        ("nodes: 2, mem: 32G", "5:16: slurm.nodes: asked for 2, partition low has 1 that are large enough (SLURM)"),
        ("nodes: 4", "5:16: slurm.nodes: asked for 4, partition low allows 3 for each job (SLURM)"),
        ("time: 2-00:00:00", "5:15: slurm.time: asked for 2 d 0 h, partition low allows 1 d 0 h (SLURM)"),
        ("time: UNLIMITED", "5:15: slurm.time: asked for no limit, partition low allows 1 d 0 h (SLURM)"),
        ("account: lap", "5:18: slurm.account: you may not use account 'lap'. Did you mean 'lab'? (SLURM)"),
        ("account: class, partition: gpu", "5:18: slurm.account: 'class' may not use partition gpu. Known: lab (SLURM)"),
        ("qos: hihg", "5:14: slurm.qos: you may not use QOS 'hihg'. Did you mean 'high'? (SLURM)"),
    ],
)  # fmt: skip
def test_a_resource_that_the_cluster_lacks_is_reported_at_its_value(
    slurm: str, problem: str
) -> None:
    assert problems(slurm) == [f"one.yaml:{problem}"]


@pytest.mark.parametrize(
    "slurm",
    [
        "cpus_per_task: 16, mem: 64000, time: 1-00:00:00",
        "partition: 'low,gpu', gpus_per_node: 4",
        "partition: gpu, time: UNLIMITED, account: lab, qos: normal, nodes: 2",
        "nodes: 3",
    ],
)
def test_a_job_that_fits_into_one_of_its_partitions_is_accepted(slurm: str) -> None:
    assert problems(slurm) == []


@given(
    st.permutations(["low", "gpu"]),
    st.sampled_from([0, 1, 5]),
    st.sampled_from([1, 4, 16, 33]),
    st.integers(1, 4),
)
def test_a_job_fits_if_it_fits_into_any_of_its_partitions(
    names: list[str], gpus: int, cpus: int, nodes: int
) -> None:
    slurm = f"gpus_per_node: {gpus}, cpus_per_task: {cpus}, nodes: {nodes}"
    alone = [problems(f"{slurm}, partition: {name}") for name in names]
    together = problems(f"{slurm}, partition: '{','.join(names)}'")
    assert (together == []) == any(found == [] for found in alone)


def test_an_unknown_account_is_only_a_warning_if_the_facts_come_from_the_settings() -> None:
    assert problems("account: lap", replace(FACTS, is_live=False)) == [
        "one.yaml:5:18: warning: slurm.account: you may not use account 'lap'. Did you mean 'lab'? "
        "(cluster: in mtf.yaml)"
    ]


def test_each_value_of_a_grid_that_does_not_fit_is_reported_once() -> None:
    grid = (
        "kind: grid\nname: g\nbase: base.yaml\nparameters:\n"
        "  training.seed: [1, 2, 3, 4]\n"
        "linked: [[{slurm.mem: 1G, model.x: 1}, {slurm.mem: 65G, model.x: 2}, {slurm.mem: 2G, model.x: 3}]]\n"
    )
    (one,) = load(base=BASE, g=grid).desired
    assert [str(p).removeprefix("experiments/") for p in unmet(one, FACTS)] == [
        "g.yaml:6:52: slurm.mem: asked for 66,560 MiB on each node, partition low has 64,000 at most (SLURM)",
        "g.yaml:2:7: warning: g has 12 runs, the cluster accepts 10 jobs of a user at a time (SLURM): "
        "later syncs submit the rest",
    ]  # fmt: skip


def test_the_facts_of_a_cluster_survive_being_written_to_the_settings() -> None:
    section = Cluster.model_validate(as_section("big", FACTS))
    assert section.name == "big"
    assert section.facts() == replace(FACTS, is_live=False)


@pytest.mark.parametrize(
    ("version", "number"), [("22.05.8", 1), ("25.05.1", 1), ("25.11.0", 0), ("26.05.0", 0), ("", 0)]
)
def test_expedite_needs_a_slurm_that_knows_it(version: str, number: int) -> None:
    found = problems("requeue: expedite", replace(FACTS, version=version))
    assert len(found) == number
    assert all("requeue: expedite needs SLURM 25.11, here is" in text for text in found)


def test_typed_gpus_are_looked_for_like_others() -> None:
    assert problems("partition: gpu, account: lab, qos: normal, gpus_per_node: 'a100:4'") == []
    (problem,) = problems("partition: gpu, account: lab, qos: normal, gpus_per_node: 'a100:5'")
    assert "asked for 5 GPU on each node" in problem
