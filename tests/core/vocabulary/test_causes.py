"""Causes of ends: the tables, and the planner's decisions after each cause."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mtf.core.planner.journal_reader import Progress, fold
from mtf.core.planner.plan import Policy, plan
from mtf.core.planner.run_update import LONGEST_WAIT, Retry
from mtf.core.vocabulary.actions import Resume, Submit
from mtf.core.vocabulary.causes import Cause, cause_of_error
from mtf.core.vocabulary.ids import JobId, Token
from mtf.core.vocabulary.records import Checkpoint
from mtf.core.vocabulary.states import JobState, RunState, Sync
from mtf.reconcile.claimant import Claimant
from mtf.reconcile.record_updates import changed_record, put_off, unclear, with_job
from tests.core.planner.worlds import (
    COMMIT,
    NOW,
    Cancel,
    desired,
    experiment,
    first_record,
    iso,
    job,
    kinds,
    record,
    world,
)

if TYPE_CHECKING:
    from datetime import datetime

    from mtf.core.vocabulary.records import RunRecord

ALONE = experiment(seed=1)
SPEC = desired(ALONE)
TOKEN = Token("a" * 16)
BY = Claimant("me@here:2", NOW, COMMIT, "slurm", "default", 600, Path("/runs"))


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has",
            "cuda-oom",
        ),
        ("torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "cuda-oom"),
        ("RuntimeError: CUDA error: out of memory", "cuda-oom"),
        (
            "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
            "cuda-oom",
        ),
        (
            "torch.distributed.DistBackendError: NCCL error: Cuda failure 2 'out of memory'",
            "cuda-oom",
        ),
        ("torch.OutOfMemoryError: HIP out of memory. Tried to allocate 2.00 GiB", "cuda-oom"),
        ("MemoryError", "host-oom"),
        (
            "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 745. GiB for an array",
            "host-oom",
        ),
        ("OSError: [Errno 12] Cannot allocate memory", "host-oom"),
        (
            "RuntimeError: [enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes",
            "host-oom",
        ),
        ("RuntimeError: DataLoader worker (pid 3993) is killed by signal: Killed.", "host-oom"),
        (
            "RuntimeError: DataLoader worker (pid 1) is killed by signal: Bus error. It is possible that dataloader's workers are out of shared memory.",
            "host-oom",
        ),
        ("ValueError: the flux is out of range", "code-error"),
        ("RuntimeError: CUDA error: device-side assert triggered", "code-error"),
        ("KeyError: 'memory'", "code-error"),
    ],
)
def test_the_text_of_an_error_shows_which_memory_ran_out(text: str, cause: str) -> None:
    assert cause_of_error(text) == cause


def over(state: JobState, progress: Progress | None = None, **changes: Any) -> RunRecord:
    """Return the record that one observation of a running run's job leaves."""
    start = record(ALONE, state=RunState.RUNNING, cancel_requested=changes.pop("asked", False))
    journaled = replace(progress, token=TOKEN) if progress else Progress()
    made = plan(
        world(
            SPEC, records=(start,), jobs=(job(state, **changes),), progress={start.run: journaled}
        ),
        Policy(retry=Retry(on=frozenset())),
        NOW,
    )
    return first_record(made) if made.actions else start


@pytest.mark.parametrize(
    ("view", "progress", "cause", "state"),
    [
        ({"state": JobState.TIMEOUT}, None, "time-limit", "timeout"),
        ({"state": JobState.PREEMPTED}, None, "preempted", "failed"),
        ({"state": JobState.NODE_FAILURE}, None, "node-failure", "failed"),
        ({"state": JobState.NOT_STARTED}, None, "not-started", "failed"),
        ({"state": JobState.DEADLINE}, None, "deadline", "timeout"),
        ({"state": JobState.ABSENT}, None, "cancelled", "cancelled"),
        ({"state": JobState.OUT_OF_MEMORY}, None, "host-oom", "failed"),
        ({"state": JobState.FAILED, "exit_code": 85}, None, "time-limit", "timeout"),
        ({"state": JobState.FAILED, "exit_code": 78}, None, "configuration", "failed"),
        ({"state": JobState.FAILED, "exit_code": 137}, None, "host-oom", "failed"),
        ({"state": JobState.FAILED, "signal": 9}, None, "host-oom", "failed"),
        ({"state": JobState.FAILED, "signal": 7}, None, "host-oom", "failed"),
        ({"state": JobState.FAILED, "signal": 53}, None, "not-started", "failed"),
        ({"state": JobState.FAILED, "exit_code": 1}, None, "code-error", "failed"),
        (
            {"state": JobState.FAILED, "signal": 9},
            {"failed": "ValueError: x"},
            "code-error",
            "failed",
        ),
        (
            {"state": JobState.FAILED, "exit_code": 1},
            {"failed": "MemoryError"},
            "host-oom",
            "failed",
        ),
        (
            {"state": JobState.FAILED, "exit_code": 1},
            {"failed": "RuntimeError: CUDA error: out of memory"},
            "cuda-oom",
            "failed",
        ),
        (
            {"state": JobState.FAILED, "exit_code": 1},
            {"refused": "x.py differs"},
            "configuration",
            "failed",
        ),
        ({"state": JobState.FAILED, "signal": 9}, {"stopped": "SIGTERM"}, "preempted", "failed"),
        (
            {"state": JobState.FAILED, "exit_code": 130},
            {"stopped": "SIGINT"},
            "cancelled",
            "cancelled",
        ),
        ({"state": JobState.CANCELLED}, None, "cancelled", "cancelled"),
        ({"state": JobState.CANCELLED}, {"finished_at": iso()}, "completed", "completed"),
    ],
)
def test_each_end_has_its_cause(
    view: dict[str, Any], progress: dict[str, Any] | None, cause: str, state: str
) -> None:
    new = over(**view, progress=Progress(**progress) if progress else None)
    assert (new.cause, new.state, new.attempt.outcome) == (cause, state, cause)


