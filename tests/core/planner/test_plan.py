"""The planner: its actions and notes for small worlds."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from mtf.core.planner.drift import contradiction
from mtf.core.planner.journal_reader import Progress
from mtf.core.planner.plan import Policy, plan
from mtf.core.vocabulary.actions import Record, Resume, Submit
from mtf.core.vocabulary.causes import Cause
from mtf.core.vocabulary.ids import JobId, Token
from mtf.core.vocabulary.records import Best, Checkpoint, Origin, RunRecord
from mtf.core.vocabulary.states import JobState, RunState, Sync
from mtf.errors import Problem
from mtf.reconcile.record_updates import cancelled
from tests.core.planner.worlds import (
    ALONE,
    NOW,
    SPEC,
    Adopt,
    Cancel,
    decide,
    desired,
    experiment,
    iso,
    job,
    kinds,
    record,
    world,
)

TUNED = replace(
    ALONE,
    name="tuned",
    config={
        "training": {"seed": 2},
        "slurm": {},
        "init_from": {"run": "alone", "checkpoint": "latest"},
    },
)
DONE = Checkpoint("/runs/alone/last.ckpt", 9, "f" * 64, 100, 3)


def test_a_run_waits_for_the_one_it_begins_from() -> None:
    first = decide(world(SPEC, desired(TUNED)))
    assert [a.run.split("/")[0] for a in first.actions] == ["alone"]
    assert first.notes == ("tuned waits for alone, which has not run yet",)
    assert first.unchanged == 0

    running = record(ALONE, state=RunState.RUNNING, checkpoint=DONE)
    still = decide(world(SPEC, desired(TUNED), records=(running,), jobs=(job(JobState.RUNNING),)))
    assert still.notes == (f"tuned waits for {running.run} (running)",)

    ended = Progress(starts=1, token=Token("a" * 16), finished_at=iso(), checkpoint=DONE)
    over = world(
        SPEC,
        desired(TUNED),
        records=(running,),
        jobs=(job(JobState.COMPLETED),),
        progress={running.run: ended},
    )
    begun = [a for a in decide(over).actions if isinstance(a, Submit)]
    (begin,) = begun  # in the same plan that records the end
    assert begin.origin == Origin(running.run, DONE.path, DONE.sha256, 9)


@pytest.mark.parametrize(
    ("state", "changes", "note"),
    [
        (
            RunState.FAILED,
            {},
            "tuned is blocked: {run} is failed. Retry it (mtf retry {run}), or name another run in init_from",
        ),
        (RunState.COMPLETED, {}, "tuned is blocked: {run} is completed and has no checkpoint"),
        (
            RunState.COMPLETED,
            {"asked": "alon"},
            "tuned is blocked: init_from: no run or spec is called 'alon'. Did you mean 'alone'?",
        ),
    ],
)
def test_a_run_whose_origin_is_missing_says_why(
    state: RunState, changes: dict[str, str], note: str
) -> None:
    there = record(ALONE, state=state)
    asked = {"run": changes.get("asked", "alone"), "checkpoint": "latest"}
    tuned = replace(TUNED, config={**TUNED.config, "init_from": asked})
    made = decide(world(SPEC, desired(tuned), records=(there,)))
    assert not made.actions
    assert made.notes == (note.format(run=there.run),)


def test_a_grids_name_means_the_best_of_its_members() -> None:
    grid = [experiment(f"m{i}", "search", seed=i) for i in range(3)]
    records = [
        record(
            e,
            run=f"search/20260101T110000Z/cccccccc/{e.name}",
            state=RunState.COMPLETED,
            best=Best("val_loss", value, 1, 9),
            checkpoint=DONE,
            best_checkpoint=replace(DONE, path=f"/{e.name}"),
        )
        for e, value in zip(grid, (0.3, 0.1, 0.2), strict=True)
    ]
    asked = {"run": "search", "checkpoint": "best"}
    tuned = replace(TUNED, config={**TUNED.config, "init_from": asked})
    (begin,) = decide(world(desired(*grid), desired(tuned), records=tuple(records))).actions
    assert begin.origin.path == "/m1"


def observed(job_state: JobState, progress: Progress | None = None, **changes: Any) -> RunRecord:
    """Return the record that one observation of a running run leaves."""
    start = record(ALONE, state=RunState.RUNNING)
    view = job(job_state, **changes)
    made = decide(
        world(SPEC, records=(start,), jobs=(view,), progress={start.run: progress or Progress()})
    )
    return made.actions[0].record if made.actions else start


def test_a_new_experiment_is_submitted_under_an_id_that_names_time_and_commit() -> None:
    (action,) = decide(world(SPEC)).actions
    assert isinstance(action, Submit)
    assert action.run == "alone/20260101T120000Z/cccccccc"


def test_a_taken_submission_id_bumps_the_time() -> None:
    taken = frozenset({"alone/20260101T120000Z/cccccccc", "alone/20260101T120001Z/cccccccc"})
    (action,) = decide(world(SPEC, taken=taken)).actions
    assert action.run == "alone/20260101T120002Z/cccccccc"


@pytest.mark.parametrize("state", RunState)
def test_a_recorded_run_is_never_submitted_again_in_any_state(state: RunState) -> None:
    start = record(ALONE, state=state)
    assert Submit not in kinds(decide(world(SPEC, records=(start,), jobs=(job(JobState.PENDING),))))


def test_moving_a_spec_or_adding_a_value_leaves_the_other_members_alone() -> None:
    members = [experiment(f"seed={s}", "grid", seed=s) for s in (1, 2, 3)]
    old = record(members[1], run="grid/20260101T110000Z/cccccccc/seed=2", state=RunState.COMPLETED)
    moved = replace(desired(*members), path="experiments/elsewhere/grid.yaml")
    names = [a.experiment.name for a in decide(world(moved, records=(old,))).actions]
    assert names == ["seed=1", "seed=3"]


def test_another_generation_is_another_run() -> None:
    old = record(ALONE, state=RunState.COMPLETED)
    again = desired(replace(ALONE, generation=2))
    assert kinds(decide(world(again, records=(old,)))) == [Submit]


def test_execution_details_are_not_identity() -> None:
    old = record(ALONE, state=RunState.COMPLETED)
    more = replace(ALONE, config={**ALONE.config, "slurm": {"mem": "64G"}, "logging": {"x": 1}})
    assert decide(world(desired(more), records=(old,))).is_empty


def test_an_executor_that_cannot_be_read_means_no_action_at_all() -> None:
    start = record(ALONE, state=RunState.RUNNING)
    fresh = desired(experiment("other", seed=2))
    blind = replace(world(SPEC, fresh, records=(start,)), live={}, can_submit=False)
    made = decide(replace(blind, unreadable={"slurm": "connect failure"}))
    assert made.is_empty
    assert any("connect failure" in note for note in made.notes)


def test_a_claim_is_adopted_when_its_job_is_found_by_the_token() -> None:
    claim = record(ALONE, state=RunState.CLAIMED, attempt={"job_id": None})
    (action,) = decide(world(SPEC, records=(claim,), jobs=(job(JobState.RUNNING),))).actions
    assert isinstance(action, Adopt)
    assert action.job_id == "77"


def test_a_fresh_claim_of_somebody_else_is_left_alone() -> None:
    claim = record(ALONE, state=RunState.CLAIMED, attempt={"job_id": None, "lease_until": iso(5)})
    made = decide(world(SPEC, records=(claim,)))
    assert made.is_empty
    assert "me@here:1" in made.notes[0]


@pytest.mark.parametrize("why", ["its lease has expired", "its submitter has died"])
def test_a_claim_without_a_job_is_fenced_and_claimed_anew(why: str) -> None:
    has_died = "died" in why
    lease = iso(5) if has_died else iso(-1)
    claim = record(ALONE, state=RunState.CLAIMED, attempt={"job_id": None, "lease_until": lease})
    gone = frozenset({claim.attempt.token}) if has_died else frozenset[Token]()
    (action,) = decide(world(SPEC, records=(claim,), abandoned=gone)).actions
    assert isinstance(action, Resume)
    assert action.fence
    assert action.reason.endswith(why)


def test_a_run_whose_job_was_fenced_out_gets_another_or_the_one_that_executes_it() -> None:
    run = record(ALONE)
    over = world(SPEC, records=(run,), jobs=(job(JobState.COMPLETED),))
    (action,) = decide(replace(over, shut_out={run.run: None})).actions
    assert isinstance(action, Resume)
    assert action.fence
    assert decide(replace(over, shut_out={run.run: None}, can_submit=False)).is_empty
    (action,) = decide(replace(over, shut_out={run.run: JobId("78")})).actions
    assert isinstance(action, Record)
    assert [a.job_id for a in action.record.attempts] == ["77", "78"]
    assert contradiction(run, action.record) is None
    assert not action.record.is_over
    ended = replace(run, cancel_requested=True)
    left = replace(over, records={run.run: ended}, shut_out={run.run: None})
    assert [a.record.state for a in decide(left).actions if isinstance(a, Record)] == ["cancelled"]


def test_a_running_job_makes_a_running_run() -> None:
    start = record(ALONE)
    (action,) = decide(
        world(SPEC, records=(start,), jobs=(job(JobState.RUNNING, node="n1"),))
    ).actions
    assert action.record.state is RunState.RUNNING
    assert action.record.attempt.node == "n1"


def test_a_job_back_in_the_queue_makes_a_preempted_run() -> None:
    assert observed(JobState.PENDING, restarts=1).state is RunState.PREEMPTED


def test_exit_code_0_means_completed_only_if_the_journal_says_so() -> None:
    done = observed(JobState.COMPLETED, Progress(finished_at=iso(-1)))
    assert (done.state, done.finished_at) == (RunState.COMPLETED, iso(-1))
    early = observed(JobState.COMPLETED)
    assert early.state is RunState.FAILED
    assert "before its training was complete" in early.reason


def test_a_code_error_fails_with_its_last_line() -> None:
    progress = Progress(token=Token("a" * 16), failed="ValueError: no such file")
    new = observed(JobState.FAILED, progress, exit_code=1)
    assert (new.state, new.reason) == (RunState.FAILED, "ValueError: no such file")
    assert new.attempt.outcome == Cause.CODE_ERROR


def test_events_of_an_earlier_attempt_do_not_count_for_the_newest() -> None:
    progress = Progress(token=Token("b" * 16), starts=1, failed="ValueError: fixed since")
    assert "fixed since" not in observed(JobState.FAILED, progress, exit_code=1).reason
    start = record(ALONE)
    waits = world(
        SPEC, records=(start,), jobs=(job(JobState.PENDING),), progress={start.run: progress}
    )
    assert not [a for a in decide(waits).actions if a.record.state is RunState.PREEMPTED]


def test_a_cancellation_by_hand_is_kept_and_counts_as_drift() -> None:
    new = observed(JobState.CANCELLED, reason="by 1000")
    assert (new.state, new.sync) == (RunState.CANCELLED, Sync.OUT_OF_SYNC)
    assert decide(world(SPEC, records=(new,))).is_empty


def test_a_cancellation_without_effect_is_repeated() -> None:
    alive = (job(JobState.RUNNING),)
    start = record(ALONE, state=RunState.RUNNING, cancel_requested=True, observed_at=iso(-2))
    assert kinds(decide(world(SPEC, records=(start,), jobs=alive))) == [Cancel]
    fresh = replace(start, observed_at=iso(-0.5))
    assert decide(world(SPEC, records=(fresh,), jobs=alive)).is_empty


def test_the_reason_of_a_cancellation_is_kept_until_and_after_the_runs_end() -> None:
    start = record(ALONE, state=RunState.PENDING)
    asked = cancelled(start, "its spec is gone (--prune)", iso(0))
    again = cancelled(asked, "its cancellation has had no effect yet", iso(0))
    assert asked.reason == again.reason == "cancel requested: its spec is gone (--prune)"
    (action,) = decide(world(SPEC, records=(asked,), jobs=(job(JobState.RUNNING),))).actions
    assert (action.record.state, action.record.reason) == (RunState.RUNNING, asked.reason)
    (action,) = decide(
        world(SPEC, records=(action.record,), jobs=(job(JobState.CANCELLED),))
    ).actions
    assert action.record.reason == "cancelled: its spec is gone (--prune)"


def test_our_own_cancellation_is_not_drift() -> None:
    start = record(ALONE, state=RunState.RUNNING, cancel_requested=True)
    (action,) = decide(world(SPEC, records=(start,), jobs=(job(JobState.CANCELLED),))).actions
    assert (action.record.state, action.record.sync) == (RunState.CANCELLED, Sync.SYNCED)


def test_a_run_with_progress_is_continued_after_every_time_limit_at_once() -> None:
    run = record(ALONE, state=RunState.RUNNING)
    for step in (10, 20, 30, 40, 50):
        progress = {run.run: Progress(checkpoint=Checkpoint("/c", step, "s", 1))}
        made = decide(world(SPEC, records=(run,), jobs=(job(JobState.TIMEOUT),), progress=progress))
        (action,) = made.actions
        assert isinstance(action, Resume), run.reason
        attempt = replace(run.attempt, start_step=step, ended_at=None, end_step=None)
        run = replace(action.record, retry_at=None, attempts=(*action.record.attempts, attempt))


def test_attempts_without_progress_are_given_up_after_the_limit() -> None:
    run = record(ALONE, state=RunState.RUNNING)
    for _ in range(2):
        made = decide(world(SPEC, records=(run,), jobs=(job(JobState.NODE_FAILURE),)))
        new = made.actions[0].record
        assert new.retry_at is not None
        run = replace(
            new, retry_at=None, attempts=(*new.attempts, replace(new.attempt, ended_at=None))
        )
    new = decide(world(SPEC, records=(run,), jobs=(job(JobState.NODE_FAILURE),))).actions[0].record
    assert new.state is RunState.FAILED
    assert "gave up after 3 attempts" in new.reason


def test_a_retry_waits_for_its_backoff() -> None:
    waiting = record(ALONE, retry_at=iso(1))
    assert decide(world(SPEC, records=(waiting,))).is_empty
    due = replace(waiting, retry_at=iso(0))
    assert kinds(decide(world(SPEC, records=(due,)))) == [Resume]


def test_a_run_whose_cancellation_is_requested_is_not_continued_when_it_is_due() -> None:
    for asked_at in (-2, -0.5, 0):  # repeated if asked long ago, else waited for
        waiting = record(ALONE, retry_at=iso(0), cancel_requested=True, observed_at=iso(asked_at))
        assert Resume not in kinds(decide(world(SPEC, records=(waiting,))))


def test_an_attempt_that_ended_before_it_was_seen_running_is_reported() -> None:
    run = record(ALONE, state=RunState.PENDING)
    lost = job(JobState.NODE_FAILURE, node="n1")
    (action,) = decide(world(SPEC, records=(run,), jobs=(lost,))).actions
    assert action.record.state is RunState.PENDING  # as before: another attempt follows
    assert action.reason == "attempt 1 ended (node-failure of n1; to be continued)"


def test_a_forgotten_job_is_lost_only_after_long_silence() -> None:
    recent = record(ALONE, attempt={"submitted_at": iso(-5)})
    assert decide(world(SPEC, records=(recent,))).is_empty
    heard = world(SPEC, records=(record(ALONE),), progress={recent.run: Progress(last_at=iso(-1))})
    assert not [a for a in decide(heard).actions if a.record.state is RunState.LOST]
    silent = decide(world(SPEC, records=(record(ALONE),))).actions[0].record
    assert silent.state is RunState.LOST


def test_a_task_that_disappears_after_its_cancellation_is_cancelled() -> None:
    asked = record(ALONE, cancel_requested=True, attempt={"submitted_at": iso(-1)})
    (action,) = decide(world(SPEC, records=(asked,))).actions
    assert action.record.state is RunState.CANCELLED


def test_a_removed_spec_cancels_nothing_unless_pruning() -> None:
    start = record(ALONE, state=RunState.RUNNING)
    alive = (job(JobState.RUNNING),)
    kept = decide(world(records=(start,), jobs=alive))
    assert kinds(kept) == [Record]
    assert kept.actions[0].record.sync is Sync.OUT_OF_SYNC
    assert kinds(decide(world(records=(start,), jobs=alive), Policy(prune=True))) == [Cancel]


def test_pruning_leaves_runs_alone_that_a_program_asked_for() -> None:
    start = record(ALONE, state=RunState.RUNNING, wanted=False)
    alive = (job(JobState.RUNNING),)
    assert decide(world(records=(start,), jobs=alive), Policy(prune=True)).is_empty


def test_runs_of_another_cluster_are_not_touched() -> None:
    start = record(ALONE, state=RunState.RUNNING, cluster="elsewhere")
    assert decide(world(SPEC, records=(start,), jobs=(job(JobState.FAILED, exit_code=1),))).is_empty


def test_only_restricts_a_plan_to_matching_specs() -> None:
    other = desired(experiment("other", seed=2))
    made = decide(world(SPEC, other), Policy(wants=lambda name: name == "other"))
    assert [a.run.split("/")[0] for a in made.actions] == ["other"]


def test_progress_alone_is_recorded_at_most_once_a_minute() -> None:
    progress = Progress(epoch=2, step=20, checkpoint=Checkpoint("/c", 20, "s", 1))
    alive = (job(JobState.RUNNING),)
    for seconds, actions in ((30, 0), (61, 1)):
        at = (NOW - timedelta(seconds=seconds)).isoformat()
        run = record(ALONE, state=RunState.RUNNING, observed_at=at)
        made = decide(world(SPEC, records=(run,), jobs=alive, progress={run.run: progress}))
        assert len(made.actions) == actions


def test_two_specs_with_the_same_key_are_submitted_once() -> None:
    assert kinds(decide(world(SPEC, desired(experiment("alone", seed=1))))) == [Submit]


def test_a_claim_whose_job_has_already_ended_is_continued_at_once() -> None:
    claim = record(ALONE, state=RunState.CLAIMED, attempt={"job_id": None})
    progress = {claim.run: Progress(checkpoint=Checkpoint("/c", 1, "s", 1))}
    made = decide(world(SPEC, records=(claim,), jobs=(job(JobState.PREEMPTED),), progress=progress))
    assert kinds(made) == [Resume]
    assert made.actions[0].record.attempt.job_id == "77"


def test_a_grid_cancelled_by_hand_gets_one_note() -> None:
    grid = [experiment(f"m{i}", "search", seed=i) for i in range(3)]
    records = tuple(
        record(
            e,
            run=f"search/20260101T110000Z/cccccccc/{e.name}",
            state=RunState.RUNNING,
            attempt={"index": i},
        )
        for i, e in enumerate(grid)
    )
    jobs = tuple(job(JobState.CANCELLED, index=i) for i in range(3))
    assert decide(world(desired(*grid), records=records, jobs=jobs)).notes == (
        "members of search/20260101T110000Z/cccccccc were cancelled outside mtf and stay cancelled:"
        " mtf retry runs one again (3 runs)",
    )


def test_runs_for_another_cluster_wait_for_its_controller() -> None:
    theirs = replace(desired(TUNED), cluster="big")
    made = decide(world(SPEC, theirs))
    assert [a.run.split("/")[0] for a in made.actions] == ["alone"]
    assert made.unchanged == 0
    assert made.notes == (f"{theirs.name}: 1 of its runs wait for the controller of cluster big",)


@pytest.mark.parametrize("sync", Sync)
def test_nothing_is_pruned_while_a_spec_cannot_be_read(sync: Sync) -> None:
    running = record(ALONE, state=RunState.RUNNING, sync=sync)
    unread = world(records=(running,), jobs=(job(JobState.RUNNING),), specs_read=False)
    assert Cancel not in kinds(decide(unread, Policy(prune=True)))
    claim = record(ALONE, state=RunState.CLAIMED, sync=sync, attempt={"job_id": None})
    unread = world(records=(claim,), specs_read=False)
    assert Cancel not in kinds(decide(unread, Policy(prune=True)))


def test_no_run_is_orphaned_while_a_spec_cannot_be_read() -> None:
    running = record(ALONE, state=RunState.RUNNING)
    unread = world(records=(running,), jobs=(job(JobState.RUNNING),), specs_read=False)
    found = decide(unread, Policy(prune=True))
    assert found.is_empty
    assert found.notes == ("nothing is pruned while committed specs have mistakes",)
    more = replace(unread, desired=world(desired(experiment("seed=1", "search", seed=1))).desired)
    assert kinds(decide(more, Policy(prune=True))) == [Submit]
    over = replace(unread, live={"slurm": {(Token("a" * 16), 0): job(JobState.FAILED)}})
    assert kinds(decide(over)) == [Record]


def test_only_specs_that_keep_the_policies_are_submitted() -> None:
    problem = Problem("s.yaml", 3, 4, "search: 2 runs, 1 are allowed", rule="max_runs")
    one, two = experiment("seed=1", "search", seed=1), experiment("seed=2", "search", seed=2)
    there = record(one, "search/20260101T110000Z/cccccccc/seed=1", state=RunState.RUNNING)
    state = world(
        desired(one, two),
        desired(experiment()),
        records=(there,),
        jobs=(job(JobState.RUNNING),),
        refused={"search": (problem,)},
    )
    found = plan(state, Policy(prune=True), NOW)
    assert [a.run.split("/")[0] for a in found.actions if isinstance(a, Submit)] == ["alone"]
    assert not [a for a in found.actions if isinstance(a, Cancel)]  # what runs is still wanted
    assert (found.held, found.unchanged) == (1, 1)
    assert found.notes == (
        "search: 1 of its runs are not submitted: s.yaml:3:4: search: 2 runs, 1 are allowed"
        " [max_runs]",
    )
