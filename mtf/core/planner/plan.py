"""The planner: turns what is committed, recorded and live into the actions that reconcile them.

Pure and idempotent: after its actions have been applied, the next plan is empty.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from mtf.core.planner.drift import (
    Drift,
    repairs,
    superseded,
    unrecorded_submissions,
    unrepaired,
    why_not_continued,
    why_not_submitted,
)
from mtf.core.planner.grids.grid_limits import (
    is_ours,
    left_out_notes,
    of_others,
    refused_runs,
    throttles,
)
from mtf.core.planner.grids.holds import hold_back, holds, without_held
from mtf.core.planner.grids.throttles import live_arrays
from mtf.core.planner.init_from_resolve import Lineage
from mtf.core.planner.journal_reader import Progress
from mtf.core.planner.news import if_changed, was_written_long_ago
from mtf.core.planner.reasons import cancelled_outside, change_text, refused_notes, summed
from mtf.core.planner.rows.run_rows import blocked_note, with_found_job
from mtf.core.planner.run_update import Retry, doomed, observe
from mtf.core.planner.spec_changes import follow_spec
from mtf.core.vocabulary.actions import Action, Adopt, Cancel, Plan, Record, Resume, Submit
from mtf.core.vocabulary.causes import Cause
from mtf.core.vocabulary.ids import name_of, run_id, submission_id, timestamp
from mtf.core.vocabulary.states import JobState, Sync
from mtf.core.vocabulary.times import iso, parse_time

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from mtf.core.planner.spec_changes import KeyChange
    from mtf.core.vocabulary.experiments import Desired
    from mtf.core.vocabulary.ids import CommitId, JobId, RunId, RunKey, SubmissionId, Token
    from mtf.core.vocabulary.jobs import ArrayLimit, JobView
    from mtf.core.vocabulary.records import Origin, RunRecord
    from mtf.errors import Problem


@dataclass(frozen=True)
class Policy:
    """What the settings and the command line allow."""

    retry: Retry = field(default_factory=Retry)
    prune: bool = False
    wants: Callable[[str], bool] = lambda _: True  # selects specs by name (`--only`)
    cluster: str = "default"
    progress_every: timedelta = timedelta(minutes=1)  # between records of progress alone
    # runs that are over and that a person asks for again, by key (`mtf rerun`)
    again: Mapping[RunKey, RunRecord] = field(default_factory=dict)


@dataclass(frozen=True)
class World:
    """Everything that a plan depends on, except the policy and the clock."""

    commit: CommitId  # the tracked branch's
    desired: tuple[tuple[Desired, tuple[RunKey, ...]], ...]  # keys in the experiments' order
    records: Mapping[RunId, RunRecord]
    # views of jobs by executor; an executor that cannot be read is missing
    live: Mapping[str, Mapping[tuple[Token, int], JobView]]
    unreadable: Mapping[str, str] = field(default_factory=dict)  # executor -> why
    progress: Mapping[RunId, Progress] = field(default_factory=dict)
    known: frozenset[SubmissionId] = frozenset()  # all in the ledger, also with damaged records
    taken: frozenset[SubmissionId] = frozenset()  # ids in the ledger or of job branches
    abandoned: frozenset[Token] = frozenset()  # claims whose submitter has died
    # runs whose newest job was fenced out -> the job that executes the run; None: no job does
    shut_out: Mapping[RunId, JobId | None] = field(default_factory=dict)
    elsewhere: frozenset[RunId] = frozenset()  # runs that only another clone or host can see
    private: Mapping[RunId, str] = field(default_factory=dict)  # or only another user -> why
    can_submit: bool = True
    # False: specs with mistakes are missing in ``desired``, so no run counts as orphaned
    specs_read: bool = True
    # active runs whose spec asks for another execution than their newest job has
    respecified: Mapping[RunId, Sequence[KeyChange]] = field(default_factory=dict)
    limits: Mapping[str, Mapping[str, ArrayLimit]] = field(default_factory=dict)  # by executor
    drift: Drift = field(default_factory=Drift)
    refused: Mapping[str, tuple[Problem, ...]] = field(default_factory=dict)  # specs, by policies


def plan(world: World, policy: Policy, now: datetime) -> Plan:
    """Return the actions, in run-id order, that turn what exists into what is committed."""
    notes: list[str] = []
    if policy.prune and not world.specs_read:
        policy = replace(policy, prune=False)
        notes.append("nothing is pruned while committed specs have mistakes")
    policy = replace(policy, again=policy.again or _refused_before(world, policy))
    decided, found = _decided(world, policy, now)
    notes += found
    specs = [each for each in world.desired if policy.wants(each[0].name)]
    ours = [r for r in world.records.values() if r.cluster == policy.cluster]
    new, waiting, found = _to_start(world, policy, decided, now)
    notes += found
    recorded = {record.key for record in world.records.values()}
    others = of_others(specs, recorded, policy.cluster)
    refused = refused_runs(specs, recorded, policy.cluster, world.refused)
    unchanged = _unchanged(world, policy, decided)
    notes += [*waiting, *left_out_notes(refused, world.refused, others)]
    notes += refused_notes(specs, ours, world.commit)
    if new and not world.can_submit:
        notes.append(f"{len(new)} runs will be submitted when the executor answers again")
        new = []
    decided |= _replaced(new, decided, world, policy)
    actions = [*decided.values(), *new, *repairs(world.drift, world.records, decided)]
    arrays = live_arrays(ours, world.live, world.limits, world.elsewhere)
    actions += throttles(arrays, specs, ours, policy.cluster)
    notes += [
        f"record {run} {why}: restored"
        for run, why in world.drift.records.items()
        if run in decided
    ]
    notes += unrepaired(world.drift, world.records)
    in_order = tuple(sorted(actions, key=lambda a: a.run))
    return Plan(in_order, unchanged, summed(notes), len(waiting), sum(refused.values()))


def _decided(world: World, policy: Policy, now: datetime) -> tuple[dict[RunId, Action], list[str]]:
    """Return the action for each recorded run that needs one, and notes."""
    keys = {key for _, spec_keys in world.desired for key in spec_keys}
    decided: dict[RunId, Action] = {}
    notes: list[str] = []
    for record in world.records.values():
        if record.cluster == policy.cluster and policy.wants(name_of(record.run)):
            wanted = record.key in keys or (not world.specs_read and record.sync is Sync.SYNCED)
            action, note = _recorded(record, world, policy, now, wanted=wanted)
            if (changes := world.respecified.get(record.run)) and world.can_submit:
                sight = _sight(world, record)
                action, said = follow_spec(action, record, *sight, changes=changes, now=now)
                note = note or said
            why_not = action and why_not_continued(action, world.drift)
            decided |= {record.run: action} if action and not why_not else {}
            notes += [text for text in (note, why_not) if text]
    return decided, notes


def _to_start(
    world: World, policy: Policy, decided: dict[RunId, Action], now: datetime
) -> tuple[list[Submit], list[str], list[str]]:
    """Return the submissions, a note for each run that waits for others, and further notes.

    What was ``decided`` about runs that are held back is changed.
    """
    seen = {run: action.record for run, action in decided.items() if isinstance(action, Record)}
    records = {**world.records, **seen}
    specs = [each for each in world.desired if policy.wants(each[0].name)]
    counted = (r for r in records.values() if r.key not in policy.again)
    held = holds(specs, counted, world.progress)
    ours = (r for r in world.records.values() if r.cluster == policy.cluster)
    active = (r for r in ours if not (r.is_over or r.cancel_requested))
    notes = hold_back(decided, ((r, *_sight(world, r)) for r in active), held, now)
    new, waiting, left_out = _missing(world, records, policy, now)
    new, held_back = without_held(new, held)
    return new, [*waiting, *held_back], [*notes, *left_out]


def _sight(world: World, record: RunRecord) -> tuple[JobView | None, Progress | None]:
    """Return the view of a run's newest job, and the progress in its journal."""
    views = world.live.get(record.executor, {})
    job = views.get((record.attempt.token, record.attempt.index))
    return job, world.progress.get(record.run)


