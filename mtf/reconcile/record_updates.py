"""Builds the records that carrying out a plan writes. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, assert_never

from mtf import rundir
from mtf.core.planner import reasons
from mtf.core.vocabulary import json_text
from mtf.core.vocabulary.actions import (
    Action,
    Adopt,
    Cancel,
    Record,
    Restore,
    Resume,
    RunAction,
    Submit,
)
from mtf.core.vocabulary.causes import Cause
from mtf.core.vocabulary.experiments import Asked
from mtf.core.vocabulary.ids import SINGLE, job_branch, name_of, submission_of
from mtf.core.vocabulary.records import Attempt, RunRecord, SubmissionRecord
from mtf.core.vocabulary.shown_text import visible
from mtf.core.vocabulary.states import RunState, Sync
from mtf.errors import Problem
from mtf.ledger.codec import MAX_SUBMISSION, encode_submission
from mtf.report.tables import count

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mtf.core.vocabulary.ids import JobId, RunId, Token
    from mtf.reconcile.claimant import Claimant

_SAMPLE = 5  # configurations that tell how large others are
Place = tuple["Token", int]  # a run's job request, by its token, and the run's index in it


def changed_record(
    action: RunAction | Restore, place: Place | None, claimant: Claimant
) -> RunRecord:
    """Return the record that an action writes in the claiming commit."""
    match action:
        case Submit():
            assert place is not None
            return _new_record(action, place, claimant)
        case Resume():
            assert place is not None
            return _next_attempt(action, place, claimant)
        case Adopt():
            return with_job(action.record, action.job_id, claimant.at)
        case Record() | Restore():
            assert isinstance(action.record, RunRecord)
            return action.record
        case Cancel():
            return cancelled(action.record, action.reason, claimant.at)
        case _:
            assert_never(action)


def superseded_records(actions: Iterable[Action]) -> list[RunRecord]:
    """Return the records of the runs that others take the place of.

    They are written in the commit that claims the others: a run is superseded exactly if its
    successor is recorded.
    """
    return [
        replace(action.supersedes, superseded_by=action.run)
        for action in actions
        if isinstance(action, Submit) and action.supersedes is not None
    ]


def _new_record(action: Submit, place: Place, claimant: Claimant) -> RunRecord:
    e, asked = action.experiment, action.desired.asked or Asked()
    return RunRecord(
        run=action.run,
        experiment=e.name,
        grid=e.grid,
        branch=_branch(action),
        commit=claimant.commit,
        key=action.key,
        generation=e.generation,
        spec=action.desired.path,
        executor=claimant.executor,
        cluster=claimant.cluster,
        state=RunState.CLAIMED,
        reason="",
        claimed_at=claimant.at,
        observed_at=claimant.at,
        parameters=e.parameters,
        origin=action.origin,
        run_dir=str(rundir.run_dir(claimant.root, action.run)),
        folder=claimant.folder,
        wanted=action.desired.is_committed,
        holds_back=action.holds_back,
        snapshot_of=asked.snapshot_of,
        reproduces=asked.reproduces,
        trial=asked.trial,
        attempts=(_attempt(place, claimant),),
    )


def _next_attempt(action: Resume, place: Place, claimant: Claimant) -> RunRecord:
    """Return the record with another attempt, which replaces one that was put off."""
    record, last = action.record, action.record.attempt
    attempt = replace(
        _attempt(place, claimant),
        start_step=record.checkpoint.step if record.checkpoint else 0,
        asked=action.asked or (last.asked and last.job_id is None),
        changes={**last.changes, **action.changes},
        followed={**last.followed, **action.followed},
        put_off=0 if action.asked or last.job_id else last.put_off,
    )
    kept = record.attempts[:-1] if record.is_put_off else record.attempts
    goes_on = record.retry_at is not None and not record.is_put_off
    by_hand = last.outcome == Cause.CANCELLED and not record.cancel_requested
    return replace(
        record,
        sync=Sync.SYNCED if action.asked and by_hand else record.sync,
        state=record.state if goes_on else RunState.CLAIMED,
        reason=record.reason if goes_on else "",
        executor=claimant.executor,
        retry_at=None,
        finished_at=None,
        cancel_requested=False,
        attempts=(*kept, attempt),
    )


def _attempt(place: Place, claimant: Claimant) -> Attempt:
    return Attempt(
        token=place[0],
        index=place[1],
        claimed_at=claimant.at,
        claimed_by=claimant.who,
        lease_until=claimant.lease_until,
    )


def with_job(record: RunRecord, job: JobId, at: str) -> RunRecord:
    """Return the record of a claim, with the job that was submitted for it."""
    attempt = replace(record.attempt, job_id=job, submitted_at=at, reason="")
    fresh = record.state is RunState.CLAIMED
    return replace(
        record.with_attempt(attempt),
        state=RunState.PENDING if fresh else record.state,
        reason="" if fresh else record.reason,
        submitted_at=record.submitted_at or at,
    )


def refused(record: RunRecord, why: str, at: str) -> RunRecord:
    """Return the record of a run whose job the executor refused for good."""
    attempt = replace(record.attempt, ended_at=at, outcome=Cause.SUBMISSION, reason=why)
    return replace(
        record.with_attempt(attempt),
        state=RunState.FAILED,
        reason=f"refused by {record.executor}: {why}",
        finished_at=at,
    )


def put_off(record: RunRecord, why: str, at: str, retry_at: str) -> RunRecord:
    """Return the record of a run whose job was certainly not accepted, but may be later."""
    last = record.attempt
    attempt = replace(
        last, ended_at=at, outcome=Cause.SUBMISSION, reason=why, put_off=last.put_off + 1
    )
    tries = f" (tried {attempt.put_off} times)" if attempt.put_off > 1 else ""
    return replace(
        record.with_attempt(attempt),
        state=RunState.PENDING if record.state is RunState.CLAIMED else record.state,
        reason=f"{record.executor} could not accept it yet{tries}: {why}",
        retry_at=retry_at,
    )


def unclear(record: RunRecord, why: str) -> RunRecord:
    """Return the record of a claim that may or may not have a job."""
    attempt = replace(record.attempt, reason=why, put_off=record.attempt.put_off + 1)
    return record.with_attempt(attempt)


def unended(record: RunRecord) -> RunRecord:
    """Return a run's record so that the next sync ends its job, whose executor did not answer."""
    return replace(record, observed_at=None)


