"""Checks what a push brings to a remote, before it leaves: the pre-push hook."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtf.commands.review import compare
from mtf.commands.validate import Checked, new_in
from mtf.errors import RepositoryError, SpecError
from mtf.project.project import project_in
from mtf.project.settings_file import SETTINGS, settings_or_defaults

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mtf.core.planner.push_rules import Update
    from mtf.core.review.changed_runs import Review
    from mtf.git.repo import GitRepo


@dataclass(frozen=True)
class CheckedPush:
    """What was found in what a push brings, by ref, and what it asks for where it counts."""

    refs: tuple[tuple[str, Checked], ...]
    plans: tuple[tuple[str, Review], ...]  # by branch: those that are tracked there


def check_push(repo: GitRepo, remote: str, updates: Sequence[Update]) -> CheckedPush:
    """Check all that the pushed refs hold and the remote does not have yet.

    Deletions bring nothing; job branches and the ledger hold no specs of their own.

    Args:
        repo: the pushing one.
        remote: its name, or its URL where it has none.
        updates: as git tells them.
    """
    refs, plans = [], []
    with repo.reading():
        for update in updates:
            commit = None if update.is_ours or not update.new else repo.find_commit(update.new)
            if commit is None:  # also a tag of something that is no commit
                continue
            old = repo.find_commit(update.old) if update.old else None
            known = [old] if old else repo.boundary(commit, remote)
            checked = new_in(repo, known, commit)
            refs.append((update.ref, checked))
            settings, _ = settings_or_defaults(repo.read(commit, SETTINGS))
            is_tracked = (remote, update.ref) == (settings.remote, f"refs/heads/{settings.branch}")
            if old and is_tracked and not any(p.is_error for p in checked.problems):
                found = _plan(repo, old, commit)
                plans += [(settings.branch, found)] if found else []
    return CheckedPush(tuple(refs), tuple(plans))


def _plan(repo: GitRepo, old: str, new: str) -> Review | None:
    """Return what the branch will ask for that it did not.

    None where that cannot be told: no history joins the two, or mistakes were there before.
    """
    try:
        return compare(project_in(repo), old, new)
    except (RepositoryError, SpecError):
        return None
