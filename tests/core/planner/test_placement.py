"""Where new runs go, and which of them a machine without SLURM leaves to others."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest

from mtf.core.planner.placement import Placement, meant_for_cluster, project_on_cluster
from mtf.core.vocabulary.actions import Plan, Submit
from mtf.core.vocabulary.experiments import run_key
from mtf.core.vocabulary.ids import RunId
from mtf.spec.schema.slurm_section import SLURMConfig
from tests.core.planner.worlds import desired, experiment, record

if TYPE_CHECKING:
    from mtf.core.vocabulary.jobs import Resources

BY_ACCIDENT = Placement("local", "default", is_asked=False)


def asking(**resources: Any) -> Resources:
    return cast("Resources", SLURMConfig(**resources).model_dump())


def plan_of(*asked: Resources) -> Plan:
    members = [
        replace(experiment(f"lr={n}", "grid", lr=n), resources=r) for n, r in enumerate(asked)
    ]
    spec = desired(*members)
    runs = (Submit(RunId(f"grid/t/c/{m.name}"), spec, m, run_key(m, {})) for m in members)
    return Plan(tuple(runs), 0, ())


@pytest.mark.parametrize(
    "resources",
    [
        {"partition": "gpu"},
        {"account": "lab"},
        {"qos": "high"},
        {"reservation": "class"},
        {"constraint": "a100"},
        {"nodes": 2},
        {"extra": ["--exclusive"]},
    ],
)
def test_a_run_that_asks_for_what_only_slurm_has_waits(resources: dict[str, Any]) -> None:
    sifted = BY_ACCIDENT.sift(plan_of(asking(**resources)))
    assert (sifted.actions, sifted.waiting_for_slurm) == ((), 1)
    assert f"ask for {next(iter(resources))} " in sifted.notes[0]
    assert sifted.notes[0].endswith("To run them here: mtf sync --executor local")


def test_a_run_that_a_workstation_can_do_stays() -> None:
    asks = asking(cpus_per_task=4, gpus_per_node=1, mem="2G", time="1:00:00", ntasks_per_node=2)
    plan = plan_of(asks)
    assert meant_for_cluster(asks) is None
    assert BY_ACCIDENT.sift(plan) == plan


def test_only_the_runs_that_are_meant_for_a_cluster_wait() -> None:
    plan = plan_of(asking(), asking(partition="a"), asking(partition="a"), asking(partition="b"))
    sifted = BY_ACCIDENT.sift(plan)
    assert (sifted.actions, sifted.waiting_for_slurm) == (plan.actions[:1], 3)
    assert [note[: note.index(". To")] for note in sifted.notes] == [
        "grid: 2 of its runs wait for a machine with SLURM: they ask for partition a",
        "grid: 1 of its runs wait for a machine with SLURM: they ask for partition b",
    ]


@pytest.mark.parametrize(
    "place", [Placement("local", "default"), Placement("slurm", "default", is_asked=False)]
)
def test_an_executor_that_was_named_or_is_slurm_gets_every_run(place: Placement) -> None:
    plan = plan_of(asking(partition="a"))
    assert place.sift(plan) == plan


def test_a_project_with_runs_on_slurm_or_a_named_cluster_is_meant_for_it() -> None:
    run = record(experiment())
    there, here = replace(run, executor="slurm"), replace(run, executor="local")
    assert project_on_cluster("default", [here]) is None
    assert project_on_cluster("default", [replace(there, cluster="other")]) is None
    assert project_on_cluster("default", [here, there]) is not None
    assert project_on_cluster("snellius", []) == "they are for the cluster snellius"
    sifted = replace(BY_ACCIDENT, why_not="it is").sift(plan_of(asking(), asking()))
    assert (sifted.actions, sifted.waiting_for_slurm) == ((), 2)
