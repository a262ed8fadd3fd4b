"""The ledger's store: reads it whole, appends to it by compare-and-swap, here and on the remote.

A linearizable log. Whoever finds the ledger moved gets ``RefMovedError``, reads again and decides
anew; nobody merges, nobody overwrites.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mtf.core.ids import LEDGER_REF, RunId, SubmissionId, record_path, submission_path
from mtf.errors import RepositoryError
from mtf.gitrepo import RefUpdate
from mtf.ledger.codec import (
    DamagedRecordError,
    decode_run,
    decode_submission,
    encode_run,
    encode_submission,
)
from mtf.ledger.overview import render_overview

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from mtf.core.ids import CommitId
    from mtf.core.records import RunRecord, SubmissionRecord
    from mtf.gitrepo import GitRepo

_OVERVIEW = "README.md"


@dataclass(frozen=True)
class Ledger:
    """The ledger at one commit."""

    tip: CommitId | None
    runs: Mapping[RunId, RunRecord]
    submissions: frozenset[SubmissionId]
    damaged: Mapping[str, str] = field(default_factory=dict)  # path -> what is wrong


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

    # -- reading -----------------------------------------------------------------------------------

    def read(self, ref: str = LEDGER_REF) -> Ledger:
        """Return the ledger as it stands in this clone; damaged records are set aside."""
        tip = self._repo.find_commit(ref)
        if tip is None:
            return Ledger(None, {}, frozenset())
        files = self._repo.files(tip)
        paths = {p: e.oid for p, e in files.items() if p.startswith("runs/")}
        blobs = self._repo.blobs(paths.values())
        runs: dict[RunId, RunRecord] = {}
        damaged: dict[str, str] = {}
        for path, oid in paths.items():
            try:
                record = decode_run(blobs[oid])
                if record_path(record.run) != path:
                    raise DamagedRecordError(f"it is the record of {record.run}")  # noqa: TRY301
                runs[record.run] = record
            except DamagedRecordError as e:
                damaged[path] = str(e)
        submissions = frozenset(map(_submission_at, (p for p in files if p[:12] == "submissions/")))
        return Ledger(tip, runs, submissions, damaged)

    def submission(self, ledger: Ledger, submission: SubmissionId) -> SubmissionRecord:
        """Return a submission's record.

        Raises:
            RepositoryError: the ledger holds none, or a damaged one.
        """
        path = submission_path(submission)
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
            RepositoryError: the remote cannot be reached, or the two ledgers have parted.
        """
        if self._remote is None:
            return None
        tracked = f"refs/heads/{branch}"
        there = self._repo.remote_refs(self._remote, [tracked, LEDGER_REF])
        known = self._repo.refs(f"refs/remotes/{self._remote}/")
        stale = {
            ref: tip
            for ref, tip in there.items()
            if known.get(f"refs/remotes/{self._remote}/{ref.removeprefix('refs/heads/')}") != tip
        }
        self._repo.fetch(self._remote, stale)
        self._remote_tip = there.get(LEDGER_REF)
        self._follow(self._remote_tip)
        return there.get(tracked)

    def _follow(self, theirs: CommitId | None) -> None:
        """Move this clone's ledger on to the remote's, unless it is ahead already."""
        ours = self._repo.find_commit(LEDGER_REF)
        if theirs is None or ours == theirs:
            return
        if ours is None or self._repo.is_ancestor(ours, theirs):
            self._repo.update_refs([RefUpdate(LEDGER_REF, theirs, ours)])
        elif not self._repo.is_ancestor(theirs, ours):
            raise RepositoryError(
                f"the ledger here (mtf/ledger) and on {self._remote} have parted: commits were made"
                " here with --no-push, or the remote's was rewritten. Nothing was changed. To keep"
                f" the remote's: git branch -f mtf/ledger {self._remote}/mtf/ledger"
            )

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
        assert self._remote is not None
        prefix = "refs/heads/slurm-job/"
        there = self._repo.remote_refs(self._remote, [prefix + "*"])
        return {r: oid for r, oid in self._repo.refs(prefix).items() if r not in there}

    # -- writing -----------------------------------------------------------------------------------

    def append(
        self, ledger: Ledger, change: Change, message: str, *, pin: CommitId | None = None
    ) -> Ledger:
        """Commit a change on top of ``ledger`` and return the ledger with it.

        ``pin``, the commit that new submissions run from, becomes the second parent: as long as
        the ledger lives, so does the code of every run.

        Raises:
            RefMovedError: another writer was faster; nothing was written.
            RepositoryError: the remote cannot be reached or refuses; nothing was written.
        """
        runs = {**ledger.runs, **{record.run: record for record in change.runs}}
        base = ledger.tip or self._beginning()
        parents = (base, pin) if pin and change.submissions else (base,)
        new = self._repo.write_commit(
            _files(change, runs.values()),
            parents=parents,
            message=message,
            committer=self._repo.identity,
        )
        self._move(ledger.tip, new, change.branches)
        made = frozenset(s.submission for s in change.submissions)
        return Ledger(new, runs, ledger.submissions | made, ledger.damaged)

    def _beginning(self) -> CommitId:
        """Return the orphan commit a ledger starts from; code comes in as second parents only."""
        return self._repo.write_commit(
            _files(Change(), ()),
            parents=(),
            message="mtf: begin the ledger",
            committer=self._repo.identity,
        )

    def _move(self, old: CommitId | None, new: CommitId, branches: Mapping[str, CommitId]) -> None:
        pins = [RefUpdate(ref, oid, None) for ref, oid in branches.items()]
        if self._publishes:
            assert self._remote is not None
            self._repo.push(self._remote, [*pins, RefUpdate(LEDGER_REF, new, self._remote_tip)])
            self._remote_tip = new
        self._repo.update_refs([*pins, RefUpdate(LEDGER_REF, new, old)])


def _files(change: Change, runs: Iterable[RunRecord]) -> Iterator[tuple[str, bytes]]:
    for record in change.runs:
        yield record_path(record.run), encode_run(record)
    for submission in change.submissions:
        yield submission_path(submission.submission), encode_submission(submission)
    yield _OVERVIEW, render_overview(runs).encode()


def _submission_at(path: str) -> SubmissionId:
    _, name, rest = path.split("/", 2)
    stamp, _, short = rest.removesuffix(".json").rpartition("-")
    return SubmissionId(f"{name}/{stamp}/{short}")
