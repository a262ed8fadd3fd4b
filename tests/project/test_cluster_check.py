"""Checking specs against the cluster that mtf.yaml describes."""

from __future__ import annotations

import pytest

from mtf.project.cluster_check import infeasible, known_facts, remarks
from mtf.project.spec_tree import VALUE, SpecTree
from mtf.spec.schema.settings import Settings, parse_settings

CLUSTER = """\
cluster: {name: big, partitions: {gpu: {default: true, nodes: [{cpus: 8, mem: 8G}]}}}
clusters: {small: {executor: local}}
"""
VALUES = {
    "kind": "experiment",
    "experiment_name": "one",
    "model": {"type": "mlp"},
    "data": {"dataset_name": "digits", "num_workers": 0},
    "slurm": {"cpus_per_task": 16},
}


def messages(settings: Settings, **values: object) -> list[str]:
    specs = SpecTree.of_value({**VALUES, **values}, settings).load([VALUE]).desired
    assert specs
    facts = known_facts(settings, live=False)
    return [problem.message for problem in remarks(specs, settings, facts)]


def test_a_spec_that_does_not_fit_the_described_cluster_is_a_problem() -> None:
    (message,) = messages(parse_settings(CLUSTER.encode()))
    assert "16" in message


def test_a_spec_for_another_cluster_is_not_checked_against_this_one() -> None:
    settings = parse_settings(CLUSTER.encode())
    assert messages(settings, cluster="small") == []
    assert len(messages(settings, cluster="big")) == 1


@pytest.mark.parametrize("text", [b"", CLUSTER.encode() + b"executor: local\n"])
def test_nothing_is_checked_without_a_description_or_a_cluster(text: bytes) -> None:
    settings = parse_settings(text)
    assert known_facts(settings, live=False) is None
    assert messages(settings) == []


def test_slurm_is_not_asked_for_local_runs() -> None:
    settings = parse_settings(b"executor: local\n")
    specs = SpecTree.of_value(VALUES, settings).load([VALUE]).desired
    assert list(infeasible(specs, settings)) == []
