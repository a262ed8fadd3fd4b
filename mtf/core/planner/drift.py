"""Drift: what somebody but mtf has changed, and what is to be done about it. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mtf.core.vocabulary.actions import Action, Rebuild, Repin, Restore, Resume, Submit
from mtf.core.vocabulary.causes import Cause
from mtf.core.vocabulary.ids import JOB_BRANCH_PREFIX, RunId, SubmissionId, name_of
from mtf.core.vocabulary.states import RunState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from mtf.core.vocabulary.ids import CommitId
    from mtf.core.vocabulary.records import Attempt, RunRecord, SubmissionRecord

# What a run is: written with its claim, never changed.
_LASTING = (
    "run", "experiment", "grid", "branch", "commit", "key", "generation", "cluster", "claimed_at",
    "parameters", "run_dir",
)  # fmt: skip


@dataclass(frozen=True)
class Branches:
    """Where the job branches are, by their full names."""

    here: Mapping[str, CommitId] = field(default_factory=dict)
    there: Mapping[str, CommitId] | None = None  # on the remote; None: not known

    @property
    def submissions(self) -> frozenset[SubmissionId]:
        """Return the submissions that have a branch anywhere."""
        names = (ref.removeprefix(JOB_BRANCH_PREFIX) for ref in {*self.here, *(self.there or ())})
        return frozenset(SubmissionId(name) for name in names if name.count("/") == 2)


@dataclass(frozen=True)
class Drift:
    """What was found to be other than mtf has left it."""

    records: Mapping[RunId, str] = field(default_factory=dict)  # as history has them -> why
    submissions: tuple[tuple[SubmissionRecord, str], ...] = ()  # the same
    # records that cannot be put back: name of the spec and member -> why
    unreadable: Mapping[tuple[str, str | None], str] = field(default_factory=dict)
    branches: Branches | None = None  # None: not looked at
    made_here: frozenset[SubmissionId] = frozenset()  # whose branches this clone is to have
    folders: frozenset[RunId] = frozenset()  # runs whose folder, or all checkpoints, are gone
    checkouts: frozenset[RunId] = frozenset()  # active runs whose pinned checkout is gone
    notes: tuple[str, ...] = ()

    def saying(self, note: str) -> Drift:
        """Return the same with one more thing to say."""
        return replace(self, notes=(*self.notes, note))


# -- records ---------------------------------------------------------------------------------------


def contradiction(old: RunRecord, new: RunRecord) -> str | None:
    """Return why ``new`` cannot be what mtf has made of ``old``; None when it can."""
    changed = [name for name in _LASTING if getattr(old, name) != getattr(new, name)]
    if changed:
        return f"{', '.join(changed)} changed"
    if len(new.attempts) < len(old.attempts):
        return "an attempt is gone"
    lasting = old.attempts[:-1] if old.is_put_off else old.attempts  # that one gives way
    if not all(map(_continues, lasting, new.attempts)):
        return "an attempt changed"
    again = len(new.attempts) > len(old.attempts)
    settled = old.is_over and old.state is not RunState.LOST
    if settled and not again and new.state is not old.state:
        return f"{old.state} became {new.state}"
    return None


def _continues(old: Attempt, new: Attempt) -> bool:
    same = (old.token, old.index, old.claimed_at) == (new.token, new.index, new.claimed_at)
    return same and old.job_id in (None, new.job_id)


def united(ours: RunRecord, theirs: RunRecord) -> tuple[RunRecord, tuple[Attempt, ...]] | None:
    """Return one record of a run that two ledgers have continued, and the attempts to be ended.

    No attempt is forgotten. Theirs come first, so that the record continues theirs too and nobody
    takes it for an edit; the newest is ours, so the others that may have a job are given up. None:
    the two are not the same run.
    """
    if any(getattr(ours, name) != getattr(theirs, name) for name in _LASTING):
        return None
    mine, known = ({a.token for a in r.attempts} for r in (ours, theirs))
    # two jobs of one attempt: the claim in the run's folder lets one of them execute it, so theirs
    # may stand; where it is the other, the planner finds that when theirs has left
    disputed = any(not _agree(a, b) for a in ours.attempts for b in theirs.attempts)
    if known <= mine and not disputed:
        return ours, ()
    if mine <= known:
        return theirs, ()
    rivals = tuple(a for a in theirs.attempts if a.token not in mine and a.ended_at is None)
    why = "given up: two ledgers had parted, and the other has continued the run as well"
    before = [replace(a, outcome=Cause.CANCELLED, reason=why) if a in rivals else a
              for a in theirs.attempts]  # fmt: skip
    after = [a for a in ours.attempts if a.token not in known]
    return replace(ours, attempts=(*before, *after)), rivals


def _agree(a: Attempt, b: Attempt) -> bool:
    return a.token != b.token or None in (a.job_id, b.job_id) or a.job_id == b.job_id


def held(
    name: str, member: str | None, drift: Drift, strange: Collection[SubmissionId]
) -> str | None:
    """Return why a run that no record stands for is not to be submitted; None when it is.

    Where the ledger has lost something, a missing record may be one of a run that was submitted.
    """
    why = drift.unreadable.get((name, member))
    if why is not None:
        return f"{name} is not submitted: {why}"
    lost = [submission for submission in strange if name_of(submission) == name]
    if lost:
        return (
            f"{name} is not submitted: the branch slurm-job/{lost[0]} is there, and mtf/ledger has"
            " no record of it. Another clone may have it: run mtf sync there. If nothing was run"
            " from it, delete the branch"
        )
    return None


# -- branches, folders, checkouts ------------------------------------------------------------------


def strangers(drift: Drift, known: Collection[SubmissionId]) -> list[SubmissionId]:
    """Return the submissions that have a job branch, and no record in the ledger."""
    return sorted(drift.branches.submissions - set(known)) if drift.branches else []


def repairs(
    drift: Drift, records: Mapping[RunId, RunRecord], busy: Collection[RunId]
) -> list[Action]:
    """Return what puts things back. ``busy``: runs whose records are written anyway."""
    actions: list[Action] = [
        Restore(run, records[run], f"its record {why}")
        for run, why in drift.records.items()
        if run not in busy
    ]
    actions += [
        Restore(RunId(s.submission), s, f"the submission's record {why}")
        for s, why in drift.submissions
    ]
    first = {r.submission: r for r in reversed(list(records.values()))}
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
    """Return what puts the branch of a run's submission back, here and on the remote."""
    if drift.branches is None:
        return []
    ref = f"refs/heads/{record.branch}"
    here, there = drift.branches.here, drift.branches.there
    actions: list[Action] = []
    if here.get(ref, record.commit) != record.commit or (
        ref not in here and record.submission in drift.made_here
    ):
        actions.append(_repin(record, here.get(ref), remote=False))
    if there is not None and there.get(ref) != record.commit:
        actions.append(_repin(record, there.get(ref), remote=True))
    return actions


