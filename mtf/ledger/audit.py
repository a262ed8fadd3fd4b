"""Audit of the ledger against its own history: records that were removed, damaged or edited.

Only mtf writes records, and it never removes one. The audit finds everything else that commits on
the ledger's branch have done, by hand or by force, with the last version that mtf has written.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mtf.core.planner.drift import contradiction, merged
from mtf.core.vocabulary.ids import record_path, submission_path
from mtf.core.vocabulary.records import RunRecord, SubmissionRecord
from mtf.ledger.codec import (
    MAX_RUN,
    MAX_SUBMISSION,
    DamagedRecordError,
    NewerRecordError,
    decode_run,
    decode_submission,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from mtf.core.vocabulary.ids import CommitId
    from mtf.core.vocabulary.records import Attempt
    from mtf.git.repo import GitRepo

RUNS, SUBMISSIONS = "runs/", "submissions/"
_BATCH = 1000  # files whose versions are in memory at a time


@dataclass(frozen=True)
class AuditFinding:
    """A record that is not as mtf has written it."""

    path: str
    why: str  # "was removed", "is damaged (...)", "was edited (key changed)"
    last_good: RunRecord | SubmissionRecord | None  # to be restored; None: cannot be restored
    rivals: tuple[Attempt, ...] = ()  # another ledger's attempts, to be ended before that


def audit(repo: GitRepo, seen: CommitId | None, tip: CommitId) -> tuple[AuditFinding, ...]:
    """Return the findings about the records at ``tip`` since ``seen``, a commit without findings.

    If ``tip`` does not contain ``seen`` (the branch was reset or force-pushed), records that only
    ``seen`` has count as removed, and a run that both sides continued gets the attempts of both.

    Raises:
        RepositoryError: git failed.
    """
    versions: dict[str, list[str | None]] = {}
    steps = repo.steps(seen, tip, (RUNS, SUBMISSIONS))
    diverged = any(step.side == "<>" for step in steps)
    for change in steps:
        versions.setdefault(change.path, [change.old]).append(change.new)
    changed = [path for path, oids in versions.items() if oids[0] or len(oids) > 2]
    findings: list[AuditFinding] = []
    for start in range(0, len(changed), _BATCH):
        batch = changed[start : start + _BATCH]
        blobs = contents(repo, ((path, oid) for path in batch for oid in versions[path]))
        for path in batch:
            raws = [blobs[oid] if oid else None for oid in versions[path]]
            found = list(_judge(path, raws))
            findings += [_with_theirs(f, raws[-1]) for f in found] if diverged else found
    return tuple(findings)


def contents(repo: GitRepo, files: Iterable[tuple[str, str | None]]) -> dict[str, bytes]:
    """Return the contents of records by object id, no more of each than a record may have."""
    known = [(path, oid) for path, oid in files if oid]
    runs = repo.blobs((o for path, o in known if not path.startswith(SUBMISSIONS)), MAX_RUN + 1)
    submissions = (o for path, o in known if path.startswith(SUBMISSIONS))
    return runs | repo.blobs(submissions, MAX_SUBMISSION + 1)


def _judge(path: str, versions: Sequence[bytes | None]) -> Iterator[AuditFinding]:
    """Yield a finding if mtf cannot have written the last version of a record."""
    last_good: RunRecord | SubmissionRecord | None = None
    why, can_restore = None, True
    for raw in versions if versions[0] else versions[1:]:
        why, can_restore = "was removed", True
        try:
            if raw is not None:
                new = decode_at(path, raw)
                edit = edit_of(last_good, new)
                why = edit and f"was {edit}"
                last_good = new if why is None else last_good
        except NewerRecordError as e:
            why, can_restore = f"cannot be read ({e})", False
        except DamagedRecordError as e:
            why = f"is damaged ({e})"
    if why is not None:
        yield AuditFinding(path, why, last_good if can_restore else None)


def _with_theirs(finding: AuditFinding, theirs: bytes | None) -> AuditFinding:
    """Return the finding with the attempts of both ledgers, if both continued the run."""
    ours = finding.last_good
    if theirs is None or not isinstance(ours, RunRecord):
        return finding
    with suppress(DamagedRecordError):
        other = decode_at(finding.path, theirs)
        assert isinstance(other, RunRecord)
        if both := merged(ours, other):
            good, rivals = both
            why = finding.why if good == ours else "was continued in two ledgers that diverged"
            return replace(finding, why=why, last_good=good, rivals=rivals)
    return finding


def decode_at(path: str, raw: bytes) -> RunRecord | SubmissionRecord:
    """Return the record in a file of the ledger.

    Raises:
        DamagedRecordError: the file holds no record, or the record of another run.
    """
    if path.startswith(SUBMISSIONS):
        submission = decode_submission(raw)
        if submission_path(submission.submission) != path:
            raise DamagedRecordError(f"it is the record of {submission.submission}")
        return submission
    record = decode_run(raw)
    if record_path(record.run) != path:
        raise DamagedRecordError(f"it is the record of {record.run}")
    return record


def edit_of(
    old: RunRecord | SubmissionRecord | None, new: RunRecord | SubmissionRecord
) -> str | None:
    """Return the edit that mtf cannot have made itself, None if there is none."""
    if old is None or old == new:
        return None
    if isinstance(old, RunRecord) and isinstance(new, RunRecord):
        what = contradiction(old, new)
        return what and f"edited ({what})"
    return "edited"
