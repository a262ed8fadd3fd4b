"""The pre-receive hook: a server refuses broken specs, and pushes that lose job branches or runs.

It only reads: pushed objects are still in quarantine, and no ref may move (githooks(5)).
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from mtf.commands.validate import new_in_projects
from mtf.core.planner.push_rules import refused_file, refused_job_branch
from mtf.core.vocabulary.ids import JOB_BRANCH_PREFIX, LEDGER_REF, OVERVIEW
from mtf.errors import RepositoryError, abridged
from mtf.ledger.audit import contents, decode_at, edit_of
from mtf.ledger.codec import DamagedRecordError, NewerRecordError
from mtf.project.location.folder import projects_at
from mtf.project.project import ledger_signing
from mtf.project.settings_file import SETTINGS, settings_or_defaults
from mtf.spec.yaml.reader import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mtf.core.planner.push_rules import Update
    from mtf.core.vocabulary.ids import CommitId
    from mtf.git.repo import GitRepo

_MOST_REASONS = 20  # of one push


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
        checked = new_in_projects(repo, [update.old] if update.old else [], update.new)
        return [str(p) for p in abridged(p for p in checked.problems if p.is_error)]
    return []


def _ledger_reasons(repo: GitRepo, old: CommitId | None, new: CommitId | None) -> list[str]:
    """Return the reasons to refuse a new ledger: each of its commits must be one that mtf makes."""
    if new is None:
        return ["the ledger must not be deleted: it is the record of all runs"]
    if old is not None and not repo.continues(old, new):
        return ["the ledger only grows, and this push does not continue its tip. Run mtf sync"]
    signing = ledger_signing(repo)
    try:
        if signing.required:
            signing.check(repo, old, new)
        return [*islice(_wrong_files(repo, old, new), _MOST_REASONS)]
    except RepositoryError as e:
        return [str(e)]


def _wrong_files(repo: GitRepo, old: CommitId | None, new: CommitId) -> Iterator[str]:
    """Yield a reason for each file that a push changes and mtf would not have changed so."""
    steps = repo.steps(old, new, ())
    records = [step for step in steps if step.path != OVERVIEW]
    lost = list(dict.fromkeys(step.path for step in records if step.new is None))
    if lost:
        yield f"the ledger only grows, and {lost[0]} is missing ({len(lost)} in all)"
    blobs = contents(repo, ((step.path, o) for step in records for o in (step.old, step.new)))
    for step in records:
        if step.new is None:
            continue
        if reason := refused_file(step.path):
            yield reason
        elif step.mode not in (None, "100644"):
            yield f"{step.path}: it is no regular file"
        elif reason := _wrong_record(step.path, blobs.get(step.old or ""), blobs[step.new]):
            yield f"{step.path}: {reason}"


def _wrong_record(path: str, old: bytes | None, new: bytes) -> str | None:
    """Return the reason why mtf cannot have written a record, None if it can."""
    try:
        after = decode_at(path, new)
        before = decode_at(path, old) if old is not None else None
    except NewerRecordError:
        return None  # this mtf cannot tell; readers of its version leave the record alone
    except DamagedRecordError as e:
        return f"not a record ({e})"
    return edit_of(before, after)


def _tracked(repo: GitRepo, pushed: CommitId) -> set[str]:
    """Return the tracked branches, by the settings at the server's HEAD and in the push.

    Both count, so that no push evades the check by naming another branch.
    """
    head = repo.find_commit("HEAD")
    texts = [
        project.read(commit, SETTINGS, MAX_BYTES + 1)
        for commit in (head, pushed)
        if commit
        for project in projects_at(repo, commit)
    ]
    return {f"refs/heads/{settings_or_defaults(raw)[0].branch}" for raw in texts}
