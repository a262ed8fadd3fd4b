"""Runs that an executor has refused for good: asked again by a commit or by a person."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mtf.core.vocabulary.actions import Submit
from mtf.core.vocabulary.causes import Cause
from mtf.core.vocabulary.ids import CommitId, JobId, RunId
from mtf.core.vocabulary.states import RunState
from tests.core.planner.worlds import COMMIT, decide, desired, experiment, iso, record, world

OTHER = CommitId("d" * 40)
REFUSED: dict[str, Any] = {
    "state": RunState.FAILED,
    "attempt": {"job_id": None, "outcome": "submission", "ended_at": iso(-59)},
}


def test_what_no_executor_accepted_is_submitted_from_the_next_commit() -> None:
    old = record(experiment(), "alone/20260101T110000Z/dddddddd", commit=OTHER, **REFUSED)
    (action,) = decide(world(desired(experiment()), records=(old,))).actions
    assert isinstance(action, Submit)
    assert action.supersedes == old
    assert action.reason == f"{old.run} was refused"
    assert decide(world(desired(experiment()), records=(old,))).unchanged == 0


def test_what_was_refused_at_this_very_commit_says_how_to_ask_again() -> None:
    old = record(experiment(), commit=COMMIT, **REFUSED)
    (note,) = decide(world(desired(experiment()), records=(old,))).notes
    assert note.startswith("alone: slurm has refused it at cccccccc")
    assert note.endswith("mtf retry alone")
    for gone in (world(records=(old,)), world(desired(experiment()), records=())):
        assert not any("refused" in note for note in decide(gone).notes)


@pytest.mark.parametrize(
    "changes",
    [
        {"commit": COMMIT},  # the same would be refused again
        {"superseded_by": RunId("alone/20260101T120000Z/cccccccc")},
        {"attempt": {"outcome": "code-error", "job_id": JobId("7"), "ended_at": iso(-59)}},
        {"cluster": "other"},
    ],
)
def test_other_failed_runs_stay_as_they_are(changes: dict[str, Any]) -> None:
    given = {"commit": OTHER, **REFUSED, **changes}
    old = record(experiment(), "alone/20260101T110000Z/dddddddd", **given)
    assert decide(world(desired(experiment()), records=(old,))).actions == ()


def test_a_run_whose_new_resources_were_refused_is_submitted_from_the_next_commit() -> None:
    old = record(experiment(), "alone/20260101T110000Z/dddddddd", commit=OTHER, **REFUSED)
    waited = replace(old.attempt, job_id=JobId("7"), outcome=Cause.CANCELLED)  # was withdrawn
    old = replace(old, attempts=(waited, old.attempt))
    (action,) = decide(world(desired(experiment()), records=(old,))).actions
    assert isinstance(action, Submit)
    assert action.supersedes == old
    begun = replace(old, max_epochs=5)
    assert decide(world(desired(experiment()), records=(begun,))).actions == ()
