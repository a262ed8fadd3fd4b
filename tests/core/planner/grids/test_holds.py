"""Runs of a grid wait behind its canary, and after too many failures."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mtf.core.planner.grids.holds import canary_text, held_back, is_held_back
from mtf.core.planner.journal_reader import Progress
from mtf.core.vocabulary.actions import Plan, Record, Resume, Submit
from mtf.core.vocabulary.ids import JobId, Token
from mtf.core.vocabulary.records import Checkpoint, RunRecord
from mtf.core.vocabulary.states import JobState, RunState
from tests.core.planner.worlds import POLICY, decide, desired, experiment, iso, job, record, world

if TYPE_CHECKING:
    from mtf.core.vocabulary.experiments import Desired

MEMBERS = tuple(experiment(f"seed={n}", "g", seed=n) for n in (3, 1, 2))
GRID = desired(*MEMBERS)
STAMP = "g/20260101T110000Z/cccccccc"
SAVED = Checkpoint(f"/runs/{STAMP}/seed=3/checkpoints/latest.ckpt", 5, "0" * 64, 1)


def member(number: int, state: RunState = RunState.RUNNING, **more: object) -> RunRecord:
    of = MEMBERS[number]
    attempt = {"token": Token(f"{number:016x}"), "job_id": JobId(f"8_{number}"), "index": number}
    return record(of, f"{STAMP}/{of.name}", state=state, attempt=attempt, **more)


def planned(spec: Desired, *runs: RunRecord, **more: object) -> Plan:
    jobs = tuple(
        job(
            JobState.RUNNING if r.state is RunState.RUNNING else JobState.PENDING,
            token=r.attempt.token,
            index=r.attempt.index,
            job_id=r.job_id,
        )
        for r in runs
        if not r.is_over and r.retry_at is None
    )
    made = decide(world(spec, records=runs, jobs=jobs, **more))
    assert isinstance(made, Plan)
    return made


def submitted(made: Plan) -> list[str]:
    return [a.experiment.name for a in made.actions if isinstance(a, Submit)]


CANARY = replace(GRID, canary=1)
STRICT = replace(GRID, max_failed=1)


def test_the_first_member_is_submitted_alone_and_says_how_many_wait_for_it() -> None:
    made = planned(CANARY)
    assert submitted(made) == ["seed=3"]
    (action,) = made.actions
    assert isinstance(action, Submit)
    assert (action.holds_back, made.waiting) == (2, 2)
    assert made.notes == (
        "g: held back: until 1 of its runs has saved a checkpoint (canary) (2 runs)",
    )


def test_the_others_wait_while_the_canary_runs_and_follow_its_first_checkpoint() -> None:
    canary = member(0)
    assert submitted(planned(CANARY, canary)) == []
    saved = Progress(token=canary.attempt.token, checkpoint=SAVED)
    assert submitted(planned(CANARY, canary, progress={canary.run: saved})) == ["seed=1", "seed=2"]


def test_they_follow_a_canary_that_completed_without_a_checkpoint() -> None:
    done = member(0, RunState.COMPLETED)
    assert submitted(planned(CANARY, done)) == ["seed=1", "seed=2"]
    says_so = Progress(token=done.attempt.token, finished_at=iso())  # before its executor does
    canary = member(0)
    made = planned(CANARY, canary, progress={canary.run: says_so})
    assert submitted(made) == ["seed=1", "seed=2"]


@pytest.mark.parametrize("state", [RunState.FAILED, RunState.CANCELLED, RunState.LOST])
def test_a_canary_that_ended_before_holds_them_and_the_note_says_what_releases_them(
    state: RunState,
) -> None:
    made = planned(CANARY, member(0, state))
    assert made.actions == ()
    assert made.notes == (
        "g: held back: the canary g/seed=3 has not passed. mtf retry g/seed=3, mtf rerun (with newer"
        " code) or a changed spec releases the others (2 runs)",
    )


def test_a_canary_that_failed_after_its_first_checkpoint_has_passed() -> None:
    failed = member(0, RunState.FAILED, checkpoint=SAVED)
    assert submitted(planned(CANARY, failed)) == ["seed=1", "seed=2"]


def test_a_changed_spec_has_a_canary_of_its_own() -> None:
    others = tuple(experiment(f"seed={n}", "g", seed=n) for n in (7, 8))
    made = planned(replace(desired(*others), canary=1), member(0, RunState.FAILED))
    assert submitted(made) == ["seed=7"]


def test_members_added_to_a_grid_that_has_passed_are_submitted_at_once() -> None:
    done = tuple(member(n, RunState.COMPLETED) for n in range(3))
    more = desired(*MEMBERS, experiment("seed=9", "g", seed=9))
    assert submitted(planned(replace(more, canary=1), *done)) == ["seed=9"]


def test_two_canaries_must_both_pass() -> None:
    two = replace(GRID, canary=2)
    assert submitted(planned(two)) == ["seed=1", "seed=3"]
    assert submitted(planned(two, member(0, RunState.COMPLETED), member(1))) == []


def test_after_too_many_failures_waiting_jobs_are_withdrawn_and_what_runs_goes_on() -> None:
    running = member(2, max_epochs=5)
    made = planned(STRICT, member(0, RunState.FAILED), member(1, RunState.PENDING), running)
    (action,) = made.actions
    assert isinstance(action, Record)
    assert action.withdraws
    assert action.record.state is RunState.PENDING
    assert action.record.reason.startswith("held back: 1 run has failed (max_failed: 1). mtf retry")
    assert action.record.retry_at == iso()
    assert planned(STRICT, member(0, RunState.FAILED), action.record, running).actions == ()
    assert is_held_back(action.record)  # and so not waited for
    assert not is_held_back(running)


def test_unrecorded_members_are_not_submitted_after_too_many_failures() -> None:
    made = planned(STRICT, member(0, RunState.TIMEOUT))
    assert (made.actions, made.waiting) == ((), 2)


def test_a_retried_failure_a_greater_number_or_no_number_releases_them() -> None:
    failed, waiting = member(0, RunState.FAILED), member(1, RunState.PENDING)
    (action,) = planned(STRICT, failed, waiting, member(2, max_epochs=5)).actions
    assert isinstance(action, Record)
    held, runs = action.record, member(2, max_epochs=5)
    for made in (
        planned(STRICT, replace(failed, state=RunState.RUNNING), held, runs),
        planned(replace(GRID, max_failed=2), failed, held, runs),
        planned(GRID, failed, held, runs),
    ):
        (resume,) = (a for a in made.actions if isinstance(a, Resume))
        assert (resume.reason, resume.record.reason) == ("no longer held back", "")


def test_a_cancelled_run_is_no_failure() -> None:
    assert submitted(planned(STRICT, member(0, RunState.CANCELLED))) == ["seed=1", "seed=2"]


def test_a_run_to_be_cancelled_is_not_held_back() -> None:
    asked = member(1, RunState.PENDING, cancel_requested=True, observed_at=iso())
    made = planned(STRICT, member(0, RunState.FAILED), asked)
    assert not any(isinstance(a, Record) and a.withdraws for a in made.actions)


def test_status_says_of_a_canary_who_waits_for_it() -> None:
    canary = member(0, holds_back=2)
    assert canary_text(canary) == "canary: 2 other runs wait for its first checkpoint"
    assert canary_text(replace(canary, state=RunState.FAILED)) == "canary, held back 2 other runs"
    assert canary_text(replace(canary, checkpoint=SAVED)) == ""
    assert canary_text(member(0)) == ""


def test_a_look_at_the_records_says_who_is_held_back_and_what_releases_them() -> None:
    canary = member(0, holds_back=2)
    assert held_back([canary]) == {
        "g": "2 runs held back: they get jobs once the canary g/seed=3 has saved a checkpoint"
    }
    assert held_back([replace(canary, state=RunState.FAILED)]) == {
        "g": "2 runs held back: the canary g/seed=3 has not passed. mtf retry g/seed=3, mtf"
        " rerun (with newer code) or a changed spec releases the others"
    }
    assert held_back([replace(canary, checkpoint=SAVED)]) == {}
    assert held_back([member(0)]) == {}


def test_the_canary_of_an_older_spec_holds_nobody_back() -> None:
    old = member(0, RunState.FAILED, holds_back=2)
    newer = record(MEMBERS[1], f"g/20260101T113000Z/dddddddd/{MEMBERS[1].name}", claimed_at=iso())
    assert old.claimed_at < newer.claimed_at
    assert held_back([old, newer]) == {}


def test_a_rerun_canary_holds_back_the_same_runs() -> None:
    failed = member(0, RunState.FAILED, holds_back=2)
    asked = replace(POLICY, again={failed.key: failed})
    (action,) = decide(world(CANARY, records=(failed,)), asked).actions
    assert isinstance(action, Submit)
    assert (action.supersedes, action.holds_back) == (failed, 2)


def test_runs_without_a_job_after_too_many_failures_are_counted_and_have_no_cause() -> None:
    failed, waiting = member(0, RunState.FAILED), member(1, RunState.PENDING)
    (action,) = planned(STRICT, failed, waiting, member(2, max_epochs=5)).actions
    assert isinstance(action, Record)
    assert action.record.cause is None  # it was not cancelled: it has not begun
    (text,) = held_back([failed, action.record]).values()
    assert text.startswith("1 run held back: 1 run has failed (max_failed: 1). mtf retry")
