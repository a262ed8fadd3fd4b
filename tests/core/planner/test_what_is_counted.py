"""Plans of a sync that selects some specs, and of a rerun, which asks for recorded runs again."""

from __future__ import annotations

from dataclasses import replace

from mtf.core.planner.plan import Policy
from mtf.core.vocabulary.actions import Submit
from mtf.core.vocabulary.states import JobState, RunState
from tests.core.planner.worlds import decide, desired, experiment, job, record, world

ALONE = experiment()
SPEC = desired(ALONE)


def test_a_run_is_submitted_again_only_if_a_person_asks_and_takes_the_old_ones_place() -> None:
    old = record(ALONE, state=RunState.FAILED)
    again = Policy(again={old.key: old})
    (action,) = decide(world(SPEC, records=(old,)), again).actions
    assert isinstance(action, Submit)
    assert (action.key, action.supersedes) == (old.key, old)
    assert action.run != old.run
    assert decide(world(SPEC, records=(old,))).is_empty
    superseded = replace(old, superseded_by=action.run)
    new = replace(old, run=action.run, state=RunState.COMPLETED)
    assert decide(world(SPEC, records=(superseded, new))).is_empty


def test_runs_count_as_unchanged_if_they_are_selected_and_nothing_happens_to_them() -> None:
    grid = [experiment(f"seed={i}", "search", seed=i) for i in range(3)]
    records = tuple(
        record(
            e,
            f"search/20260101T110000Z/cccccccc/{e.name}",
            state=RunState.RUNNING,
            attempt={"index": i},
        )
        for i, e in enumerate(grid)
    )
    other = record(ALONE, state=RunState.COMPLETED)
    jobs = (job(JobState.FAILED, index=0), *(job(JobState.RUNNING, index=i) for i in (1, 2)))
    found = world(desired(*grid), SPEC, records=(*records, other), jobs=jobs)
    assert (len(decide(found).actions), decide(found).unchanged) == (1, 3)
    alone = Policy(wants=lambda name: name == "alone")
    assert (len(decide(found, alone).actions), decide(found, alone).unchanged) == (0, 1)