def _repin(record: RunRecord, found: CommitId | None, *, remote: bool) -> Repin:
    where = " on the remote" if remote else ""
    what = f"was moved{where} to {found}" if found else f"was deleted{where}"
    return Repin(record.run, record, f"{record.branch} {what}", found, on_remote=remote)


def stopped(action: Action, drift: Drift) -> str | None:
    """Return why an attempt is not to be started, None when it may be."""
    if not isinstance(action, Resume) or action.run not in drift.folders:
        return None
    record = action.record
    if record.checkpoint is None:
        return None  # nothing is lost
    return (
        f"{record.run} is not continued: its checkpoints are gone from {record.run_dir}. Put them"
        f" back, or start it anew: mtf cancel {record.run}, then mtf retry {record.run}"
    )


def remarks(drift: Drift, records: Mapping[RunId, RunRecord]) -> list[str]:
    """Return what is said of drift that is not repaired, each with what to do."""
    gone = [records[run] for run in sorted(drift.folders) if run in records]
    over = [r for r in gone if r.is_over]
    notes = [
        f"the folder of {r.run} ({r.state}) is gone: put it back, or mtf cancel {r.run}"
        for r in gone
        if not r.is_over and r.retry_at is None
    ]
    if over:
        counts = Counter(r.submission for r in over)
        shown = ", ".join(f"{s} ({n})" for s, n in list(counts.items())[:3])
        more = f" and {len(counts) - 3} more" if len(counts) > 3 else ""
        notes.append(
            f"run folders are gone, and the checkpoints that the ledger names with them: {shown}"
            f"{more}. The records stay; mtf doctor lists the folders"
        )
    return [*drift.notes, *notes]


def told(drift: Drift, records: Mapping[RunId, RunRecord]) -> list[str]:
    """Return all that is other than mtf has left it, for somebody who only looks."""
    todo = [f"{a.run}: {a.reason}" if isinstance(a, Restore) else a.reason
            for a in repairs(drift, records, ())]  # fmt: skip
    return [*(f"{what}: mtf sync puts it back" for what in todo), *remarks(drift, records)]


# -- changed specs ---------------------------------------------------------------------------------


def superseded(new: Iterable[Action], records: Iterable[RunRecord]) -> dict[RunId, RunId]:
    """Return the active runs that new ones take the place of (``on_change: cancel``), and which."""
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
