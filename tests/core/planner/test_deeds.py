"""Each action that was carried out is one deed to its run, in the word that `mtf sync` counts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

from mtf.core.planner.deeds import Deed, deeds
from mtf.core.planner.plan import Policy
from mtf.core.vocabulary.actions import Adopt, Cancel, Record, Repin, Resume, Submit
from mtf.core.vocabulary.ids import JobId, RunId
from mtf.core.vocabulary.states import JobState, RunState
from tests.core.planner.worlds import decide, desired, experiment, iso, job, record, world

if TYPE_CHECKING:
    from mtf.core.vocabulary.actions import Action
    from mtf.core.vocabulary.records import RunRecord

ALONE = experiment()
SPEC = desired(ALONE)
PENDING = record(ALONE)
RUNNING = record(ALONE, state=RunState.RUNNING)
WAITING = replace(RUNNING, retry_at=iso(5), state=RunState.PREEMPTED)


@dataclass
class Outcome:
    submitted: dict[RunId, JobId] = field(default_factory=dict)
    refused: dict[RunId, str] = field(default_factory=dict)
    uncertain: dict[RunId, str] = field(default_factory=dict)
    put_off: dict[RunId, str] = field(default_factory=dict)


def done(*actions: Action, before: RunRecord = PENDING) -> list[Deed]:
    return [d.deed for d in deeds(actions, {before.run: before}, Outcome())]


@pytest.mark.parametrize(
    ("before", "after", "deed"),
    [
        (PENDING, RUNNING, Deed.STARTED),
        (RUNNING, replace(RUNNING, step=7), Deed.UPDATED),
        (RUNNING, replace(RUNNING, state=RunState.COMPLETED), Deed.COMPLETED),
        (RUNNING, replace(RUNNING, state=RunState.FAILED), Deed.FAILED),
        (RUNNING, replace(RUNNING, state=RunState.TIMEOUT), Deed.TIMEOUT),
        (RUNNING, replace(RUNNING, state=RunState.LOST), Deed.LOST),
        (RUNNING, replace(RUNNING, state=RunState.CANCELLED), Deed.CANCELLED),
        (RUNNING, WAITING, Deed.INTERRUPTED),
        (WAITING, replace(WAITING, reason="another"), Deed.UPDATED),
    ],
)
def test_what_was_observed_of_a_run_is_named(
    before: RunRecord, after: RunRecord, deed: Deed
) -> None:
    assert done(Record(after.run, after, "x"), before=before) == [deed]


def test_a_job_that_was_found_is_adopted_unless_its_run_is_over_by_now() -> None:
    assert done(Adopt(PENDING.run, PENDING, JobId("77"), "x")) == [Deed.ADOPTED]
    over = replace(PENDING, state=RunState.FAILED)
    assert done(Adopt(PENDING.run, over, JobId("77"), "x")) == [Deed.FAILED]


@pytest.mark.parametrize("kind", ["submitted", "refused", "uncertain", "put_off"])
def test_a_submission_is_counted_by_its_outcome(kind: str) -> None:
    new = Submit(RunId("alone/x"), SPEC, ALONE, PENDING.key)
    again = Resume(PENDING.run, PENDING, "x")
    outcome = Outcome()
    getattr(outcome, kind).update({new.run: "77", again.run: "78"})
    found = deeds([new, again], {PENDING.run: PENDING}, outcome)
    names = {"submitted": ["submitted", "continued"], "uncertain": ["unclear"] * 2}
    assert [d.deed for d in found] == names.get(kind, [kind.replace("_", " ")] * 2)
    assert [(d.label, d.reason) for d in found] == [("alone", "77"), ("alone", "78")]


def test_a_cancellation_is_counted_by_why_it_was_made() -> None:
    running = (job(JobState.RUNNING),)
    orphan = world(records=(RUNNING,), jobs=running)
    (pruned,) = decide(orphan, Policy(prune=True)).actions
    changed = replace(desired(experiment(seed=2)), on_change="cancel")
    replaced = [
        a
        for a in decide(world(changed, records=(RUNNING,), jobs=running)).actions
        if isinstance(a, Cancel)
    ]
    asked = Cancel(RUNNING.run, RUNNING, "mtf cancel", asked=True)
    assert done(pruned, before=RUNNING) == [Deed.PRUNED]
    assert done(*replaced, before=RUNNING) == [Deed.REPLACED]
    assert done(asked, before=RUNNING) == [Deed.CANCELLED]


def test_a_run_that_is_repaired_twice_is_restored_once() -> None:
    repairs = [Repin(PENDING.run, PENDING, "x", None, on_remote=remote) for remote in (True, False)]
    assert done(*repairs) == [Deed.RESTORED]