@pytest.mark.parametrize(
    ("state", "shown", "reason"),
    [
        (JobState.HELD, RunState.PENDING, "held (JobHeldUser): scontrol release 77"),
        (JobState.SUSPENDED, RunState.RUNNING, "suspended: scontrol resume continues it"),
        (JobState.PENDING, RunState.PENDING, ""),  # it changes all the time: not recorded
    ],
)
def test_the_recorded_reason_of_a_waiting_job_says_what_a_person_must_do(
    state: JobState, shown: RunState, reason: str
) -> None:
    start = record(ALONE, state=RunState.CLAIMED)
    cure = "scontrol release 77" if state is JobState.HELD else ""
    view = job(state, reason="held (JobHeldUser)", cure=cure)
    made = plan(world(SPEC, records=(start,), jobs=(view,)), Policy(), NOW)
    new = first_record(made)
    assert (new.state, new.reason) == (shown, reason)


def test_a_cancellation_names_its_user_as_soon_as_accounting_does() -> None:
    fresh = NOW - timedelta(seconds=3)
    assert not over(JobState.CANCELLED, ended_at=fresh).is_over
    new = over(JobState.CANCELLED, ended_at=fresh, cancelled_by="alice")
    assert new.reason == "cancelled by alice outside mtf: mtf retry runs it again"
    assert new.sync is Sync.OUT_OF_SYNC
    stopped = Progress(stopped="SIGTERM")
    late = over(JobState.CANCELLED, stopped, ended_at=NOW - timedelta(minutes=1))
    assert late.reason == "cancelled outside mtf: mtf retry runs it again"
    ours = over(JobState.CANCELLED, ended_at=fresh, asked=True)
    assert (ours.reason, ours.sync) == ("cancelled by mtf", Sync.SYNCED)


# -- crash loops -----------------------------------------------------------------------------------


def lives(*events: str) -> Progress:
    """Return the sum of a journal of starts, stops and checkpoints (by their step)."""
    facts: list[dict[str, Any]] = []
    for event in events:
        if event.isdigit():
            facts.append({"event": "checkpoint", "step": int(event), "path": "c"})
        elif event == "start":
            facts.append({"event": "started", "token": TOKEN, "at": iso(-1)})
        else:
            facts.append({"event": "stopped", "reason": event})
    return fold(facts, "/r")


@pytest.mark.parametrize(
    ("progress", "state", "restarts", "cause"),
    [
        (
            lives("start", "SIGTERM", "start", "SIGTERM", "start", "SIGTERM"),
            JobState.PENDING,
            3,
            "preempted",
        ),
        (
            lives("start", "SIGUSR1", "start", "SIGUSR1", "start", "SIGUSR1", "start"),
            JobState.RUNNING,
            3,
            "time-limit",
        ),
        (lives("start", "SIGTERM", "start", "SIGTERM", "start"), JobState.RUNNING, 2, None),
        (
            lives(
                "start", "SIGTERM", "start", "5", "SIGTERM", "start", "SIGTERM", "start", "SIGTERM"
            ),
            JobState.PENDING,
            4,
            None,
        ),
        (
            lives("start", "5", "start", "5", "start", "5", "start", "5"),
            JobState.PENDING,
            4,
            "preempted",
        ),
        (lives("start", "5", "start", "6", "start", "7", "start", "8"), JobState.PENDING, 4, None),
        (Progress(), JobState.PENDING, 3, "preempted"),  # it never wrote an event
        (Progress(), JobState.PENDING, 2, None),
        (lives("start", "start", "start", "start"), JobState.RUNNING, 0, None),
    ],
)
def test_a_job_requeued_again_and_again_without_progress_is_cancelled(
    progress: Progress, state: JobState, restarts: int, cause: str | None
) -> None:
    start = record(ALONE, state=RunState.RUNNING)
    view = job(state, restarts=restarts)
    made = plan(
        world(SPEC, records=(start,), jobs=(view,), progress={start.run: progress}), Policy(), NOW
    )
    if cause is None:
        assert Cancel not in kinds(made)
        return
    (action,) = made.actions
    assert isinstance(action, Cancel)
    asked = changed_record(action, None, BY)
    gone = world(
        SPEC, records=(asked,), jobs=(job(JobState.CANCELLED),), progress={start.run: progress}
    )
    end = first_record(plan(gone, Policy(), NOW))
    ended_as = "failed" if cause == "preempted" else "timeout"
    assert (end.state.value, end.cause) == (ended_as, cause)
    assert "in a row without progress" in end.reason


