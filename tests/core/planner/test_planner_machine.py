"""The planner in a simulated world: specs come and go, syncs die, jobs end in every way.

Whatever happens: no run trains twice, no two jobs of a run train at once, nothing that is asked for
is forgotten, jobs of others are left alone, and once things calm down the plan is empty.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mtf.core.planner.drift import contradiction
from mtf.core.planner.journal_reader import fold
from mtf.core.planner.plan import Policy, World, plan
from mtf.core.vocabulary.actions import Adopt, Cancel, Rebuild, Repin, Resume, Submit, Throttle
from mtf.core.vocabulary.experiments import run_key
from mtf.core.vocabulary.ids import JobId, RunId, Token, submission_of
from mtf.core.vocabulary.jobs import JobView
from mtf.core.vocabulary.states import JobState
from mtf.reconcile.claimant import Claimant
from mtf.reconcile.record_updates import (
    changed_record,
    put_off,
    refused,
    unclear,
    with_job,
)
from tests.core.planner.worlds import COMMIT, NOW, desired, experiment

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from mtf.core.vocabulary.actions import Action
    from mtf.core.vocabulary.records import RunRecord

NAMES = ("a", "b", "grid")
FENCED = "fenced"
LIVE = (JobState.PENDING, JobState.HELD, JobState.RUNNING)
ENDS = (
    JobState.FAILED,
    JobState.NODE_FAILURE,
    JobState.TIMEOUT,
    JobState.OUT_OF_MEMORY,
    JobState.CANCELLED,
    JobState.PREEMPTED,
)
# How a sync may end between its plan and its last record.
FATES = (
    "fine",
    "dies before its claim",
    "dies after its claim",
    "dies after sbatch",
    "sleeps after its claim",
    "is refused",
    "is put off",
    "hears nothing, and it was taken",
    "hears nothing, and it was not taken",
)


@dataclass
class Job:
    """One task at the cluster. ``mine``: it won the claim of its run folder."""

    id: JobId
    run: RunId
    token: Token
    index: int
    state: JobState = JobState.PENDING
    restarts: int = 0
    mine: bool = False
    ended_at: datetime | None = None
    forgotten: bool = False


@dataclass
class Sleeper:
    """A sync that was stopped after its claim and will still submit."""

    starts: list[tuple[RunId, Token, int]] = field(default_factory=list)


class Clusters(RuleBasedStateMachine):
    """One repository, one cluster, some syncs."""

    @initialize()
    def begin(self) -> None:
        self.now = NOW
        self.specs: dict[str, dict[str, int]] = {}
        self.records: dict[RunId, RunRecord] = {}
        self.jobs: list[Job] = []
        self.claims: dict[tuple[RunId, Token], str] = {}
        self.journals: dict[RunId, list[dict[str, Any]]] = {}
        self.complete: dict[RunId, int] = {}
        self.gone: set[Token] = set()  # of submitters known to be dead
        self.sleepers: list[Sleeper] = []
        self.serial = 0
        self.foreign_jobs = [Job(JobId("7777"), RunId("x"), Token(""), 0, JobState.RUNNING)]

    # -- what people do ----------------------------------------------------------------------------

    @rule(name=st.sampled_from(NAMES), seed=st.integers(0, 2), size=st.integers(1, 3))
    def commit(self, name: str, seed: int, size: int) -> None:
        self.specs[name] = {"seed": seed, "size": size if name == "grid" else 1}

    @precondition(lambda self: self.specs)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        del self.specs[data.draw(st.sampled_from(sorted(self.specs)))]

    @precondition(lambda self: self.live())
    @rule(data=st.data())
    def cancel_by_hand(self, data: st.DataObject) -> None:
        self.end(data.draw(st.sampled_from(self.live())), JobState.CANCELLED)

    @precondition(lambda self: any(r.is_over for r in self.records.values()))
    @rule(data=st.data(), fate=st.sampled_from(FATES))
    def retry(self, data: st.DataObject, fate: str) -> None:
        over = [r for r in self.records.values() if r.is_over and r.state != "completed"]
        if over:
            record = data.draw(st.sampled_from(sorted(over, key=lambda r: r.run)))
            self.apply([Resume(record.run, record, "mtf retry", asked=True)], fate)

    @precondition(lambda self: not all(r.is_over for r in self.records.values()))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        active = sorted((r for r in self.records.values() if not r.is_over), key=lambda r: r.run)
        record = data.draw(st.sampled_from(active))
        self.apply([Cancel(record.run, record, "mtf cancel")], "fine")

    # -- what the cluster does ---------------------------------------------------------------------

    @rule(minutes=st.sampled_from([0.1, 2, 30, 300]))
    def time_passes(self, minutes: float) -> None:
        self.now += timedelta(minutes=minutes)

    @precondition(lambda self: self.of(JobState.PENDING))
    @rule(data=st.data())
    def a_job_starts(self, data: st.DataObject) -> None:
        self.start(data.draw(st.sampled_from(self.of(JobState.PENDING))))

    @precondition(lambda self: self.of(JobState.RUNNING))
    @rule(data=st.data())
    def a_job_saves(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.of(JobState.RUNNING)))
        self.save(job)

    @precondition(lambda self: self.of(JobState.RUNNING))
    @rule(data=st.data())
    def a_training_is_complete(self, data: st.DataObject) -> None:
        self.finish(data.draw(st.sampled_from(self.of(JobState.RUNNING))))

    @precondition(lambda self: self.of(JobState.RUNNING))
    @rule(data=st.data(), how=st.sampled_from(ENDS))
    def a_job_ends(self, data: st.DataObject, how: JobState) -> None:
        self.end(data.draw(st.sampled_from(self.of(JobState.RUNNING))), how)

    @precondition(lambda self: self.of(JobState.RUNNING))
    @rule(data=st.data())
    def a_job_is_requeued(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.of(JobState.RUNNING)))
        job.state, job.restarts = JobState.PENDING, job.restarts + 1

    @rule()
    def ended_jobs_are_forgotten(self) -> None:
        for job in self.jobs:
            job.forgotten = job.forgotten or job.state not in LIVE

    # -- syncs -------------------------------------------------------------------------------------

    @rule(
        fate=st.sampled_from(FATES),
        prune=st.booleans(),
        readable=st.sampled_from([True, True, False]),
    )
    def sync(self, fate: str, *, prune: bool, readable: bool) -> None:
        before = dict(self.records)
        self.apply(list(self.plan(prune=prune, readable=readable).actions), fate)
        if not readable:
            assert self.records == before, "nothing may be decided without the executor's word"

    @precondition(lambda self: self.sleepers)
    @rule()
    def a_sleeping_sync_wakes_up(self) -> None:
        for start in self.sleepers.pop(0).starts:
            self.sbatch(*start)

    # -- mechanics ---------------------------------------------------------------------------------

    def desired(self) -> tuple[Any, ...]:
        made = []
        for name, spec in sorted(self.specs.items()):
            if name == "grid":
                some = [
                    experiment(f"n={n}", "grid", seed=spec["seed"], n=n)
                    for n in range(spec["size"])
                ]
            else:
                some = [experiment(name, seed=spec["seed"])]
            made.append((desired(*some), tuple(run_key(e, {}) for e in some)))
        return tuple(made)

    def plan(self, *, prune: bool = False, readable: bool = True) -> Any:
        views = {(j.token, j.index): self.view(j) for j in self.jobs if not j.forgotten}
        world = World(
            commit=COMMIT,
            desired=self.desired(),
            records=self.records,
            live={"slurm": views} if readable else {},
            unreadable={} if readable else {"slurm": "down"},
            progress={run: fold(facts, f"/runs/{run}") for run, facts in self.journals.items()},
            taken=frozenset(submission_of(run) for run in self.records),
            abandoned=frozenset(self.gone),
            can_submit=readable,
        )
        return plan(world, Policy(prune=prune), self.now)

    def view(self, job: Job) -> JobView:
        return JobView(
            job_id=job.id,
            token=job.token,
            index=job.index,
            state=job.state,
            raw_state=job.state.upper(),
            restarts=job.restarts,
            ended_at=job.ended_at,
            exit_code=1 if job.state is JobState.FAILED else 0,
        )

    def apply(self, actions: list[Action], fate: str) -> None:
        """Do what ``Application.carry_out`` does, with the same records."""
        if fate == "dies before its claim" or not actions:
            return
        actions = [self.fenced(action) for action in actions]
        by = Claimant("me@here:1", self.now, COMMIT, "slurm", "default", 600.0, Path("/runs"))
        starts: list[tuple[RunId, Token, int]] = []
        for action in actions:
            place = None
            if isinstance(action, Submit | Resume):
                self.serial += 1
                place = Token(f"{self.serial:016x}"), 0
                starts.append((action.run, *place))
            assert not isinstance(action, Repin | Rebuild | Throttle)
            self.write(changed_record(action, place, by))
        for action in actions:
            if isinstance(action, Cancel) and action.record.job_id:
                for job in self.jobs:
                    if job.id == action.record.job_id and job.state in LIVE:
                        self.end(job, JobState.CANCELLED)
        self.hand_over(starts, fate)

    def hand_over(self, starts: list[tuple[RunId, Token, int]], fate: str) -> None:
        at = self.now.isoformat(timespec="seconds")
        tokens = {token for _, token, _ in starts}
        if fate == "dies after its claim":
            self.gone |= tokens
        elif fate == "sleeps after its claim":
            self.sleepers.append(Sleeper(starts))
        elif fate == "is refused":
            self.settle(starts, lambda r: refused(r, "no such partition", at))
        elif fate == "is put off":
            later = (self.now + timedelta(minutes=1)).isoformat(timespec="seconds")
            self.settle(starts, lambda r: put_off(r, "too many jobs", at, later))
        elif fate == "hears nothing, and it was not taken":
            self.settle(starts, lambda r: unclear(r, "Socket timed out"))
        else:
            jobs = {run: self.sbatch(run, token, index).id for run, token, index in starts}
            if fate == "dies after sbatch":
                self.gone |= tokens
            elif fate == "hears nothing, and it was taken":
                self.settle(starts, lambda r: unclear(r, "Socket timed out"))
            else:
                self.settle(starts, lambda r: with_job(r, jobs[r.run], at))

    def settle(
        self, starts: list[tuple[RunId, Token, int]], change: Callable[[RunRecord], RunRecord]
    ) -> None:
        for run, token, _ in starts:
            if self.records[run].attempt.token == token:
                self.write(change(self.records[run]))

    def write(self, new: RunRecord) -> None:
        """Write a record; the audit of the ledger must accept the change."""
        old = self.records.get(new.run)
        assert old is None or contradiction(old, new) is None
        self.records[new.run] = new

    def fenced(self, action: Action) -> Action:
        claim = isinstance(action, Cancel) and action.record.job_id is None
        unborn = claim and action.record.retry_at is None  # type: ignore[union-attr]
        if not (unborn or (isinstance(action, Resume) and action.fence)):
            return action
        assert isinstance(action, Cancel | Resume)
        place = action.run, action.record.attempt.token
        holder = self.claims.setdefault(place, FENCED)
        if holder == FENCED:
            return action
        return Adopt(action.run, action.record, JobId(holder), "its job has started")

    def sbatch(self, run: RunId, token: Token, index: int) -> Job:
        self.serial += 1
        job = Job(JobId(str(1000 + self.serial)), run, token, index)
        self.jobs.append(job)
        return job

    def start(self, job: Job) -> None:
        """Claim the run folder as a job does first; a second job exits at once."""
        job.mine = self.claims.setdefault((job.run, job.token), job.id) == job.id
        if not job.mine:
            self.end(job, JobState.FAILED)
            return
        job.state = JobState.RUNNING
        self.tell(job, "started", token=job.token, job_id=job.id)
        if self.complete.get(job.run):  # a complete training starts as a no-op
            self.end(job, JobState.COMPLETED)

    def save(self, job: Job) -> None:
        steps = [f["step"] for f in self.journals[job.run] if f["event"] == "checkpoint"]
        step = max(steps, default=0) + 1
        self.tell(job, "checkpoint", path=f"{step}.ckpt", step=step, sha256="f" * 64, bytes=1)

    def finish(self, job: Job) -> None:
        self.save(job)
        self.complete[job.run] = self.complete.get(job.run, 0) + 1
        self.tell(job, "finished", epoch=1, step=9)
        self.end(job, JobState.COMPLETED)

    def tell(self, job: Job, event: str, **fields: Any) -> None:
        at = self.now.isoformat(timespec="milliseconds")
        self.journals.setdefault(job.run, []).append({"event": event, "at": at, **fields})

    def end(self, job: Job, how: JobState) -> None:
        job.state, job.ended_at = how, self.now

    def of(self, state: JobState) -> list[Job]:
        return [job for job in self.jobs if job.state is state]

    def live(self) -> list[Job]:
        return [job for job in self.jobs if job.state in LIVE]

    # -- what must hold ----------------------------------------------------------------------------

    @invariant()
    def no_two_jobs_of_a_run_train_at_once(self) -> None:
        running = [job.run for job in self.of(JobState.RUNNING)]
        assert len(running) == len(set(running))

    @invariant()
    def nothing_trains_twice(self) -> None:
        assert all(count == 1 for count in self.complete.values())

    @invariant()
    def jobs_of_others_are_left_alone(self) -> None:
        assert self.foreign_jobs[0].state is JobState.RUNNING

    @invariant()
    def a_key_has_one_run(self) -> None:
        keys = [record.key for record in self.records.values()]
        assert len(keys) == len(set(keys))

    def is_at_rest(self) -> bool:
        """Return True if nothing will happen any more; a run that waits for its back-off will go on."""
        over = all(record.is_over for record in self.records.values())
        return over and self.plan().is_empty and not self.live()

    def teardown(self) -> None:
        """Sync without faults until everything that was asked for is over and stays over."""
        if not hasattr(self, "specs"):
            return
        for sleeper in self.sleepers:
            for start in sleeper.starts:
                self.sbatch(*start)
        self.sleepers = []
        for _ in range(30):
            self.now += timedelta(hours=2)
            self.sync("fine", prune=False, readable=True)
            for job in self.of(JobState.PENDING):
                self.start(job)
            for job in self.of(JobState.RUNNING):
                self.finish(job)
            if self.is_at_rest():
                break
        assert self.plan().is_empty, self.plan().actions
        recorded = {record.key: record for record in self.records.values()}
        wanted = {key for _, keys in self.desired() for key in keys}
        assert wanted <= recorded.keys(), "something that is asked for is forgotten"
        assert all(record.is_over for record in recorded.values())
        done = {run for run, record in self.records.items() if record.state == "completed"}
        assert done == set(self.complete), "a run is complete when its training says so"
        self.no_two_jobs_of_a_run_train_at_once()
        self.nothing_trains_twice()


def test_a_run_that_waits_for_its_back_off_is_not_at_rest() -> None:
    clusters = Clusters()
    clusters.begin()
    clusters.commit("a", seed=0, size=1)
    clusters.sync("fine", prune=False, readable=True)
    clusters.start(clusters.jobs[0])
    clusters.end(clusters.jobs[0], JobState.NODE_FAILURE)
    clusters.sync("fine", prune=False, readable=True)
    assert clusters.plan().is_empty
    assert not clusters.live()
    assert not clusters.is_at_rest()
    clusters.teardown()
    assert [record.state for record in clusters.records.values()] == ["completed"]


TestClusters = Clusters.TestCase
TestClusters.settings = settings(
    max_examples=80,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
