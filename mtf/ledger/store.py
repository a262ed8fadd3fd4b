"""The ledger's store: reads it whole, appends to it by compare-and-swap, here and on the remote.

A linearizable log. Whoever finds the ledger moved gets ``RefMovedError``, reads again and decides
anew; nobody merges, nobody overwrites.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mtf.core.planner.drift import Branches
from mtf.core.vocabulary.ids import (
    JOB_BRANCH_PREFIX,
    LEDGER_REF,
    SEEN_REF,
    RunId,
    SubmissionId,
    record_path,
    submission_at,
    submission_path,
)
from mtf.core.vocabulary.records import RunRecord, SubmissionRecord
from mtf.errors import RepositoryError
from mtf.git.repo import RefUpdate
from mtf.ledger.audit import RUNS, SUBMISSIONS, Trouble, audit, decode_at
from mtf.ledger.codec import DamagedRecordError, decode_submission, encode_run, encode_submission
from mtf.ledger.overview import render_overview

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from mtf.core.vocabulary.ids import CommitId
    from mtf.git.repo import GitRepo

_OVERVIEW = "README.md"


@dataclass(frozen=True)
class Ledger:
    """The ledger at one commit."""

    tip: CommitId | None
    runs: Mapping[RunId, RunRecord]
    submissions: frozenset[SubmissionId]
    damaged: Mapping[str, str] = field(default_factory=dict)  # path -> what is wrong
    # what is not as mtf has left it; None: nobody has compared it with its history
    troubles: tuple[Trouble, ...] | None = None

    def with_history(self, troubles: tuple[Trouble, ...]) -> Ledger:
        """Return the ledger with the records that its history has and its tip has not."""
        good = [t.good for t in troubles if isinstance(t.good, RunRecord)]
        runs = {**self.runs, **{record.run: record for record in good}}
        return replace(self, runs=runs, troubles=troubles)


@dataclass(frozen=True)
class Change:
    """What one commit adds to the ledger, and the job branches that appear with it."""

    runs: tuple[RunRecord, ...] = ()
    submissions: tuple[SubmissionRecord, ...] = ()
    branches: Mapping[str, CommitId] = field(default_factory=dict)  # full ref name -> pin

    @property
    def is_empty(self) -> bool:
        """Return whether there is nothing to write."""
        return not (self.runs or self.submissions)


class LedgerStore:
    """The ledger of one clone and, where there is a remote, of all clones."""

    def __init__(self, repo: GitRepo, remote: str | None, *, publish: bool = True) -> None:
        """Open the store. ``publish`` False: commits stay in this clone (``--no-push``)."""
        self._repo = repo
        self._remote = remote
        self._publishes = publish and remote is not None
        self._remote_tip: CommitId | None = None
        self._branches: Branches | None = None

    # -- reading -----------------------------------------------------------------------------------

    def read(self, ref: str = LEDGER_REF) -> Ledger:
        """Return the ledger as it stands in this clone; damaged records are set aside."""
        tip = self._repo.find_commit(ref)
        if tip is None:
            return Ledger(None, {}, frozenset())
        files = self._repo.files(tip)
        paths = {p: e.oid for p, e in files.items() if p.startswith(RUNS)}
        blobs = self._repo.blobs(paths.values())
        runs: dict[RunId, RunRecord] = {}
        damaged: dict[str, str] = {}
        for path, oid in paths.items():
            try:
                record = decode_at(path, blobs[oid])
                assert isinstance(record, RunRecord)
                runs[record.run] = record
            except DamagedRecordError as e:
                damaged[path] = str(e)
        recorded = (submission_at(p) for p in files if p.startswith(SUBMISSIONS))
        submissions = frozenset(s for s in recorded if s is not None)
        return Ledger(tip, runs, submissions, damaged)

    def read_whole(self, ref: str = LEDGER_REF, *, since_beginning: bool = False) -> Ledger:
        """Return the ledger compared with its history since this clone last found it whole.

        What is missing or wrong at its tip is in ``runs`` as the history has it, and in
        ``troubles``. The next ``append`` that puts all of it back marks the ledger as whole.

        Raises:
            RepositoryError: git failed.
        """
        ledger = self.read(ref)
        if ledger.tip is None:
            return replace(ledger, troubles=())
        seen = self._repo.find_commit(SEEN_REF)
        troubles = () if seen == ledger.tip else audit(self._repo, seen, ledger.tip)
        if since_beginning and seen is not None:
            found = (*audit(self._repo, None, ledger.tip), *troubles)
            troubles = tuple({trouble.path: trouble for trouble in found}.values())
        return ledger.with_history(troubles)

    def submission(self, ledger: Ledger, submission: SubmissionId) -> SubmissionRecord:
        """Return a submission's record.

        Raises:
            RepositoryError: the ledger holds none, or a damaged one.
        """
        path = submission_path(submission)
        kept = {t.path: t.good for t in ledger.troubles or ()}.get(path)
        if isinstance(kept, SubmissionRecord):
            return kept
        raw = self._repo.read(ledger.tip, path) if ledger.tip else None
        if raw is None:
            raise RepositoryError(f"mtf/ledger:{path}: missing. Run git log mtf/ledger -- {path}")
        try:
            return decode_submission(raw)
        except DamagedRecordError as e:
            raise RepositoryError(f"mtf/ledger:{path}: damaged ({e})") from e

    # -- the remote --------------------------------------------------------------------------------

    def fetch(self, branch: str) -> CommitId | None:
        """Bring the tracked branch and the ledger here; return the branch's tip on the remote.

        Raises:
            RepositoryError: the remote cannot be reached.
        """
        if self._remote is None:
            here = self._repo.refs(JOB_BRANCH_PREFIX)
            self._branches = Branches(here)
            self._follow(None)
            return None
        tracked = f"refs/heads/{branch}"
        there = self._repo.remote_refs(self._remote, [tracked, LEDGER_REF, f"{JOB_BRANCH_PREFIX}*"])
        known = self._repo.refs(f"refs/remotes/{self._remote}/", JOB_BRANCH_PREFIX)
        stale = {
            ref: tip
            for ref in (tracked, LEDGER_REF)
            if (tip := there.get(ref)) and known.get(self._tracking(ref)) != tip
        }
        self._repo.fetch(self._remote, stale)
        self._remote_tip = there.get(LEDGER_REF)
        self._follow(self._remote_tip)
        jobs = {ref: oid for ref, oid in there.items() if ref.startswith(JOB_BRANCH_PREFIX)}
        here = {ref: oid for ref, oid in known.items() if ref.startswith(JOB_BRANCH_PREFIX)}
        self._branches = Branches(here, jobs)
        return there.get(tracked)

    def _tracking(self, ref: str) -> str:
        return f"refs/remotes/{self._remote}/{ref.removeprefix('refs/heads/')}"

    @property
    def branches(self) -> Branches | None:
        """Return the job branches as ``fetch`` has found them."""
        return self._branches

    @property
    def is_ahead(self) -> bool:
        """Return whether ``fetch`` has found that the remote lacks commits of this clone's."""
        tip = self._repo.find_commit(LEDGER_REF)
        return self._remote is not None and tip is not None and tip != self._remote_tip

    def _follow(self, theirs: CommitId | None) -> None:
        """Move this clone's ledger on to the remote's, unless it is ahead already.

        What a ledger that was deleted, set back or forced has lost is not lost here: the commit
        that this clone has last found whole stays, and ``read_whole`` compares with it.
        """
        ours = self._repo.find_commit(LEDGER_REF)
        if ours is None:
            if (there := theirs or self._repo.find_commit(SEEN_REF)) is not None:
                self._repo.update_refs([RefUpdate(LEDGER_REF, there, None)])
        elif theirs is None or ours == theirs:
            return
        elif self._repo.is_ancestor(ours, theirs):
            self._repo.update_refs([RefUpdate(LEDGER_REF, theirs, ours)])
        elif not self._repo.is_ancestor(theirs, ours):  # they have parted
            seen = self._repo.find_commit(SEEN_REF)
            keep = RefUpdate(SEEN_REF, ours, seen)
            self._repo.update_refs([RefUpdate(LEDGER_REF, theirs, ours), keep])

    def publish(self) -> bool:
        """Push what only this clone has; return whether there was anything."""
        tip = self._repo.find_commit(LEDGER_REF)
        if not self._publishes or tip is None or tip == self._remote_tip:
            return False
        assert self._remote is not None
        pins = [RefUpdate(ref, oid, None) for ref, oid in self._unpublished_branches().items()]
        self._repo.push(self._remote, [*pins, RefUpdate(LEDGER_REF, tip, self._remote_tip)])
        self._remote_tip = tip
        return True

    def _unpublished_branches(self) -> dict[str, CommitId]:
        assert self._branches is not None
        there = self._branches.there or {}
        return {ref: oid for ref, oid in self._branches.here.items() if ref not in there}

    def repin(self, branch: str, commit: CommitId, found: CommitId | None, *, remote: bool) -> None:
        """Put a job branch back at its pin, from ``found`` (None: it is not there) and only then.

        What a branch of the remote was moved to stays in this clone.

        Raises:
            RefMovedError: it is elsewhere by now.
            RepositoryError: the remote cannot be reached or refuses.
        """
        update = RefUpdate(f"refs/heads/{branch}", commit, found)
        if not remote:
            self._repo.update_refs([update])
        elif self._publishes:
            assert self._remote is not None
            if found is not None:
                self._repo.fetch(self._remote, {update.ref: found})
            self._repo.push(self._remote, [update])

    # -- writing -----------------------------------------------------------------------------------

    def append(self, ledger: Ledger, change: Change, message: str) -> Ledger:
        """Commit a change on top of ``ledger`` and return the ledger with it.

        The commits that its submissions run from become further parents: as long as the ledger
        lives, so does the code of every run.

        Raises:
            RefMovedError: another writer was faster; nothing was written.
            RepositoryError: the remote cannot be reached or refuses; nothing was written.
        """
        runs = {**ledger.runs, **{record.run: record for record in change.runs}}
        base = ledger.tip or self._beginning()
        pins = dict.fromkeys(s.commit for s in change.submissions)
        new = self._repo.write_commit(
            _files(change, runs.values()),
            parents=(base, *pins),
            message=message,
            committer=self._repo.identity,
        )
        left = _left(ledger.troubles, change)
        self._move(ledger.tip, new, change.branches, whole=left == ())
        made = frozenset(s.submission for s in change.submissions)
        damaged = {p: why for p, why in ledger.damaged.items() if p not in _paths(change)}
        return Ledger(new, runs, ledger.submissions | made, damaged, left)

    def _beginning(self) -> CommitId:
        """Return the orphan commit a ledger starts from; code comes in as second parents only."""
        return self._repo.write_commit(
            _files(Change(), ()),
            parents=(),
            message="mtf: begin the ledger",
            committer=self._repo.identity,
        )

    def _move(
        self,
        old: CommitId | None,
        new: CommitId,
        branches: Mapping[str, CommitId],
        *,
        whole: bool,
    ) -> None:
        pins = [RefUpdate(ref, oid, None) for ref, oid in branches.items()]
        if self._publishes:
            assert self._remote is not None
            self._repo.push(self._remote, [*pins, RefUpdate(LEDGER_REF, new, self._remote_tip)])
            self._remote_tip = new
        moved = [*pins, RefUpdate(LEDGER_REF, new, old)]
        if whole:
            moved.append(RefUpdate(SEEN_REF, new, self._repo.find_commit(SEEN_REF)))
        self._repo.update_refs(moved)


def _left(troubles: tuple[Trouble, ...] | None, change: Change) -> tuple[Trouble, ...] | None:
    """Return the troubles that a change leaves; None where they are not known."""
    if not troubles:
        return troubles
    mended = _paths(change)
    return tuple(t for t in troubles if t.path not in mended)


def _paths(change: Change) -> set[str]:
    return {
        *(record_path(r.run) for r in change.runs),
        *(submission_path(s.submission) for s in change.submissions),
    }


def _files(change: Change, runs: Iterable[RunRecord]) -> Iterator[tuple[str, bytes]]:
    for submission in change.submissions:  # the large ones: git packs them while others are made
        yield submission_path(submission.submission), encode_submission(submission)
    for record in change.runs:
        yield record_path(record.run), encode_run(record)
    yield _OVERVIEW, render_overview(runs).encode()
