"""``policies.require_signed``: only commits signed by an allowed signer are submitted.

Git verifies signatures. Allowed signers are named in the clone's git configuration
(``gpg.ssh.allowedSignersFile``, or the keyring), never in the repository, where everyone who
commits could change them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtf.errors import Problem, SpecError
from mtf.project.location.folder import at_commit
from mtf.project.settings_file import SETTINGS, settings_at

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mtf.core.vocabulary.ids import CommitId
    from mtf.core.vocabulary.records import RunRecord
    from mtf.git.repo import GitRepo
    from mtf.spec.schema.policies import Policies

RULE = "require_signed"
CONFIG = "mtf.requireSigned"  # in git's configuration: for this clone, whatever is committed


def check_signed(
    repo: GitRepo, commit: CommitId, policies: Policies, records: Iterable[RunRecord]
) -> None:
    """Refuse a commit that must be signed and has no good signature.

    A commit cannot drop the rule for itself: the rule also applies if the newest commit with runs
    requires it, or this clone's git configuration does.

    Args:
        repo: has the commit.
        commit: whose specs are to be submitted.
        policies: in the settings at that commit.
        records: of all runs in the ledger.

    Raises:
        SpecError: the commit is not signed by an allowed signer; the message quotes git.
    """
    if not is_signature_required(repo, commit, policies, records):
        return
    reason = repo.signatures.problem(commit)
    if reason is not None:
        message = (
            f"commit {commit[:8]} has no good signature of an allowed signer, so none of its"
            f" experiments is submitted (git verify-commit: {reason}). Sign it: git commit --amend"
            " -S"
        )
        raise SpecError([Problem(SETTINGS, 1, 1, message, rule=RULE)])


def is_signature_required(
    repo: GitRepo, commit: CommitId, policies: Policies, records: Iterable[RunRecord]
) -> bool:
    """Return True if a commit must be signed for its experiments to be submitted."""
    return policies.require_signed or _must_be_signed(repo, commit, records)


def _must_be_signed(repo: GitRepo, commit: CommitId, records: Iterable[RunRecord]) -> bool:
    """Return True if this clone, or the newest commit with runs, requires a signature."""
    if is_on(repo.config(CONFIG)):
        return True
    newest = max(records, key=lambda r: r.claimed_at, default=None)
    if newest is None or newest.commit == commit or repo.find_commit(newest.commit) is None:
        return False
    try:
        there = at_commit(repo, newest.commit)
        return settings_at(there, newest.commit).policies.require_signed
    except SpecError:  # mistakes in the settings of an older commit do not matter
        return False


def is_on(value: str | None) -> bool:
    """Return True for a value of git's configuration that is set, unless it says no."""
    return value is not None and value.lower() not in ("false", "no", "off", "0")
