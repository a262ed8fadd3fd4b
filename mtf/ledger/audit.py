"""Compares the ledger with its own history: only mtf writes records, and it never removes one.

Whatever else a commit on the ledger's branch has done, by hand or by force, is found here, with the
last version of the record that mtf has written.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mtf.core.planner.drift import contradiction, united
from mtf.core.vocabulary.ids import record_path
from mtf.core.vocabulary.records import RunRecord, SubmissionRecord
from mtf.ledger.codec import (
    DamagedRecordError,
    NewerRecordError,
    decode_run,
    decode_submission,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mtf.core.vocabulary.ids import CommitId
    from mtf.core.vocabulary.records import Attempt
    from mtf.git.repo import GitRepo

RUNS, SUBMISSIONS = "runs/", "submissions/"
_AT_ONCE = 1000  # files whose versions are held in memory


@dataclass(frozen=True)
class Trouble:
    """A record that is not as mtf has left it."""

    path: str
    why: str  # "was removed", "is damaged (...)", "was edited (key changed)"
    good: RunRecord | SubmissionRecord | None  # to be put back; None: it cannot be
    rivals: tuple[Attempt, ...] = ()  # to be ended before that: another ledger's, beside ours


def audit(repo: GitRepo, seen: CommitId | None, tip: CommitId) -> tuple[Trouble, ...]:
    """Return what is wrong with the records at ``tip``.

    ``seen`` was whole. Where it is no part of ``tip``'s history (a branch that was set back or
    forced), what it has and ``tip`` has not is taken for removed, and a run that both have given
    another attempt has them all.

    Raises:
        RepositoryError: git failed.
    """
    versions: dict[str, list[str | None]] = {}
    steps = repo.steps(seen, tip, (RUNS, SUBMISSIONS))
    parted = any(step.side == "<>" for step in steps)
    for change in steps:
        versions.setdefault(change.path, [change.old]).append(change.new)
    changed = [path for path, oids in versions.items() if oids[0] or len(oids) > 2]
    troubles: list[Trouble] = []
    for at in range(0, len(changed), _AT_ONCE):
        some = changed[at : at + _AT_ONCE]
        blobs = repo.blobs(oid for path in some for oid in versions[path] if oid)
        for path in some:
            raws = [blobs[oid] if oid else None for oid in versions[path]]
            found = list(_judged(path, raws))
            troubles += [_united(t, raws[-1]) for t in found] if parted else found
    return tuple(troubles)


def _judged(path: str, versions: Sequence[bytes | None]) -> Iterator[Trouble]:
    """Yield what is wrong with the last of a record's versions."""
    good: RunRecord | SubmissionRecord | None = None
    why, may_restore = None, True
    for raw in versions if versions[0] else versions[1:]:
        why, may_restore = "was removed", True
        try:
            if raw is not None:
                new = decode_at(path, raw)
                why = _contradicted(good, new)
                good = new if why is None else good
        except NewerRecordError as e:
            why, may_restore = f"cannot be read ({e})", False
        except DamagedRecordError as e:
            why = f"is damaged ({e})"
    if why is not None:
        yield Trouble(path, why, good if may_restore else None)


def _united(trouble: Trouble, theirs: bytes | None) -> Trouble:
    """Return the trouble with what the other of two parted ledgers has of the run joined in."""
    ours = trouble.good
    if theirs is None or not isinstance(ours, RunRecord):
        return trouble
    with suppress(DamagedRecordError):
        other = decode_at(trouble.path, theirs)
        assert isinstance(other, RunRecord)
        if both := united(ours, other):
            good, rivals = both
            why = "was continued in two ledgers that have parted" if good != ours else trouble.why
            return replace(trouble, why=why, good=good, rivals=rivals)
    return trouble


def decode_at(path: str, raw: bytes) -> RunRecord | SubmissionRecord:
    """Return the record that stands at a path of the ledger.

    Raises:
        DamagedRecordError: it does not hold one, or another's.
    """
    if path.startswith(SUBMISSIONS):
        return decode_submission(raw)
    record = decode_run(raw)
    if record_path(record.run) != path:
        raise DamagedRecordError(f"it is the record of {record.run}")
    return record


def _contradicted(
    old: RunRecord | SubmissionRecord | None, new: RunRecord | SubmissionRecord
) -> str | None:
    if old is None or old == new:
        return None
    if isinstance(old, RunRecord) and isinstance(new, RunRecord):
        what = contradiction(old, new)
        return what and f"was edited ({what})"
    return "was edited"
