"""The pre-push hook: checks the specs of pushed commits before they leave this clone."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtf.commands.review import compare
from mtf.commands.validate import Checked, new_in_projects
from mtf.errors import RepositoryError, SpecError
from mtf.project.location.folder import projects_at
from mtf.project.project import project_in
from mtf.project.settings_file import settings_at

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mtf.core.planner.push_rules import Update
    from mtf.core.review.changed_runs import Review
    from mtf.core.vocabulary.ids import CommitId
    from mtf.git.repo import GitRepo


@dataclass(frozen=True)
class CheckedPush:
    """The problems in pushed refs, and the review of each pushed branch that is tracked."""

    refs: tuple[tuple[str, Checked], ...]
    plans: tuple[tuple[str, Review], ...]  # by tracked branch


def check_push(repo: GitRepo, remote: str, updates: Sequence[Update]) -> CheckedPush:
    """Check the specs in pushed refs that the remote does not have yet.

    Deletions, job branches and the ledger are skipped: they bring no specs of their own.

    Args:
        repo: the repository that pushes.
        remote: the remote's name, or its URL if it has none.
        updates: the pushed refs.
    """
    refs: list[tuple[str, Checked]] = []
    plans: list[tuple[str, Review]] = []
    with repo.reading():
        for update in updates:
            commit = None if update.is_ours or not update.new else repo.find_commit(update.new)
            if commit is None:  # such as a tag of a blob
                continue
            old = repo.find_commit(update.old) if update.old else None
            known = [old] if old else repo.boundary(commit, remote)
            checked = new_in_projects(repo, known, commit)
            refs.append((update.ref, checked))
            if old and not any(p.is_error for p in checked.problems):
                plans += _reviews(repo, remote, update.ref, old, commit)
    return CheckedPush(tuple(refs), tuple(plans))


def _reviews(
    repo: GitRepo, remote: str, ref: str, old: CommitId, new: CommitId
) -> Iterator[tuple[str, Review]]:
    """Yield the review of each project that tracks a pushed branch, by the branch's name.

    There is none if the two commits have no common history, or if the old one has mistakes.
    """
    for view in projects_at(repo, new):
        with suppress(RepositoryError, SpecError):
            settings = settings_at(view, new)
            if ref == f"refs/heads/{settings.branch}":
                project = project_in(view)
                if project.remote == remote:
                    yield settings.branch, compare(project, old, new)