def test_a_retry_by_a_person_resets_the_count_of_fruitless_attempts() -> None:
    fruitless = replace(record(ALONE).attempt, ended_at=iso(-1), outcome="node-failure", end_step=0)
    given_up = record(ALONE, state=RunState.FAILED)
    given_up = replace(given_up, attempts=(fruitless,) * 3)
    asked = Resume(given_up.run, given_up, "mtf retry", asked=True, changes={"slurm.mem": "16G"})
    again = with_job(changed_record(asked, (TOKEN, 0), BY), JobId("77"), iso())
    assert again.attempt.changes == {"slurm.mem": "16G"}
    made = plan(world(SPEC, records=(again,), jobs=(job(JobState.NODE_FAILURE),)), Policy(), NOW)
    new = first_record(made)
    assert new.retry_at == iso(1)  # and not over
    due = plan(world(SPEC, records=(replace(new, retry_at=iso()),)), Policy(), NOW)
    (resume,) = due.actions
    assert isinstance(resume, Resume)
    next_one = changed_record(resume, (Token("b" * 16), 0), BY)
    assert next_one.attempt.changes == {"slurm.mem": "16G"}  # an automatic attempt keeps it
    assert not next_one.attempt.asked


def test_changes_of_retries_add_up_and_the_newest_counts() -> None:
    run = record(ALONE, state=RunState.FAILED)
    for number, changes in enumerate(
        [{"slurm.mem": "16G", "slurm.qos": "low"}, {"slurm.time": "02:00:00"}, {"slurm.mem": "32G"}]
    ):
        asked = Resume(run.run, run, "mtf retry", asked=True, changes=changes)
        run = changed_record(asked, (Token(f"{number:016x}"), 0), BY)
        run = replace(with_job(run, JobId(str(number)), iso()), state=RunState.FAILED)
    assert run.attempt.changes == {"slurm.mem": "32G", "slurm.qos": "low", "slurm.time": "02:00:00"}
    assert run.attempts[1].changes == {
        "slurm.mem": "16G",
        "slurm.qos": "low",
    }  # what a job had is not rewritten


def test_an_earlier_attempts_starts_are_not_counted_for_the_newest() -> None:
    start = record(ALONE, state=RunState.RUNNING)
    earlier = replace(lives(*["start", "SIGUSR1"] * 4), token=Token("b" * 16))
    for restarts, doomed in ((1, False), (3, True)):
        view = job(JobState.PENDING, restarts=restarts)
        seen = world(SPEC, records=(start,), jobs=(view,), progress={start.run: earlier})
        made = plan(seen, Policy(), NOW)
        assert (Cancel in kinds(made)) == doomed
        if doomed:  # SIGUSR1 was sent to the earlier attempt
            assert first_record(made).attempt.outcome == Cause.PREEMPTED


# -- back-off, with a clock to turn ----------------------------------------------------------------


def fails(run: RunRecord, now: datetime, step: int) -> RunRecord:
    """Return the record once the run's job was lost with its node, the checkpoint at ``step``."""
    progress = Progress(token=run.attempt.token, checkpoint=Checkpoint("/c", step, "s", 1))
    lost = job(JobState.NODE_FAILURE, token=run.attempt.token, job_id=run.job_id)
    seen = world(SPEC, records=(run,), jobs=(lost,), progress={run.run: progress})
    return first_record(plan(seen, Policy(retry=Retry(max_attempts=9)), now))


def resumed(run: RunRecord, now: datetime) -> RunRecord | None:
    """Return the record of the run's next attempt, with its job; None while none is due."""
    made = plan(world(SPEC, records=(run,)), Policy(), now)
    if not made.actions:
        return None
    (action,) = made.actions
    assert isinstance(action, Resume)
    token = Token(f"{len(run.attempts):016x}")
    return with_job(changed_record(action, (token, 0), BY), JobId(token), iso())


