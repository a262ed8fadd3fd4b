"""The runs that `mtf cancel`, `retry` and `rerun` leave out, each with a reason and a way on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mtf.core.selection.eligibility import (
    Tip,
    summed_up,
    why_a_rerun_is_hopeless,
    why_a_retry_is_hopeless,
    why_not_cancelled,
    why_not_rerun,
    why_not_retried,
)
from mtf.core.vocabulary.causes import Cause
from mtf.core.vocabulary.experiments import DIRECT
from mtf.core.vocabulary.ids import CommitId, RunId
from mtf.core.vocabulary.states import OVER, RunState
from tests.core.planner.worlds import experiment, iso, record

if TYPE_CHECKING:
    from mtf.core.vocabulary.records import RunRecord


def over(state: RunState = RunState.FAILED, cause: Cause = Cause.CODE_ERROR) -> RunRecord:
    return record(experiment(), state=state, attempt={"outcome": cause, "ended_at": iso()})


FAILED = over()
REFUSED = over(cause=Cause.CONFIGURATION)
SUPERSEDED = replace(FAILED, superseded_by=RunId("alone/20260102T110000Z/dddddddd"))
PROGRAM = replace(FAILED, wanted=False, spec=DIRECT)
AT_ONCE = replace(FAILED, wanted=False)
TIP = Tip(CommitId("d" * 40), "main", {FAILED.key})
NO_SPEC = replace(TIP, keys=())
BROKEN = replace(NO_SPEC, unread={"experiments/a.yaml"})


@pytest.mark.parametrize("state", RunState)
def test_runs_that_are_over_can_be_retried_and_the_others_cancelled(state: RunState) -> None:
    run = over(state)
    assert (why_not_cancelled(run) is None) == (state not in OVER)
    assert (why_not_rerun(run, TIP) is None) == (state in OVER)
    assert (why_not_retried(run) is None) == (state in OVER - {RunState.COMPLETED})


def test_a_superseded_run_is_left_alone_for_its_successor() -> None:
    for line in (why_not_retried(SUPERSEDED), why_not_rerun(SUPERSEDED, TIP)):
        assert line is not None
        assert "was run again as alone/20260102T110000Z/dddddddd" in line


@pytest.mark.parametrize(
    ("run", "tip", "words"),
    [
        (FAILED, TIP, None),
        (FAILED, NO_SPEC, "), or mtf retry"),
        (FAILED, BROKEN, "experiments/a.yaml has mistakes. See mtf validate"),
        (PROGRAM, NO_SPEC, "a Python program asked for it"),
        (AT_ONCE, NO_SPEC, "mtf run started it"),
        (PROGRAM, TIP, None),
    ],
)
def test_a_rerun_needs_a_spec_that_asks_for_the_same_experiment(
    run: RunRecord, tip: Tip, words: str | None
) -> None:
    line = why_not_rerun(run, tip)
    assert line is None if words is None else words in (line or "")


def test_a_complete_run_is_not_told_to_be_retried() -> None:
    for run in (FAILED, PROGRAM):
        complete = replace(run, state=RunState.COMPLETED)
        assert "mtf retry" in (why_not_rerun(run, NO_SPEC) or "")
        assert "mtf retry" not in (why_not_rerun(complete, NO_SPEC) or "")


@pytest.mark.parametrize(
    ("run", "tip", "retry", "rerun"),
    [
        (FAILED, TIP, False, False),
        (REFUSED, TIP, True, True),
        (FAILED, NO_SPEC, True, False),
        (FAILED, BROKEN, False, False),  # the broken spec may be the one that asks for it
        (PROGRAM, NO_SPEC, False, False),
    ],
)
def test_what_would_fail_again_is_hopeless(
    run: RunRecord, tip: Tip, retry: bool, rerun: bool
) -> None:
    assert (why_a_retry_is_hopeless(run, tip) is not None) == retry
    assert (why_a_rerun_is_hopeless(run, tip) is not None) == rerun


@pytest.mark.parametrize(("number", "lines"), [(3, 3), (4, 1)])
def test_many_runs_of_a_grid_with_one_reason_are_one_line(number: int, lines: int) -> None:
    members = [
        record(experiment(f"m{n}", "g"), f"g/20260101T110000Z/cccccccc/m{n}", state=RunState.FAILED)
        for n in range(number)
    ]
    found = summed_up([(r, f"left out {r.run}: mtf rerun {r.run}") for r in members])
    assert len(found) == lines
    if lines == 1:
        assert found == ["left out g: mtf rerun g (4 runs)"]


def test_a_run_that_is_being_cancelled_is_not_told_to_be_cancelled() -> None:
    running = record(experiment(), state=RunState.RUNNING)
    ending = replace(running, cancel_requested=True)
    for why in (why_not_retried, lambda run: why_not_rerun(run, TIP)):
        assert "mtf cancel" in (why(running) or "")
        assert "again once its job has ended" in (why(ending) or "")
        assert "mtf cancel" not in (why(ending) or "")