def _replaced(
    new: Sequence[Action], decided: Mapping[RunId, Action], world: World, policy: Policy
) -> dict[RunId, Action]:
    """Return the cancellation of each active run that a new run replaces."""
    live = {r.run: r for r in world.records.values() if r.run not in world.elsewhere}
    live |= {run: a.record for run, a in decided.items() if isinstance(a, Record | Adopt | Resume)}
    return {
        run: Cancel(
            run,
            live[run],
            f"its spec has changed to {successor} (on_change: cancel)",
            kind="replaced",
        )
        for run, successor in superseded(new, live.values()).items()
        if live[run].cluster == policy.cluster
    }


def _refused_before(world: World, policy: Policy) -> dict[RunKey, RunRecord]:
    """Return the runs that no executor has accepted, by key, if another commit asks for them now.

    What made it refuse them is most likely in the specs or settings: the commit that corrects it is
    what people expect to run.
    """
    return {
        record.key: record
        for record in world.records.values()
        if record.was_refused
        and record.commit != world.commit
        and record.superseded_by is None
        and record.cluster == policy.cluster
    }


def _missing(
    world: World, records: Mapping[RunId, RunRecord], policy: Policy, now: datetime
) -> tuple[list[Submit], list[str], list[str]]:
    """Return the submissions, notes on runs that wait for others, and notes on runs left out.

    A run without a record is left out if the ledger has lost records. ``records`` are up to date.
    """
    recorded = {record.key for record in records.values()} - policy.again.keys()
    lineage = Lineage(world.desired, records.values(), is_whole=world.specs_read)
    unrecorded = unrecorded_submissions(world.drift, world.known)
    actions: list[Submit] = []
    waiting: list[str] = []
    left_out: list[str] = []
    for desired, spec_keys in world.desired:
        if not policy.wants(desired.name) or not is_ours(desired, policy.cluster):
            continue
        if desired.name in world.refused:
            continue
        missing = [
            (e, k) for e, k in zip(desired.experiments, spec_keys, strict=True) if k not in recorded
        ]
        if not missing:
            continue
        submission = _free_id(desired.name, world, now)
        for experiment, key in missing:
            recorded.add(key)
            if why := why_not_submitted(desired.name, experiment.member, world.drift, unrecorded):
                left_out.append(why)
                continue
            origin: Origin | str | None = desired.asked.origin if desired.asked else None
            if origin is None and (init_from := experiment.config.get("init_from")):
                origin = lineage.origin(init_from)
            if isinstance(origin, str):
                waiting.append(f"{desired.name} {origin}")
                continue
            run = run_id(submission, experiment.member)
            old = policy.again.get(key)
            why = _why_new(old)
            actions.append(Submit(run, desired, experiment, key, why, origin, supersedes=old))
    return actions, waiting, left_out


