"""`Signing`: which commits of the ledger a clone signs, and which must be signed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtf.errors import RepositoryError

if TYPE_CHECKING:
    from mtf.core.vocabulary.ids import CommitId
    from mtf.git.repo import GitRepo


@dataclass(frozen=True)
class Signing:
    """How this clone treats signatures of the ledger's commits."""

    sign: bool = False  # its own commits
    required: bool = False  # of all commits
    since: str | None = None  # a commit: older ones need none

    def check(self, repo: GitRepo, known: CommitId | None, tip: CommitId) -> None:
        """Check the commits after ``known`` up to ``tip``.

        Raises:
            RepositoryError: one has no good signature.
        """
        known = known or (repo.find_commit(self.since) if self.since else None)
        if found := repo.signatures.first_unsigned(known, tip):
            raise RepositoryError(
                f"mtf/ledger: commit {found.commit[:12]} ({found.committer}) has no good signature"
                f" of an allowed signer, so nothing in it is believed ({found.reason}). If you"
                f" trust it: git config mtf.ledgerSignedSince {found.commit[:12]}. Otherwise reset"
                " the branch on the remote to the commit before it"
            )
