"""Signatures of commits, made and verified by git itself, with ssh or gpg as git is configured."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from mtf.core.vocabulary.ids import CommitId
from mtf.errors import RepositoryError

if TYPE_CHECKING:
    from mtf.git.process import GitProcesses

_GOOD = "G"  # git's letter for a good signature of a known signer (git-log(1), %G?)


class Unsigned(NamedTuple):
    """A commit without a good signature."""

    commit: CommitId
    committer: str
    reason: str  # git's own


class Signatures:
    """Signs and verifies the commits of one repository."""

    def __init__(self, git: GitProcesses) -> None:
        """Take the processes of the repository."""
        self._git = git

    def problem(self, commit: CommitId) -> str | None:
        """Return git's reason to reject a commit's signature, None if it accepts it."""
        code, _, err = self._git.attempt("verify-commit", "--", commit)
        if code == 0:
            return None
        return " ".join(err.split()) or "it is not signed"

    def first_unsigned(self, known: CommitId | None, tip: CommitId) -> Unsigned | None:
        """Return the oldest commit that git does not accept, of those from ``known`` to ``tip``.

        Only first parents are looked at: others belong to other branches.

        Raises:
            RepositoryError: git failed.
        """
        span = (tip, f"^{known}") if known else (tip,)
        layout = "--format=%H%x00%G?%x00%cn <%ce>, %cI"
        out = self._git.run("log", "--first-parent", "--reverse", layout, *span, "--")
        trust = self._git.attempt("config", "--get", "gpg.minTrustLevel")[1]
        for line in os.fsdecode(out).splitlines():
            commit, letter, committer = line.split("\0")
            if letter == _GOOD and not trust:
                continue
            if reason := self.problem(CommitId(commit)):
                return Unsigned(CommitId(commit), committer, reason)
        return None

    def signed(self, tree_of: CommitId, parents: tuple[CommitId, ...], message: str) -> CommitId:
        """Write a signed commit with the tree of another one, and return it. Moves no ref.

        Raises:
            RepositoryError: git could not sign it; the message is git's own.
        """
        options = [word for parent in parents for word in ("-p", parent)]
        command = ("-c", "core.fsync=committed", "commit-tree", "-S", *options)
        code, out, err = self._git.attempt(
            *command, f"{tree_of}^{{tree}}", stdin=f"{message}\n".encode()
        )
        if code:
            raise RepositoryError(
                f"the ledger's commits must be signed, and git could not sign one:"
                f" {' '.join(err.split())}. Set user.signingKey and gpg.format, see"
                " git help config"
            )
        return CommitId(out.decode().strip())
