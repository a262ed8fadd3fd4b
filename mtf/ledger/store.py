"""Reading the ledger, and appending to it by compare-and-swap, in this clone and on the remote.

The ledger is a linearizable log: a writer that finds it moved gets ``RefMovedError``, reads it
again and decides again. Nothing is merged or overwritten.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mtf.core.planner.drift import Branches
from mtf.core.vocabulary.ids import (
    JOB_BRANCH_PREFIX,
    LEDGER_REF,
    OVERVIEW,
    SEEN_REF,
    SIGNED_REF,
    RunId,
    SubmissionId,
    record_path,
    submission_at,
    submission_path,
)
from mtf.core.vocabulary.records import RunRecord, SubmissionRecord
from mtf.errors import RepositoryError
from mtf.git.partial import prefetch
from mtf.git.refs import RefUpdate
from mtf.ledger.audit import RUNS, SUBMISSIONS, AuditFinding, audit, contents, decode_at
from mtf.ledger.codec import (
    MAX_SUBMISSION,
    DamagedRecordError,
    decode_submission,
    encode_run,
    encode_submission,
)
from mtf.ledger.ledger_signing import Signing
from mtf.ledger.overview import render_overview

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from mtf.core.vocabulary.ids import CommitId
    from mtf.git.repo import GitRepo


_PATIENCE_S = 10.0  # of somebody who looks at runs, with the remote
_LEDGER_BRANCHES = f"{LEDGER_REF.removeprefix('refs/heads/').split('/', 1)[0]}/*"


@dataclass(frozen=True)
class Ledger:
    """The ledger at one commit."""

    tip: CommitId | None
    runs: Mapping[RunId, RunRecord]
    submissions: frozenset[SubmissionId]
    damaged: Mapping[str, str] = field(default_factory=dict)  # path -> reason
    findings: tuple[AuditFinding, ...] | None = None  # None: not audited

    def audited(self, findings: tuple[AuditFinding, ...]) -> Ledger:
        """Return the ledger with these findings, and with the good records that they contain."""
        good = [f.last_good for f in findings if isinstance(f.last_good, RunRecord)]
        runs = {**self.runs, **{record.run: record for record in good}}
        return replace(self, runs=runs, findings=findings)


@dataclass(frozen=True)
class Change:
    """The records that one commit adds to the ledger, and the job branches created with it."""

    runs: tuple[RunRecord, ...] = ()
    submissions: tuple[SubmissionRecord, ...] = ()
    branches: Mapping[str, CommitId] = field(default_factory=dict)  # full ref name -> pin

    @property
    def is_empty(self) -> bool:
        """Return True if there is nothing to write."""
        return not (self.runs or self.submissions)


class LedgerStore:
    """The ledger of one clone and, if there is a remote, of all clones."""

    def __init__(
        self,
        repo: GitRepo,
        remote: str | None,
        *,
        publish: bool = True,
        signing: Signing | None = None,
    ) -> None:
        """Open the store. ``publish`` False: commits stay in this clone (``--no-push``)."""
        self._repo = repo.whole
        self._signing = signing or Signing()
        self._remote = remote
        self._publishes = publish and remote is not None
        self._remote_tip: CommitId | None = None
        self._branches: Branches | None = None

    # -- reading -----------------------------------------------------------------------------------

    def read(self, ref: str = LEDGER_REF) -> Ledger:
        """Return the ledger of this clone; damaged records are in ``damaged``, not in ``runs``.

        Raises:
            RepositoryError: git failed, or a commit lacks a signature that is required.
        """
        tip = self._repo.find_commit(ref)
        if tip is None:
            return Ledger(None, {}, frozenset())
        self._verify(tip)
        prefetch(self._repo, tip)
        files = self._repo.files(tip)
        paths = {p: e.oid for p, e in files.items() if p.startswith(RUNS)}
        blobs = contents(self._repo, paths.items())
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

    def _verify(self, tip: CommitId) -> None:
        """Check the signatures that are required, those of each commit once in this clone.

        Raises:
            RepositoryError: a commit has no good signature.
        """
        if not self._signing.required:
            return
        known = self._repo.find_commit(SIGNED_REF)
        if known != tip:
            self._signing.check(self._repo, known, tip)
            with suppress(RepositoryError):  # another reader was faster
                self._repo.update_refs([RefUpdate(SIGNED_REF, tip, known)])

    def read_audited(self, ref: str = LEDGER_REF, *, since_beginning: bool = False) -> Ledger:
        """Return the ledger, audited since the last commit that this clone found good.

        A record that is missing or wrong at the tip is in ``runs`` as its history has it, and in
        ``findings``. The next ``append`` that restores all of them marks the ledger as good.

        Raises:
            RepositoryError: git failed.
        """
        ledger = self.read(ref)
        if ledger.tip is None:
            return replace(ledger, findings=())
        seen = self._repo.find_commit(SEEN_REF)
        findings = () if seen == ledger.tip else audit(self._repo, seen, ledger.tip)
        if since_beginning and seen is not None:
            found = (*audit(self._repo, None, ledger.tip), *findings)
            findings = tuple({finding.path: finding for finding in found}.values())
        return ledger.audited(findings)

    def submission(self, ledger: Ledger, submission: SubmissionId) -> SubmissionRecord:
        """Return a submission's record.

        Raises:
            RepositoryError: the record is missing or damaged.
        """
        path = submission_path(submission)
        last_good = {f.path: f.last_good for f in ledger.findings or ()}.get(path)
        if isinstance(last_good, SubmissionRecord):
            return last_good
        raw = self._repo.read(ledger.tip, path, MAX_SUBMISSION + 1) if ledger.tip else None
        if raw is None:
            raise RepositoryError(
                f"mtf/ledger:{path}: missing. Find it with git log mtf/ledger -- {path}"
            )
        try:
            return decode_submission(raw)
        except DamagedRecordError as e:
            raise RepositoryError(f"mtf/ledger:{path}: damaged ({e}). Run mtf doctor") from e

    def pin(self, ledger: Ledger, submission: SubmissionId) -> CommitId | None:
        """Return the commit that a submission's branch belongs at, None if the ledger lacks it.

        The ledger's history contains the commits that mtf has pinned, and no others are.
        """
        with suppress(RepositoryError):
            commit = self.submission(ledger, submission).commit
            if ledger.tip and self._repo.is_ancestor(commit, ledger.tip):
                return commit
        return None

    # -- the remote --------------------------------------------------------------------------------

    def fetch(self, branch: str) -> CommitId | None:
        """Fetch the tracked branch and the ledger; return the branch's tip on the remote.

        Raises:
            RepositoryError: the remote cannot be reached.
        """
        if self._remote is None:
            self._branches = Branches(self._repo.refs(JOB_BRANCH_PREFIX))
            self._follow(None)
            return None
        tracked = f"refs/heads/{branch}"
        wanted = [tracked, LEDGER_REF, f"{JOB_BRANCH_PREFIX}*"]
        remote = self._repo.remote_refs(self._remote, wanted)
        local = self._repo.refs(f"refs/remotes/{self._remote}/", JOB_BRANCH_PREFIX)
        stale = {
            ref: tip
            for ref in (tracked, LEDGER_REF)
            if (tip := remote.get(ref)) and local.get(self._tracking_ref(ref)) != tip
        }
        self._repo.fetch(self._remote, stale)
        if LEDGER_REF in stale and self._tracking_ref(LEDGER_REF) not in local:
            self._repo.always_fetch(self._remote, _LEDGER_BRANCHES)
        self._remote_tip = remote.get(LEDGER_REF)
        self._follow(self._remote_tip)
        self._branches = Branches(_job_branches(local), _job_branches(remote))
        return remote.get(tracked)

    def fetch_unknown(self) -> None:
        """Fetch the ledger, if the remote has one, to a clone that has none.

        Raises:
            RepositoryError: the remote does not answer, or not soon.
        """
        if self._remote is None:
            return
        try:
            found = self._repo.remote_refs(self._remote, [LEDGER_REF], limit_s=_PATIENCE_S)
        except RepositoryError as e:
            raise RepositoryError(
                f"this clone has no ledger of runs yet, and {self._remote} cannot be asked for one."
                f" Run the command again when it answers (git fetch {self._remote}):\n{e}"
            ) from e
        if found:
            self._repo.fetch(self._remote, found)
            self._repo.always_fetch(self._remote, _LEDGER_BRANCHES)

    def _tracking_ref(self, ref: str) -> str:
        return f"refs/remotes/{self._remote}/{ref.removeprefix('refs/heads/')}"

    @property
    def remote(self) -> str | None:
        """Return the name of the remote, None for a ledger of this clone alone."""
        return self._remote

    @property
    def branches(self) -> Branches | None:
        """Return the job branches that ``fetch`` found."""
        return self._branches

    @property
    def is_ahead(self) -> bool:
        """Return True if this clone has ledger commits that the remote lacked at the last fetch."""
        tip = self._repo.find_commit(LEDGER_REF)
        return self._remote is not None and tip is not None and tip != self._remote_tip

    def _follow(self, theirs: CommitId | None) -> None:
        """Move this clone's ledger to the remote's, unless this clone's is ahead.

        If the remote's ledger was deleted, reset or force-pushed, no record is lost: ``SEEN_REF``
        keeps the last commit that this clone found good, and ``read_audited`` compares with it.
        """
        if theirs is not None:
            self._verify(theirs)
        ours = self._repo.find_commit(LEDGER_REF)
        if ours is None:
            if (tip := theirs or self._repo.find_commit(SEEN_REF)) is not None:
                self._repo.update_refs([RefUpdate(LEDGER_REF, tip, None)])
        elif theirs is None or ours == theirs:
            return
        elif self._repo.is_ancestor(ours, theirs):
            self._repo.update_refs([RefUpdate(LEDGER_REF, theirs, ours)])
        elif not self._repo.is_ancestor(theirs, ours):  # they diverged
            seen = self._repo.find_commit(SEEN_REF)
            keep = RefUpdate(SEEN_REF, ours, seen)
            self._repo.update_refs([RefUpdate(LEDGER_REF, theirs, ours), keep])

    def publish(self) -> bool:
        """Push the commits that only this clone has; return True if there were any."""
        tip = self._repo.find_commit(LEDGER_REF)
        if not self._publishes or tip is None or tip == self._remote_tip:
            return False
        assert self._remote is not None
        pins = self._unpublished_branches(tip)
        self._repo.push(self._remote, [*pins, RefUpdate(LEDGER_REF, tip, self._remote_tip)])
        self._remote_tip = tip
        return True

    def _unpublished_branches(self, tip: CommitId | None) -> list[RefUpdate]:
        """Return the creation of the job branches that the remote lacks, as it lacks their records.

        Such submissions were recorded with ``--no-push``. Their branches go with the records: a
        branch that the remote lacks later was deleted there. The records tell where they belong,
        since the branches here may have been moved.
        """
        if tip is None or tip == self._remote_tip:
            return []
        recorded = self._repo.files(tip, SUBMISSIONS)
        if self._remote_tip is not None:
            for path in self._repo.files(self._remote_tip, SUBMISSIONS):
                recorded.pop(path, None)
        on_remote = (self._branches and self._branches.on_remote) or {}
        pins = []
        for blob in contents(self._repo, ((p, e.oid) for p, e in recorded.items())).values():
            with suppress(DamagedRecordError):  # read_audited reports it
                submission = decode_submission(blob)
                ref = f"refs/heads/{submission.branch}"
                if ref not in on_remote:
                    pins.append(RefUpdate(ref, submission.commit, None))
        return pins

    def repin(self, branch: str, commit: CommitId, found: CommitId | None, *, remote: bool) -> None:
        """Move a job branch back to its pinned commit, if it still is at ``found`` (None: missing).

        The commit that a branch of the remote was moved to is fetched first, so that it is kept.

        Raises:
            RefMovedError: the branch has moved again.
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

        The pinned commits of its submissions become further parents, so that git keeps the code of
        every run as long as the ledger exists.

        Raises:
            RefMovedError: another writer came first; nothing was written.
            RepositoryError: the remote cannot be reached or refuses; nothing was written.
        """
        runs = {**ledger.runs, **{record.run: record for record in change.runs}}
        base = ledger.tip or self._beginning()
        pins = dict.fromkeys(s.commit for s in change.submissions)
        new = self._commit(_files(change, runs.values()), (base, *pins), message)
        findings = _remaining(ledger.findings, change)
        self._move(ledger.tip, new, change.branches, is_good=findings == ())
        made = frozenset(s.submission for s in change.submissions)
        written = _written_paths(change)
        damaged = {path: why for path, why in ledger.damaged.items() if path not in written}
        return Ledger(new, runs, ledger.submissions | made, damaged, findings)

    def _beginning(self) -> CommitId:
        """Return the orphan commit that a ledger starts from, whose history has no code."""
        return self._commit(_files(Change(), ()), (), "mtf: begin the ledger")

    def _commit(
        self, files: Iterator[tuple[str, bytes]], parents: tuple[CommitId, ...], message: str
    ) -> CommitId:
        """Write a commit, signed if this clone signs."""
        who = self._repo.identity
        new = self._repo.write_commit(files, parents=parents, message=message, committer=who)
        if not self._signing.sign:
            return new
        return self._repo.signatures.signed(new, parents, message)

    def _move(
        self,
        old: CommitId | None,
        new: CommitId,
        branches: Mapping[str, CommitId],
        *,
        is_good: bool,
    ) -> None:
        pins = [RefUpdate(ref, oid, None) for ref, oid in branches.items()]
        if self._publishes:
            assert self._remote is not None
            pushed = [*self._unpublished_branches(old), *pins]
            self._repo.push(self._remote, [*pushed, RefUpdate(LEDGER_REF, new, self._remote_tip)])
            self._remote_tip = new
        moved = [*pins, RefUpdate(LEDGER_REF, new, old)]
        if is_good:
            moved.append(RefUpdate(SEEN_REF, new, self._repo.find_commit(SEEN_REF)))
        self._repo.update_refs(moved)


def _job_branches(refs: Mapping[str, CommitId]) -> dict[str, CommitId]:
    return {ref: oid for ref, oid in refs.items() if ref.startswith(JOB_BRANCH_PREFIX)}


def _remaining(
    findings: tuple[AuditFinding, ...] | None, change: Change
) -> tuple[AuditFinding, ...] | None:
    """Return the findings that a change does not restore; None if the ledger was not audited."""
    if not findings:
        return findings
    restored = _written_paths(change)
    return tuple(finding for finding in findings if finding.path not in restored)


def _written_paths(change: Change) -> set[str]:
    return {
        *(record_path(r.run) for r in change.runs),
        *(submission_path(s.submission) for s in change.submissions),
    }


def _files(change: Change, runs: Iterable[RunRecord]) -> Iterator[tuple[str, bytes]]:
    for submission in change.submissions:  # large ones first: git packs them meanwhile
        yield submission_path(submission.submission), encode_submission(submission)
    for record in change.runs:
        yield record_path(record.run), encode_run(record)
    yield OVERVIEW, render_overview(runs).encode()
