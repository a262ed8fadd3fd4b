"""Checks that a commit's tree may be checked out, before anything of the commit is run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtf.errors import Problem, RepositoryError, SpecError

if TYPE_CHECKING:
    from mtf.core.vocabulary.ids import CommitId
    from mtf.git.repo import GitRepo


def tree_problems(repo: GitRepo, commit: CommitId) -> tuple[Problem, ...]:
    """Return the problem of a commit's tree, none if it may be checked out."""
    try:
        repo.checked_files(commit)
    except RepositoryError as e:  # or a tree is damaged, missing or too large: it has no path
        return (Problem(getattr(e, "path", "") or ".", 1, 1, str(e)),)
    return ()


def check_tree(repo: GitRepo, commit: CommitId) -> None:
    """Refuse a commit whose tree must not be checked out.

    Raises:
        SpecError: with the entry at fault.
    """
    if problems := tree_problems(repo, commit):
        raise SpecError(list(problems))
