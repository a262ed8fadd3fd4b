"""Guards the repository that everybody pushes to: the pre-receive hook.

It reads only: what is pushed is still in quarantine, and no ref may move (githooks(5)).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtf.commands.validate import new_in
from mtf.core.planner.push_rules import lost_records, refused_job_branch
from mtf.core.vocabulary.ids import JOB_BRANCH_PREFIX, LEDGER_REF
from mtf.errors import foremost
from mtf.project.settings_file import SETTINGS, settings_or_defaults

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mtf.core.planner.push_rules import Update
    from mtf.core.vocabulary.ids import CommitId
    from mtf.git.repo import GitRepo


def refusals(repo: GitRepo, updates: Iterable[Update]) -> list[str]:
    """Return why a push may not come in; nothing when it may."""
    with repo.reading():
        return [f"{u.ref}: {why}" for u in updates for why in _refused(repo, u)]


def _refused(repo: GitRepo, update: Update) -> list[str]:
    if update.ref.startswith(JOB_BRANCH_PREFIX):
        why = refused_job_branch(update)
        return [why] if why else []
    if update.ref == LEDGER_REF:
        return _of_ledger(repo, update.old, update.new)
    if update.new and update.ref in _tracked(repo, update.new):
        checked = new_in(repo, [update.old] if update.old else [], update.new)
        return [str(p) for p in foremost(p for p in checked.problems if p.is_error)]
    return []


def _of_ledger(repo: GitRepo, old: CommitId | None, new: CommitId | None) -> list[str]:
    if old is None:
        return []
    if new is None:
        return ["the ledger is never deleted: it is the record of all runs"]
    if not repo.is_ancestor(old, new):
        return ["the ledger only grows: this push does not build on what is here. Run mtf sync"]
    lost = lost_records(repo.deleted(old, new))
    return [f"the ledger only grows: {lost[0]} is missing ({len(lost)} in all)"] if lost else []


def _tracked(repo: GitRepo, pushed: CommitId) -> set[str]:
    """Return the branches that are tracked: as it is said here, and as the push says.

    Both count, so that no push gets around the check by naming another branch.
    """
    here = repo.find_commit("HEAD")
    texts = [repo.read(commit, SETTINGS) for commit in (here, pushed) if commit]
    return {f"refs/heads/{settings_or_defaults(raw)[0].branch}" for raw in texts}
