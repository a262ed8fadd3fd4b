"""Changed resources reach what has not begun, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mtf.core.planner.journal_reader import Progress
from mtf.core.planner.run_update import Retry, observe
from mtf.core.planner.spec_changes import KeyChange, with_spec
from mtf.core.vocabulary.actions import Plan, Resume
from mtf.core.vocabulary.causes import Cause
from mtf.core.vocabulary.ids import Token
from mtf.core.vocabulary.states import JobState, RunState
from tests.core.planner.worlds import ALONE, NOW, SPEC, decide, iso, job, record, world

if TYPE_CHECKING:
    from mtf.core.vocabulary.records import RunRecord

TIME = KeyChange("slurm.time", "00:10:00", "00:20:00")
TOKEN = Token("a" * 16)


def changed(run: RunRecord, state: JobState | None, *changes: KeyChange, **more: object) -> Plan:
    jobs = () if state is None else (job(state),)
    given = {run.run: changes or (TIME,)}
    made = decide(world(SPEC, records=(run,), jobs=jobs, respecified=given, **more))
    assert isinstance(made, Plan)
    return made


def test_a_waiting_run_gets_a_job_with_the_new_resources() -> None:
    (action,) = changed(record(ALONE), JobState.PENDING).actions
    assert isinstance(action, Resume)
    assert action.reason == "slurm.time: 00:10:00 -> 00:20:00"
    assert action.withdraws
    assert action.changes == action.followed == {"slurm.time": "00:20:00"}
    ended = action.record.attempt
    assert (ended.outcome, ended.ended_at) == (Cause.CANCELLED, iso())
    assert ended.reason == "withdrawn before it began: slurm.time: 00:10:00 -> 00:20:00"


def test_a_waiting_job_keeps_its_place_for_what_is_logged_or_saved_and_the_plan_says_so() -> None:
    csv = KeyChange("logging.csv", False, True)
    made = changed(record(ALONE), JobState.PENDING, csv)
    assert not any(isinstance(action, Resume) for action in made.actions)
    assert made.notes == (
        "alone: waiting jobs keep their place in the queue, and begin without logging.csv: false ->"
        " true. mtf cancel and mtf retry submit a run anew, with it",
    )
    (action,) = changed(record(ALONE), JobState.PENDING, csv, TIME).actions  # it queues anew anyway
    assert isinstance(action, Resume)
    assert action.followed == {"logging.csv": True, "slurm.time": "00:20:00"}


def test_the_next_attempt_takes_what_is_logged_and_saved() -> None:
    due = record(ALONE, retry_at=iso(-1), attempt={"ended_at": iso(-2), "outcome": "time-limit"})
    (action,) = changed(due, None, KeyChange("checkpoint.keep_last", 3, 5)).actions
    assert isinstance(action, Resume)
    assert action.changes == {"checkpoint.keep_last": 5}


@pytest.mark.parametrize("state", [JobState.RUNNING, JobState.SUSPENDED])
def test_what_has_begun_is_left_alone_and_the_plan_says_so(state: JobState) -> None:
    made = changed(replace(record(ALONE), state=RunState.RUNNING), state)
    assert not any(isinstance(action, Resume) for action in made.actions)
    assert "runs that have begun keep what they have (slurm.time: " in made.notes[0]


def test_a_requeued_job_has_begun() -> None:
    run = replace(record(ALONE), state=RunState.PREEMPTED)
    made = decide(
        world(
            SPEC,
            records=(run,),
            jobs=(job(JobState.PENDING, restarts=1),),
            respecified={run.run: (TIME,)},
        )
    )
    assert "runs that have begun" in made.notes[0]


def test_a_job_that_slurm_still_calls_waiting_has_begun_if_its_journal_says_so() -> None:
    run = record(ALONE)
    progress = {run.run: Progress(token=TOKEN, starts=1, attempt_starts=1)}
    made = changed(run, JobState.PENDING, progress=progress)
    assert not any(isinstance(action, Resume) for action in made.actions)


def test_a_job_that_a_person_holds_keeps_its_place_and_one_held_by_its_spec_follows() -> None:
    assert "held jobs keep" in changed(record(ALONE), JobState.HELD).notes[0]
    by_spec = KeyChange("slurm.extra", ["--hold"], [])
    (action,) = changed(record(ALONE), JobState.HELD, by_spec).actions
    assert isinstance(action, Resume)


def test_a_run_that_waits_for_its_next_attempt_takes_the_change_with_it() -> None:
    due = record(ALONE, retry_at=iso(-1), attempt={"ended_at": iso(-2), "outcome": "time-limit"})
    (action,) = changed(due, None).actions
    assert isinstance(action, Resume)
    assert (action.changes, action.withdraws) == ({"slurm.time": "00:20:00"}, False)
    later = replace(due, retry_at=iso(5))
    assert changed(later, None).actions == ()


def test_a_run_that_no_queue_has_accepted_is_tried_again_at_once() -> None:
    put_off = record(ALONE, retry_at=iso(30), attempt={"job_id": None, "ended_at": iso(-1)})
    (action,) = changed(put_off, None).actions
    assert isinstance(action, Resume)


def test_a_retry_takes_what_its_spec_has_changed_and_what_the_person_sets_counts_more() -> None:
    asked = Resume(record(ALONE).run, record(ALONE), "mtf retry", changes={"slurm.mem": "9G"})
    memory = KeyChange("slurm.mem", "1G", "2G")
    action = with_spec(asked, [TIME, memory])
    assert action.changes == {"slurm.time": "00:20:00", "slurm.mem": "9G"}
    assert action.followed == {"slurm.time": "00:20:00", "slurm.mem": "2G"}


def test_nothing_is_withdrawn_while_nothing_can_be_submitted() -> None:
    assert changed(record(ALONE), JobState.PENDING, can_submit=False).actions == ()


def test_withdrawn_jobs_are_no_attempts_without_progress() -> None:
    run = record(ALONE)
    withdrawn = replace(run.attempt, ended_at=iso(-5), outcome=Cause.CANCELLED)
    run = replace(run, attempts=(withdrawn, withdrawn, replace(run.attempt, started_at=iso(-4))))
    failed = job(JobState.NODE_FAILURE, started_at=NOW, ended_at=NOW)
    seen = observe(run, failed, Progress(), retry=Retry(max_attempts=2), now=NOW)
    assert (seen.state, seen.retry_at is None) == (RunState.PENDING, False)
