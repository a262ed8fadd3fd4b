"""Rows of runs as people see them: no row contradicts itself, and each says how old it is."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf.core.planner.journal_reader import NOTHING, Progress, fold
from mtf.core.planner.rows.run_rows import Row, Sight, recorded_row, row_of
from mtf.core.planner.run_update import Retry
from mtf.core.vocabulary.ids import JobId
from mtf.core.vocabulary.states import JobState, RunState, Sync
from tests.core.planner.worlds import NOW, experiment, iso, job, record

RUN = record(experiment(seed=1))
TOKEN = RUN.attempt.token


def journal(*events: str, minutes: float = -5) -> Progress:
    written = [
        {"event": e, "at": iso(minutes), "token": TOKEN, "max_epochs": 5, "epoch": n, "step": n}
        for n, e in enumerate(events)
    ]
    return fold(written, "/r")


def seen(view: Any, progress: Progress = NOTHING, of: Any = RUN) -> Row:
    return row_of(of, Sight(NOW, view, progress), Retry(), NOW)


@pytest.mark.parametrize(
    ("view", "events", "state"),
    [
        (job(JobState.PENDING), (), "pending"),
        (job(JobState.PENDING), ("started",), "running"),  # it began after the answer
        (job(JobState.PENDING, restarts=1), ("started",), "preempted"),
        (job(JobState.RUNNING), ("started", "progress"), "running"),
        (job(JobState.RUNNING), ("started", "finished"), "running"),
        (job(JobState.COMPLETED), ("started", "finished"), "completed"),
        (None, ("started", "finished"), "completed"),
        (job(JobState.ABSENT), (), "cancelled"),
        (job(JobState.CANCELLED, ended_at=NOW), (), "cancelled"),  # though nobody knows by whom
    ],
)
def test_a_row_tells_what_job_and_journal_say_now(
    view: Any, events: tuple[str, ...], state: str
) -> None:
    row = seen(view, journal(*events))
    assert (row.record.state, row.live, row.as_of) == (state, True, iso())


def test_a_complete_training_whose_job_is_ending_says_so() -> None:
    row = seen(job(JobState.RUNNING), journal("started", "finished"))
    assert row.record.reason == "the training is complete, and its job is ending"


def test_a_waiting_task_that_vanished_beside_its_siblings_is_drift() -> None:
    row = seen(job(JobState.ABSENT))
    assert (row.record.sync, row.record.cause) == (Sync.OUT_OF_SYNC, "cancelled")
    assert "while it waited" in row.record.reason
    assert not seen(job(JobState.ABSENT), journal("started")).record.is_over  # it had begun


def test_a_waiting_job_says_what_it_waits_for_and_until_when() -> None:
    view = job(JobState.PENDING, reason="waits for free resources (Resources)")
    assert seen(view).record.reason == "waits for free resources (Resources)"
    soon = replace(view, expected_at=NOW + timedelta(hours=2))
    assert seen(soon).record.reason == "waits for free resources (Resources), expected 14:00 UTC"
    later = replace(view, expected_at=NOW + timedelta(days=2))
    assert seen(later).record.reason.endswith("expected 2026-01-03 12:00 UTC")
    past = replace(view, expected_at=NOW - timedelta(hours=2))
    assert "expected" not in seen(past).record.reason
    held = job(JobState.HELD, reason="held (JobHeldUser)", cure="scontrol release 77")
    assert seen(held).record.reason == "held (JobHeldUser): scontrol release 77"


def test_a_reason_that_holds_no_more_is_gone() -> None:
    held = replace(RUN, reason="held (JobHeldUser): scontrol release 77")
    assert seen(job(JobState.PENDING), of=held).record.reason == "queued"
    assert seen(job(JobState.RUNNING), of=held).record.reason == ""


def test_a_claim_shows_the_job_that_was_found_by_its_token() -> None:
    claim = record(experiment(seed=1), state=RunState.CLAIMED, attempt={"job_id": None})
    row = seen(job(JobState.RUNNING), of=claim)
    assert (row.record.state, row.record.job_id) == ("running", "77")
    assert "submits it" in seen(None, of=claim).record.reason


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ((), "pending"),
        (("started",), "running"),
        (("started", "stopped"), "preempted"),
        (("started", "finished"), "completed"),
        (("started", "failed"), "failed"),
        (("started", "refused"), "failed"),
    ],
)
def test_without_an_executor_the_journal_tells_the_state_and_its_time(
    events: tuple[str, ...], state: str
) -> None:
    row = row_of(RUN, Sight(progress=journal(*events)), Retry(), NOW)
    assert (row.record.state, row.live) == (state, False)
    assert row.as_of == (iso(-5) if events else RUN.observed_at)


def test_a_job_that_another_one_shut_out_leaves_the_run_to_that_one() -> None:
    sight = Sight(NOW, job(JobState.COMPLETED), journal("started"), holder=JobId("78"))
    row = row_of(RUN, sight, Retry(), NOW)
    assert (row.record.state, row.record.job_id) == ("running", "78")


def test_what_is_over_stays_over_and_is_live_where_its_executor_is() -> None:
    over = replace(RUN, state=RunState.FAILED)
    assert row_of(over, Sight(NOW), Retry(), NOW) == Row(over, iso(), live=True)
    assert row_of(over, Sight(), Retry(), NOW) == recorded_row(over)


STATES = st.sampled_from([None, *(job(state) for state in JobState)])
EVENTS = st.lists(
    st.sampled_from(["started", "progress", "stopped", "failed", "finished"]), max_size=6
)


@given(STATES, EVENTS, st.booleans())
def test_no_row_contradicts_itself(view: Any, events: list[str], is_asked: bool) -> None:
    sight = Sight(NOW if is_asked else None, view, journal(*events))
    row = row_of(RUN, sight, Retry(), NOW)
    new = row.record
    unknown = (None, JobState.UNKNOWN, JobState.ABSENT)
    assert row.live or not is_asked or (view and view.state) in unknown
    if new.state is RunState.PENDING and new.retry_at is None:
        assert "started" not in events or not is_asked or view is None or not row.live
    if new.is_over:
        assert new.finished_at is not None
        assert new.cause is not None
    if new.state is RunState.COMPLETED:
        assert "finished" in events
