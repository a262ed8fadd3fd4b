"""The pre-receive hook: a server refuses broken specs, and pushes that lose job branches or runs.

It only reads: pushed objects are still in quarantine, and no ref may move (githooks(5)).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtf.commands.validate import new_in
from mtf.core.planner.push_rules import lost_records, refused_job_branch
from mtf.core.vocabulary.ids import JOB_BRANCH_PREFIX, LEDGER_REF
from mtf.errors import abridged
from mtf.project.settings_file import SETTINGS, settings_or_defaults

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mtf.core.planner.push_rules import Update
    from mtf.core.vocabulary.ids import CommitId
    from mtf.git.repo import GitRepo


def refusals(repo: GitRepo, updates: Iterable[Update]) -> list[str]:
    """Return the reasons to refuse a push, one line each; none if it is accepted."""
    with repo.reading():
        return [f"{u.ref}: {reason}" for u in updates for reason in _reasons(repo, u)]


def _reasons(repo: GitRepo, update: Update) -> list[str]:
    if update.ref.startswith(JOB_BRANCH_PREFIX):
        reason = refused_job_branch(update)
        return [reason] if reason else []
    if update.ref == LEDGER_REF:
        return _ledger_reasons(repo, update.old, update.new)
    if update.new and update.ref in _tracked(repo, update.new):
        checked = new_in(repo, [update.old] if update.old else [], update.new)
        return [str(p) for p in abridged(p for p in checked.problems if p.is_error)]
    return []


def _ledger_reasons(repo: GitRepo, old: CommitId | None, new: CommitId | None) -> list[str]:
    if old is None:
        return []
    if new is None:
        return ["the ledger must not be deleted: it is the record of all runs"]
    if not repo.is_ancestor(old, new):
        return ["the ledger only grows, and this push does not contain its tip. Run mtf sync"]
    lost = lost_records(repo.deleted(old, new))
    return [f"the ledger only grows, and {lost[0]} is missing ({len(lost)} in all)"] if lost else []


def _tracked(repo: GitRepo, pushed: CommitId) -> set[str]:
    """Return the tracked branches, by the settings at the server's HEAD and in the push.

    Both count, so that no push evades the check by naming another branch.
    """
    head = repo.find_commit("HEAD")
    texts = [repo.read(commit, SETTINGS) for commit in (head, pushed) if commit]
    return {f"refs/heads/{settings_or_defaults(raw)[0].branch}" for raw in texts}
