"""``policies.require_signed``: only what an allowed signer has signed is submitted.

Git verifies: who is allowed stands in its own configuration here (``gpg.ssh.allowedSignersFile``,
or the keyring), never in the repository, where whoever commits could change it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtf.errors import Problem, SpecError
from mtf.project.project import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mtf.core.vocabulary.ids import CommitId
    from mtf.core.vocabulary.records import RunRecord
    from mtf.project.project import Project

RULE = "require_signed"
CONFIG = "mtf.requireSigned"  # in git's configuration: for this clone, whatever is committed


def check_signed(project: Project, commit: CommitId, records: Iterable[RunRecord]) -> None:
    """Refuse a commit that has to be signed and is not, or not well.

    The rule cannot be committed away: it holds when the newest commit that anything ran from had
    it, or this clone's git configuration says so.

    Raises:
        SpecError: the commit is not signed by an allowed signer; git's own words are in it.
    """
    if not _is_required(project, commit, records):
        return
    words = project.repo.signature_problem(commit)
    if words is not None:
        message = (
            f"commit {commit[:8]} has no good signature of an allowed signer, so nothing of it is"
            f" submitted (git verify-commit: {words}). Sign it: git commit --amend -S"
        )
        raise SpecError([Problem(SETTINGS, 1, 1, message, rule=RULE)])


def _is_required(project: Project, commit: CommitId, records: Iterable[RunRecord]) -> bool:
    if project.repo.config(CONFIG) == "true" or _demands(project, commit):
        return True
    newest = max(records, key=lambda r: r.claimed_at, default=None)
    return newest is not None and newest.commit != commit and _demands(project, newest.commit)


def _demands(project: Project, commit: CommitId) -> bool:
    if project.repo.find_commit(commit) is None:
        return False
    try:
        return project.settings_at(commit).policies.require_signed
    except SpecError:  # told elsewhere, and nothing is submitted with it
        return False
