"""Drift: what somebody other than mtf has changed, and the actions that restore it. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from mtf.core.vocabulary.actions import Action, Cancel, Rebuild, Repin, Restore, Resume, Submit
from mtf.core.vocabulary.causes import Cause
from mtf.core.vocabulary.ids import JOB_BRANCH_PREFIX, RunId, SubmissionId, name_of
from mtf.core.vocabulary.states import RunState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from mtf.core.vocabulary.ids import CommitId
    from mtf.core.vocabulary.records import Attempt, RunRecord, SubmissionRecord

_T = TypeVar("_T")
_FEW = 3  # runs that get a note each
# Fields that are written with a run's claim and never change.
_IMMUTABLE = (
    "run",
    "experiment",
    "grid",
    "branch",
    "commit",
    "key",
    "generation",
    "cluster",
    "claimed_at",
    "parameters",
    "run_dir",
    "spec",
    "origin",
    "wanted",
    "snapshot_of",
    "reproduces",
    "trial",
)


@dataclass(frozen=True)
class Branches:
    """The job branches and their commits, by full name."""

    here: Mapping[str, CommitId] = field(default_factory=dict)
    on_remote: Mapping[str, CommitId] | None = None  # None: unknown

    @property
    def submissions(self) -> frozenset[SubmissionId]:
        """Return the submissions that have a branch here or on the remote."""
        refs = {*self.here, *(self.on_remote or ())}
        names = (ref.removeprefix(JOB_BRANCH_PREFIX) for ref in refs)
        return frozenset(SubmissionId(name) for name in names if name.count("/") == 2)


@dataclass(frozen=True)
class Drift:
    """Everything that differs from how mtf left it."""

    records: Mapping[RunId, str] = field(default_factory=dict)  # run records to restore -> why
    submissions: tuple[tuple[SubmissionRecord, str], ...] = ()  # records to restore, and why
    # records that cannot be restored: name of the spec and member -> why
    unreadable: Mapping[tuple[str, str | None], str] = field(default_factory=dict)
    branches: Branches | None = None  # None: unknown
    # where the branches belong that are elsewhere than records say; None: nobody can know
    pins: Mapping[SubmissionId, CommitId | None] = field(default_factory=dict)
    made_here: frozenset[SubmissionId] = frozenset()  # of this clone; their branches are gone
    folders: frozenset[RunId] = frozenset()  # runs without their folder or any checkpoint
    checkouts: frozenset[RunId] = frozenset()  # active runs whose pinned checkout is gone
    read_only: Mapping[RunId, str] = field(default_factory=dict)  # folders of others -> whose
    foreign: Mapping[RunId, str] = field(default_factory=dict)  # jobs of others -> whose
    notes: tuple[str, ...] = ()

    def with_note(self, note: str) -> Drift:
        """Return the drift with one more note."""
        return replace(self, notes=(*self.notes, note))


# -- records ---------------------------------------------------------------------------------------


def contradiction(old: RunRecord, new: RunRecord) -> str | None:
    """Return the reason why mtf cannot have changed ``old`` to ``new``, None if it can."""
    changed = [name for name in _IMMUTABLE if getattr(old, name) != getattr(new, name)]
    if changed:
        return f"{', '.join(changed)} changed"
    if old.superseded_by not in (None, new.superseded_by):
        return "superseded_by changed"
    if len(new.attempts) < len(old.attempts):
        return "an attempt is gone"
    kept = old.attempts[:-1] if old.is_put_off else old.attempts  # the next one replaces it
    if not all(map(_continues, kept, new.attempts)):
        return "an attempt changed"
    has_new_attempt = len(new.attempts) > len(old.attempts)
    is_final = old.is_over and old.state is not RunState.LOST
    if is_final and not has_new_attempt and new.state is not old.state:
        return f"{old.state} became {new.state}"
    return None


def _continues(old: Attempt, new: Attempt) -> bool:
    same = (old.token, old.index, old.claimed_at) == (new.token, new.index, new.claimed_at)
    return same and old.job_id in (None, new.job_id)


def merged(ours: RunRecord, theirs: RunRecord) -> tuple[RunRecord, tuple[Attempt, ...]] | None:
    """Return one record for a run that two ledgers have continued, and the attempts to be ended.

    All attempts are kept. Those of ``theirs`` come first, so that the merged record is a valid
    continuation of it. The newest attempt is that of ``ours``; attempts of ``theirs`` that may
    still have a job are given up. Return None if the two records are not of the same run.
    """
    if any(getattr(ours, name) != getattr(theirs, name) for name in _IMMUTABLE):
        return None
    our_tokens, their_tokens = ({a.token for a in r.attempts} for r in (ours, theirs))
    # Two jobs of one attempt: the claim in the run's folder lets only one of them execute it, so
    # theirs may stand. If the other job executes it, the planner notices when theirs has exited.
    successor = theirs.superseded_by or ours.superseded_by
    ours, theirs = (replace(record, superseded_by=successor) for record in (ours, theirs))
    disputed = any(not _agree(a, b) for a in ours.attempts for b in theirs.attempts)
    if their_tokens <= our_tokens and not disputed:
        return ours, ()
    if our_tokens <= their_tokens:
        return theirs, ()
    rivals = tuple(a for a in theirs.attempts if a.token not in our_tokens and a.ended_at is None)
    why = "given up: two ledgers had diverged, and both continued the run"
    before = [
        replace(a, outcome=Cause.CANCELLED, reason=why) if a in rivals else a
        for a in theirs.attempts
    ]
    after = [a for a in ours.attempts if a.token not in their_tokens]
    return replace(ours, attempts=(*before, *after)), rivals


def _agree(a: Attempt, b: Attempt) -> bool:
    return a.token != b.token or None in (a.job_id, b.job_id) or a.job_id == b.job_id


def why_not_submitted(
    name: str, member: str | None, drift: Drift, unrecorded: Collection[SubmissionId]
) -> str | None:
    """Return the reason why a run without a record must not be submitted, None if it may be.

    If the ledger has lost records, such a run may have been submitted before.
    """
    why = drift.unreadable.get((name, member))
    if why is not None:
        return f"{name} is not submitted: {why}"
    lost = [submission for submission in unrecorded if name_of(submission) == name]
    if lost:
        return (
            f"{name} is not submitted: the branch slurm-job/{lost[0]} exists, but mtf/ledger has no"
            " record of it. Another clone may have the record: run mtf sync there. If nothing ran"
            " from the branch, delete it"
        )
    return None


# -- branches, folders, checkouts ------------------------------------------------------------------


def unrecorded_submissions(drift: Drift, known: Collection[SubmissionId]) -> list[SubmissionId]:
    """Return the submissions that have a job branch but no record in the ledger."""
    return sorted(drift.branches.submissions - set(known)) if drift.branches else []


def repairs(
    drift: Drift, records: Mapping[RunId, RunRecord], busy: Collection[RunId]
) -> list[Action]:
    """Return the actions that restore what drifted, except records of ``busy`` runs.

    The plan has another action for a busy run, which writes its record.
    """
    actions: list[Action] = [
        Restore(run, records[run], f"its record {why}")
        for run, why in drift.records.items()
        if run not in busy
    ]
    actions += [
        Restore(RunId(s.submission), s, f"the submission's record {why}")
        for s, why in drift.submissions
    ]
    pinned = (r for r in records.values() if drift.pins.get(r.submission, r.commit) == r.commit)
    first = {r.submission: r for r in reversed(list(pinned))}
    for record in first.values():
        actions += _repins(record, drift)
    by_commit = {(r.commit, _root(r)): r for r in records.values() if r.run in drift.checkouts}
    actions += [
        Rebuild(r.run, r, f"the checkout of {r.commit[:8]} is gone, and {r.state} runs use it")
        for r in by_commit.values()
    ]
    return actions


def _root(record: RunRecord) -> str:
    return record.run_dir.removesuffix(record.run)


def _repins(record: RunRecord, drift: Drift) -> list[Action]:
    """Return the actions that restore the job branch of a run, here and on the remote."""
    if drift.branches is None:
        return []
    ref = f"refs/heads/{record.branch}"
    here, on_remote = drift.branches.here, drift.branches.on_remote
    actions: list[Action] = []
    if here.get(ref, record.commit) != record.commit or (
        ref not in here and record.submission in drift.made_here
    ):
        actions.append(_repin(record, here.get(ref), remote=False))
    if on_remote is not None and on_remote.get(ref) != record.commit:
        actions.append(_repin(record, on_remote.get(ref), remote=True))
    return actions


def _repin(record: RunRecord, found: CommitId | None, *, remote: bool) -> Repin:
    where = " on the remote" if remote else ""
    what = f"was moved{where} to {found}" if found else f"was deleted{where}"
    return Repin(record.run, record, f"{record.branch} {what}", found, on_remote=remote)


def why_not_continued(action: Action, drift: Drift) -> str | None:
    """Return the reason why this user must not carry out an action, None if he may."""
    if isinstance(action, Cancel) and action.record.cancel_requested:
        who = drift.foreign.get(action.run)
        return who and f"cancelled runs whose jobs are {who}'s are ended by {who}'s next mtf sync"
    if not isinstance(action, Resume):
        return None
    if owner := drift.read_only.get(action.run):
        return f"runs whose folders only {owner} may write are continued by {owner}: see mtf doctor"
    if action.run not in drift.folders:
        return None
    record = action.record
    if record.checkpoint is None:
        return None  # nothing is lost
    return (
        f"{record.run} is not continued: its checkpoints are gone from {record.run_dir}. Restore"
        f" them, or start again: mtf cancel {record.run}, then mtf retry {record.run}"
    )


def unrepaired(drift: Drift, records: Mapping[RunId, RunRecord]) -> list[str]:
    """Return a note about each drift that mtf does not repair, with what to do about it."""
    gone = [records[run] for run in sorted(drift.folders) if run in records]
    over = [r for r in gone if r.is_over]
    active = [(r.submission, r) for r in gone if not r.is_over and r.retry_at is None]
    notes = [
        f"the folder of {group[0].run} ({group[0].state}) is gone: restore it, or mtf cancel"
        f" {group[0].run}"
        if len(group) == 1
        else f"the folders of {len(group)} runs of {submission} that are not over are gone: restore"
        f" them, or mtf cancel {submission}"
        for submission, group in _few_or_all(active)
    ]
    if over:
        counts = Counter(r.submission for r in over)
        shown = ", ".join(f"{s} ({n})" for s, n in list(counts.items())[:3])
        more = f" and {len(counts) - 3} more" if len(counts) > 3 else ""
        notes.append(
            f"run folders are gone, with the checkpoints that the ledger names: {shown}{more}."
            " The records stay; mtf doctor lists the folders"
        )
    return [*drift.notes, *notes]


def _few_or_all(named: Iterable[tuple[str, _T]]) -> Iterator[tuple[str, list[_T]]]:
    """Yield the things of each name: each alone if they are few, otherwise all together."""
    groups: dict[str, list[_T]] = defaultdict(list)
    for name, one in named:
        groups[name].append(one)
    for name, group in groups.items():
        yield from [(name, group)] if len(group) > _FEW else ((name, [one]) for one in group)


def described(drift: Drift, records: Mapping[RunId, RunRecord]) -> list[str]:
    """Return a note about each drift, for commands that repair nothing."""
    actions = repairs(drift, records, ())
    restored = [(f"{name_of(a.run)} {a.reason}", a) for a in actions if isinstance(a, Restore)]
    repairable = [
        f"{group[0].run}: {group[0].reason}"
        if len(group) == 1
        else f"{name_of(group[0].run)}, {len(group)} runs: {group[0].reason}"
        for _, group in _few_or_all(restored)
    ]
    repairable += [a.reason for a in actions if not isinstance(a, Restore)]
    return [*(f"{what}: mtf sync restores it" for what in repairable), *unrepaired(drift, records)]


# -- changed specs ---------------------------------------------------------------------------------


def superseded(new: Iterable[Action], records: Iterable[RunRecord]) -> dict[RunId, RunId]:
    """Return each active run that a new one replaces (``on_change: cancel``), with the new one."""
    replacing = {
        (a.experiment.grid, a.experiment.name): a.run
        for a in new
        if isinstance(a, Submit) and a.desired.on_change == "cancel"
    }
    found = {}
    for record in records:
        successor = replacing.get((record.grid, record.experiment))
        if successor and record.wanted and not record.is_over:
            found[record.run] = successor
    return found
