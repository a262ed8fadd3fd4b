"""Records: which run of several is the best, and copies that differ in a field."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest

from mtf.core.vocabulary.ids import JobId
from mtf.core.vocabulary.records import Best, best_run
from mtf.core.vocabulary.states import JobState, RunState
from tests.core.planner.worlds import experiment, job, record


@pytest.mark.parametrize(("mode", "best"), [("min", 0.1), ("max", 0.9)])
def test_the_best_run_is_the_one_with_the_best_value(mode: str, best: float) -> None:
    valued = [record(experiment(), best=Best("val", v, 1, 1, mode)) for v in (0.5, 0.1, 0.9)]
    for order in permutations([*valued, record(experiment())]):
        found = best_run(order)
        assert found is not None
        assert found.best is not None
        assert found.best.value == best


def test_of_runs_without_a_value_none_is_the_best() -> None:
    assert best_run([record(experiment())]) is None


def test_a_record_in_another_state_and_a_view_of_another_task_differ_in_nothing_else() -> None:
    run, view = record(experiment()), job(JobState.HELD, cure="scontrol release {job}")
    preempted = run.in_state(RunState.PREEMPTED, "requeued")
    assert preempted == replace(run, state=RunState.PREEMPTED, reason="requeued")
    cure = "scontrol release 7_3"
    assert view.of_task(JobId("7_3"), 3) == replace(view, job_id=JobId("7_3"), index=3, cure=cure)
    assert (run.state, view.cure) == (RunState.PENDING, "scontrol release {job}")