def test_the_wait_grows_with_each_fruitless_attempt_and_progress_resets_it() -> None:
    now, run = NOW, record(ALONE, state=RunState.RUNNING)
    for step, seconds in ((0, 60), (0, 120), (0, 240), (7, 0), (7, 60), (7, 120), (9, 0)):
        run = fails(run, now, step)
        if seconds:
            assert resumed(run, now + timedelta(seconds=seconds - 1)) is None
        now += timedelta(seconds=seconds)
        following = resumed(run, now)
        assert following is not None, (step, seconds)
        run = following


def test_a_claim_is_given_up_when_its_lease_ends_and_not_before() -> None:
    ends = NOW + timedelta(seconds=BY.lease_s)
    submit = plan(world(SPEC), Policy(), NOW).actions[0]
    assert isinstance(submit, Submit)
    claim = changed_record(submit, (TOKEN, 0), BY)
    assert plan(world(SPEC, records=(claim,)), Policy(), ends - timedelta(seconds=1)).is_empty
    (action,) = plan(world(SPEC, records=(claim,)), Policy(), ends).actions
    assert isinstance(action, Resume)
    assert action.fence


# -- submissions that come to nothing --------------------------------------------------------------


def test_the_wait_doubles_up_to_a_bound() -> None:
    waits = [Retry(backoff_s=60).wait(n).total_seconds() for n in (0, 1, 2, 3, 7, 99)]
    assert waits == [0, 60, 120, 240, 3600, 3600]
    assert Retry(backoff_s=1e9).wait(1) == LONGEST_WAIT
    assert Retry(backoff_s=0).wait(50) == timedelta(0)


def test_a_submission_that_was_put_off_is_repeated_when_due_and_replaced() -> None:
    claim = record(ALONE, state=RunState.CLAIMED, attempt={"job_id": None})
    for tries in (1, 2, 3):
        waiting = put_off(claim, "QOSMaxSubmitJobPerUserLimit", iso(), iso(1))
        assert (waiting.state, waiting.attempt.put_off) == (RunState.PENDING, tries)
        assert plan(world(SPEC, records=(waiting,)), Policy(), NOW).is_empty
        due = plan(world(SPEC, records=(replace(waiting, retry_at=iso()),)), Policy(), NOW)
        (action,) = due.actions
        assert isinstance(action, Resume)
        assert not action.fence  # no job can start: the executor certainly did not accept it
        claim = changed_record(action, (Token(f"{tries:016x}"), 0), BY)
        assert (claim.state, len(claim.attempts)) == (RunState.CLAIMED, 1)
    ended = with_job(claim, JobId("77"), iso())
    view = job(JobState.NODE_FAILURE, token=ended.attempt.token)
    new = first_record(plan(world(SPEC, records=(ended,), jobs=(view,)), Policy(), NOW))
    assert new.retry_at == iso(1)  # one attempt without progress, not four


def test_an_unclear_submission_is_checked_at_once_and_repeated_later() -> None:
    claim = record(ALONE, state=RunState.CLAIMED, attempt={"job_id": None, "claimed_at": iso()})
    vague = unclear(claim, "Socket timed out")
    gone: dict[str, Any] = {"abandoned": frozenset({TOKEN})}
    waits = plan(world(SPEC, records=(vague,), **gone), Policy(), NOW)
    assert waits.is_empty
    assert "Socket timed out" in waits.notes[0]
    found = plan(
        world(SPEC, records=(vague,), jobs=(job(JobState.PENDING),), **gone), Policy(), NOW
    )
    assert found.actions[0].job_id == "77"  # type: ignore[union-attr]
    later = plan(world(SPEC, records=(vague,), **gone), Policy(), NOW + timedelta(minutes=1))
    (action,) = later.actions
    assert isinstance(action, Resume)
    assert action.fence


def test_jobs_in_unknown_states_are_left_alone_while_accounting_is_down() -> None:
    nobody = job(JobState.UNKNOWN, job_id=JobId(""), reason="accounts cannot be read: x")
    claim = record(ALONE, state=RunState.CLAIMED, attempt={"job_id": None})
    made = plan(world(SPEC, records=(claim,), jobs=(nobody,)), Policy(), NOW)
    assert made.is_empty
    assert "accounts cannot be read" in made.notes[0]
    old = record(ALONE, state=RunState.RUNNING)  # forgotten by squeue for an hour: not lost
    assert plan(world(SPEC, records=(old,), jobs=(nobody,)), Policy(), NOW).is_empty


def test_a_checkpoint_at_the_same_step_is_no_progress() -> None:
    assert lives("start", "5", "start", "5").idle_starts == 1
    assert fold([{"event": "started", "token": "x"}] * 3, "/r").idle_starts == 3
    assert Cause.PREEMPTED in Retry().on
    assert lives("start", "3").checkpoint == Checkpoint("/r/c", 3, "", 0)
