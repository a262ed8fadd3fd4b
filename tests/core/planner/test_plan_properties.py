"""Properties of plans, in worlds drawn at random."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from mtf.core.planner.journal_reader import Progress
from mtf.core.planner.plan import Policy, World, plan
from mtf.core.vocabulary.actions import (
    Cancel,
    Rebuild,
    Record,
    Repin,
    Resume,
    Submit,
    Throttle,
)
from mtf.core.vocabulary.ids import JobId, Token
from mtf.core.vocabulary.records import Checkpoint
from mtf.core.vocabulary.states import OVER, JobState, RunState
from mtf.reconcile.claimant import Claimant
from mtf.reconcile.record_updates import changed_record, with_job
from tests.core.planner.worlds import (
    COMMIT,
    NOW,
    POLICY,
    desired,
    experiment,
    iso,
    job,
    record,
    world,
)

_PROGRESS = st.builds(
    Progress,
    starts=st.integers(0, 2),
    finished_at=st.none() | st.just(iso(-1)),
    failed=st.none() | st.just("ValueError: x"),
    checkpoint=st.none()
    | st.builds(Checkpoint, st.just("/c"), st.integers(0, 3), st.just("s"), st.just(1)),
)
_JOBS = st.builds(
    job,
    st.sampled_from(JobState),
    restarts=st.integers(0, 1),
    exit_code=st.sampled_from([0, 1, 85]),
)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Specs, some of them recorded in any state, with any job and journal."""
    members = [experiment(f"seed={s}", "grid", seed=s) for s in draw(st.sets(st.integers(0, 4)))]
    specs = [desired(*members)] if members else []
    records, jobs, progress = [], [], {}
    for seed in draw(st.sets(st.integers(0, 6))):
        of = experiment(f"seed={seed}", "grid", seed=seed)
        token = Token(f"{seed:016x}")
        has_job = draw(st.booleans())
        attempt = {
            "token": token,
            "job_id": JobId(str(seed)) if has_job else None,
            "lease_until": iso(draw(st.sampled_from([-5, 5]))),
        }
        state = draw(st.sampled_from(RunState)) if has_job else RunState.CLAIMED
        run = record(
            of,
            run=f"grid/20260101T110000Z/cccccccc/seed={seed}",
            state=state,
            attempt=attempt,
            retry_at=iso(draw(st.sampled_from([-1, 1])))
            if has_job and draw(st.booleans())
            else None,
            cancel_requested=draw(st.booleans()),
            observed_at=iso(draw(st.sampled_from([-60, 0]))),
        )
        records.append(run)
        if draw(st.booleans()):
            jobs.append(replace(draw(_JOBS), token=token, job_id=JobId(str(seed))))
        progress[run.run] = draw(_PROGRESS)
    return world(*specs, records=tuple(records), jobs=tuple(jobs), progress=progress)


def carried_out(w: World, policy: Policy) -> World:
    """Return the world after a plan has been applied and every new job waits in the queue."""
    made = plan(w, policy, NOW)
    by = Claimant("me@here:2", NOW, COMMIT, "slurm", "default", 600, Path("/runs"))
    records = dict(w.records)
    live = {name: dict(jobs) for name, jobs in w.live.items()}
    for number, action in enumerate(made.actions):
        token = Token(f"{1000 + number:016x}")
        assert not isinstance(action, Repin | Rebuild | Throttle)
        new = changed_record(action, (token, 0), by)
        if isinstance(action, Submit | Resume):
            new = with_job(new, JobId(f"new{number}"), iso())
            view = job(JobState.PENDING, token=token, job_id=new.job_id)
            live["slurm"][token, 0] = view
        records[action.run] = new
    return replace(w, records=records, live=live)


@given(worlds(), st.booleans())
def test_a_plan_that_has_been_applied_leaves_nothing_to_start_or_adopt(
    w: World, prune: bool
) -> None:
    policy = Policy(prune=prune)
    again = plan(carried_out(w, policy), policy, NOW)
    assert not [a for a in again.actions if not isinstance(a, Record)]
    settled = replace(
        w,
        records={
            **carried_out(w, policy).records,
            **{a.run: a.record for a in again.actions if isinstance(a, Record)},
        },
    )
    settled = replace(settled, live=carried_out(w, policy).live)
    assert plan(settled, policy, NOW).is_empty


@given(worlds(), st.booleans())
def test_no_action_concerns_a_run_that_is_over(w: World, prune: bool) -> None:
    made = plan(w, Policy(prune=prune), NOW)
    assert not [a for a in made.actions if a.run in w.records and w.records[a.run].state in OVER]


@given(worlds(), st.booleans())
def test_a_run_with_a_live_job_never_gets_another(w: World, prune: bool) -> None:
    alive = {JobState.PENDING, JobState.RUNNING, JobState.HELD, JobState.SUSPENDED}
    for action in plan(w, Policy(prune=prune), NOW).actions:
        if isinstance(action, Resume) and w.records[action.run].retry_at is None:
            attempt = w.records[action.run].attempt
            view = w.live["slurm"].get((attempt.token, attempt.index))
            assert view is None or view.state not in alive


@given(worlds(), st.booleans())
def test_a_run_whose_cancellation_is_requested_gets_no_other_attempt(w: World, prune: bool) -> None:
    asked = {r.run for r in w.records.values() if r.cancel_requested and r.job_id}
    made = plan(w, Policy(prune=prune), NOW)
    assert not [a for a in made.actions if isinstance(a, Resume) and a.run in asked]


@given(worlds())
def test_nothing_is_cancelled_by_pruning_while_a_spec_cannot_be_read(w: World) -> None:
    unread = replace(w, specs_read=False)
    pruned = plan(unread, Policy(prune=True), NOW).actions
    assert [a for a in pruned if isinstance(a, Cancel)] == [
        a for a in plan(unread, Policy(), NOW).actions if isinstance(a, Cancel)
    ]


@given(worlds())
def test_each_key_is_submitted_at_most_once(w: World) -> None:
    keys = [a.key for a in plan(w, POLICY, NOW).actions if isinstance(a, Submit)]
    assert len(keys) == len(set(keys))
    assert not set(keys) & {r.key for r in w.records.values()}
