"""The pre-push hook: checks the specs of pushed commits before they leave this clone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtf.commands.review import compare
from mtf.commands.validate import Checked, new_in
from mtf.errors import RepositoryError, SpecError
from mtf.project.project import project_in
from mtf.project.settings_file import SETTINGS, settings_or_defaults
from mtf.spec.yaml.reader import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mtf.core.planner.push_rules import Update
    from mtf.core.review.changed_runs import Review
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
    refs, plans = [], []
    with repo.reading():
        for update in updates:
            commit = None if update.is_ours or not update.new else repo.find_commit(update.new)
            if commit is None:  # such as a tag of a blob
                continue
            old = repo.find_commit(update.old) if update.old else None
            known = [old] if old else repo.boundary(commit, remote)
            checked = new_in(repo, known, commit)
            refs.append((update.ref, checked))
            settings, _ = settings_or_defaults(repo.read(commit, SETTINGS, MAX_BYTES + 1))
            is_tracked = (remote, update.ref) == (settings.remote, f"refs/heads/{settings.branch}")
            if old and is_tracked and not any(p.is_error for p in checked.problems):
                review = _review(repo, old, commit)
                plans += [(settings.branch, review)] if review else []
    return CheckedPush(tuple(refs), tuple(plans))


def _review(repo: GitRepo, old: str, new: str) -> Review | None:
    """Return the review of a branch's update.

    None if the two have no common history, or if the old commit has mistakes.
    """
    try:
        return compare(project_in(repo), old, new)
    except (RepositoryError, SpecError):
        return None
