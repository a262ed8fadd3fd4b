"""The reasons that a plan gives for a change of a run, as `mtf plan` and the log print them."""

from __future__ import annotations

from typing import Any

import pytest

from mtf.core.planner.journal_reader import Progress
from mtf.core.planner.plan import Policy, plan
from mtf.core.planner.reasons import reason_of
from mtf.core.vocabulary.actions import Record
from mtf.core.vocabulary.causes import Cause
from mtf.core.vocabulary.states import JobState, RunState, Sync
from tests.core.planner.worlds import NOW, desired, experiment, job, record, world

ALONE = experiment(seed=1)
RUN = record(ALONE, state=RunState.RUNNING)


def change(*specs: Any, state: JobState, **more: Any) -> str:
    """Return the words of the plan for the one run's change."""
    start = more.pop("start", RUN)
    made = plan(world(*specs, records=(start,), jobs=(job(state),), **more), Policy(), NOW)
    (action,) = made.actions
    assert isinstance(action, Record)
    return action.reason


def test_a_run_that_begins_says_from_which_state_it_came() -> None:
    start = record(ALONE, state=RunState.PENDING)
    assert change(desired(ALONE), state=JobState.RUNNING, start=start).startswith(
        "pending -> running"
    )


def test_a_run_whose_spec_goes_or_comes_back_says_so_though_its_state_is_the_same() -> None:
    assert change(state=JobState.RUNNING) == "Synced -> OutOfSync"
    gone = record(ALONE, state=RunState.RUNNING, sync=Sync.OUT_OF_SYNC)
    assert change(desired(ALONE), state=JobState.RUNNING, start=gone) == "OutOfSync -> Synced"


def test_a_run_that_is_to_be_retried_says_how_its_attempt_ended() -> None:
    reason = change(desired(ALONE), state=JobState.NODE_FAILURE)
    assert reason.startswith("running -> pending (node-failure")
    unseen = record(ALONE, state=RunState.PENDING)  # it began and ended between two syncs
    reason = change(desired(ALONE), state=JobState.NODE_FAILURE, start=unseen)
    assert reason.startswith("attempt 1 ended (node-failure")


@pytest.mark.parametrize(
    ("view", "words"),
    [
        (None, "ended"),
        (job(JobState.FAILED, exit_code=3), "exit code 3"),
        (job(JobState.FAILED, signal=9), "signal 9"),
        (job(JobState.COMPLETED), "exit code 0 before its training was complete"),
    ],
)
def test_a_silent_end_names_what_is_known_of_it(view: Any, words: str) -> None:
    reason = reason_of(Cause.CODE_ERROR, RUN, view, Progress())
    assert words in reason
    assert "None" not in reason


def test_an_error_in_the_journal_counts_more_than_how_the_job_ended() -> None:
    view = job(JobState.FAILED, exit_code=1)
    journaled = Progress(failed="ValueError: no such file")
    assert reason_of(Cause.CODE_ERROR, RUN, view, journaled) == "ValueError: no such file"
    assert reason_of(Cause.CUDA_OOM, RUN, view, journaled) == "ValueError: no such file"
    refused = Progress(refused="optimizer.lr: expected a number")
    assert reason_of(Cause.CONFIGURATION, RUN, view, refused) == "optimizer.lr: expected a number"


def test_what_the_executor_says_is_kept_where_it_adds_something() -> None:
    view = job(JobState.NODE_FAILURE, reason="node n1 is down", node="n1")
    reason = reason_of(Cause.NODE_FAILURE, RUN, view, Progress())
    assert "n1" in reason
    assert "(node n1 is down)" in reason
    for nothing_new in ("None", "NonZeroExitCode", "Node-Failure"):
        view = job(JobState.NODE_FAILURE, reason=nothing_new)
        assert "(" not in reason_of(Cause.NODE_FAILURE, RUN, view, Progress()), nothing_new