def _why_new(old: RunRecord | None) -> str:
    if old is None:
        return "new"
    return f"{old.run} was refused" if old.was_refused else f"mtf rerun {old.run}"


def _unchanged(world: World, policy: Policy, decided: Collection[RunId]) -> int:
    """Return the number of selected runs that are recorded and that no action concerns."""
    recorded = {record.key for record in world.records.values()}
    untouched = recorded - {world.records[run].key for run in decided} - policy.again.keys()
    return sum(
        key in untouched
        for desired, keys in world.desired
        if policy.wants(desired.name) and is_ours(desired, policy.cluster)
        for key in keys
    )


def _free_id(name: str, world: World, now: datetime) -> SubmissionId:
    while (candidate := submission_id(name, timestamp(now), world.commit)) in world.taken:
        now += timedelta(seconds=1)
    return candidate


def _recorded(
    record: RunRecord, world: World, policy: Policy, now: datetime, *, wanted: bool
) -> tuple[Action | None, str | None]:
    """Return the action for one recorded run, and a note."""
    live = world.live.get(record.executor)
    if record.is_over:
        return None, None
    if record.run in world.elsewhere:
        root = record.run_dir.removesuffix(record.run)
        other = f"runs under {root} are reconciled by another clone or host"
        return None, world.private.get(record.run, other)
    if live is None:
        why = world.unreadable.get(record.executor, "not asked")
        return (
            None,
            f"{record.executor} cannot be read ({why}): its runs are left alone until it answers",
        )
    job = live.get((record.attempt.token, record.attempt.index))
    orphan = record.wanted and not wanted
    if record.job_id is not None or record.retry_at is not None:
        return _known(record, job, world, policy, now, orphan=orphan)
    if job is None:
        if orphan and policy.prune:
            return _pruned(record.run, record), None
        return _claimed(record, world, policy, now)
    if job.state is JobState.UNKNOWN:
        return None, f"claims without a job will be checked again: {job.reason}"
    found = with_found_job(record, job)
    action, note = _known(found, job, world, policy, now, orphan=orphan)
    if action is None or isinstance(action, Record):
        new = found if action is None else action.record
        action = Adopt(record.run, new, job.job_id, "its job was found by the token")
    return action, note