def cancelled(record: RunRecord, why: str, at: str) -> RunRecord:
    """Return the record of a run to be cancelled; without a live job it is over at once."""
    reason = reasons.cancel_requested(record, why)
    record = replace(record, cancel_requested=True, reason=reason)
    if record.job_id is not None and record.retry_at is None:
        return record
    attempt = replace(
        record.attempt, outcome=Cause.CANCELLED, ended_at=record.attempt.ended_at or at
    )
    return replace(
        record.with_attempt(attempt),
        state=RunState.CANCELLED,
        reason=reasons.cancelled(record),
        finished_at=at,
        retry_at=None,
    )


def submission_records(
    actions: Iterable[Action], claimant: Claimant
) -> tuple[SubmissionRecord, ...]:
    """Return the records of the submissions that these actions begin or restore."""
    groups: dict[str, list[Submit]] = {}
    restored: list[SubmissionRecord] = []
    for action in actions:
        if isinstance(action, Submit):
            groups.setdefault(submission_of(action.run), []).append(action)
        elif isinstance(action, Restore) and isinstance(action.record, SubmissionRecord):
            restored.append(action.record)
    return (*(_submission_record(group, claimant) for group in groups.values()), *restored)


def _submission_record(group: list[Submit], claimant: Claimant) -> SubmissionRecord:
    first = group[0]
    return SubmissionRecord(
        submission=submission_of(first.run),
        spec=first.desired.path,
        commit=claimant.commit,
        branch=_branch(first),
        grid=first.experiment.grid,
        created_at=claimant.at,
        created_by=claimant.who,
        max_parallel=first.desired.max_parallel,
        runs=tuple(a.run for a in group),
        configs={a.experiment.member or SINGLE: a.experiment.config for a in group},
    )


def too_large(actions: Iterable[Action], claimant: Claimant) -> dict[RunId, tuple[Problem, ...]]:
    """Return the runs of submissions whose records are larger than the ledger takes."""
    found: dict[RunId, tuple[Problem, ...]] = {}
    for record in submission_records(actions, claimant):
        few = [*record.configs.values()][:_SAMPLE]
        likely = sum(len(json_text.dumps(config)) for config in few) / len(few) * len(record.runs)
        if likely > MAX_SUBMISSION / 16 and len(encode_submission(record)) > MAX_SUBMISSION:
            message = (
                f"{name_of(record.submission)}: the configurations of its {len(record.runs):,} runs"
                f" have more than {MAX_SUBMISSION:,} bytes. Split it, or shorten its values"
            )
            problem = Problem(record.spec, 1, 1, message)
            found |= dict.fromkeys(record.runs, (problem,))
    return found


def _branch(action: Submit) -> str:
    return job_branch(submission_of(action.run)).removeprefix("refs/heads/")


_VERBS: dict[type[Action], str] = {
    Submit: "claim",
    Resume: "continue",
    Adopt: "adopt",
    Record: "record",
    Cancel: "cancel",
    Restore: "restore",
}


def claim_message(actions: Sequence[Action]) -> str:
    """Return the message of the claiming commit: each run with what happens to it."""
    counts = Counter(_VERBS[type(a)] for a in actions)
    what = ", ".join(f"{verb} {count(n, 'run')}" for verb, n in counts.items())
    lines = [visible(f"{a.run}: {a.reason}", 500) for a in actions[:100]]
    more = [f"... and {len(actions) - 100} more"] if len(actions) > 100 else []
    return "\n".join([f"mtf: {what}", "", *lines, *more]) + "\n"