def _pruned(run: RunId, record: RunRecord) -> Cancel:
    return Cancel(run, record, "its spec is gone (--prune)", kind="pruned")


def _shut_out(
    record: RunRecord, holder: JobId | None, world: World, now: datetime
) -> tuple[Action | None, str | None]:
    """Decide about a run whose job exited without training because it was fenced out.

    ``holder`` is the job that holds the claim of the run's folder, None if the claim was given up.
    """
    if holder is None and not world.can_submit:
        return None, "claims without a job wait for the executor"
    why = f"job {holder} executes the run" if holder else "the claim was given up before it began"
    at = iso(now)
    left = replace(record.attempt, ended_at=at, outcome=Cause.CANCELLED, reason=f"exited: {why}")
    if holder is None:
        record = record.with_attempt(left)
        return Resume(
            record.run, record, f"job {record.job_id} exited without training: {why}", fence=True
        ), None
    other = replace(record.attempt, job_id=holder)
    record = replace(record, attempts=(*record.attempts[:-1], left, other))
    return Record(record.run, record, f"job {left.job_id} exited without training: {why}"), None


def _known(
    record: RunRecord,
    job: JobView | None,
    world: World,
    policy: Policy,
    now: datetime,
    *,
    orphan: bool,
) -> tuple[Action | None, str | None]:
    """Decide about a run that has a job, or that waits for its next one."""
    holder = world.shut_out.get(record.run, record.job_id)
    if holder != record.job_id and record.retry_at is None:
        if holder or not record.cancel_requested:
            return _shut_out(record, holder, world, now)
        job = None  # it exited, and no other job will come
    progress = world.progress.get(record.run, Progress())
    new = observe(record, job, progress, retry=policy.retry, now=now)
    if new.is_over:
        return Record(record.run, new, change_text(record, new)), cancelled_outside(new)
    if new.retry_at is None and (ended := doomed(new, job, progress, policy.retry)):
        return Cancel(record.run, ended, ended.reason), None
    action, note = _active(record, new, world, policy, now, orphan=orphan)
    return action, note or blocked_note(new, job)


def _active(
    old: RunRecord, new: RunRecord, world: World, policy: Policy, now: datetime, *, orphan: bool
) -> tuple[Action | None, str | None]:
    """Decide about a run that goes on or will be continued."""
    note = None
    sync = Sync.OUT_OF_SYNC if orphan else Sync.SYNCED
    if new.sync is not sync:
        new = replace(new, sync=sync)
    if orphan and not old.cancel_requested:
        note = "runs of changed or removed specs continue. mtf sync --prune cancels them"
        if policy.prune:
            return _pruned(old.run, new), None
    if old.cancel_requested and was_written_long_ago(old, policy.progress_every, now):
        return Cancel(old.run, new, "its cancellation has had no effect yet"), note
    due = new.retry_at is not None and parse_time(new.retry_at) <= now
    if due and world.can_submit and not new.cancel_requested:
        return Resume(old.run, new, new.reason), note
    return if_changed(old, new, policy.progress_every, now), note


def _claimed(
    record: RunRecord, world: World, policy: Policy, now: datetime
) -> tuple[Action | None, str | None]:
    """Decide about a claim without a job."""
    attempt = record.attempt
    if attempt.put_off and now < parse_time(attempt.claimed_at) + policy.retry.wait(
        attempt.put_off
    ):
        return None, f"submission outcome unknown; checking again: {attempt.reason}"
    lapsed = parse_time(attempt.lease_until) <= now
    if lapsed or attempt.token in world.abandoned:
        why = "its lease has expired" if lapsed else "its submitter has died"
        if not world.can_submit:
            return None, "claims without a job wait for the executor"
        return Resume(record.run, record, f"claimed, never submitted: {why}", fence=True), None
    return None, f"claims held by {attempt.claimed_by}: another sync is submitting them"
