"""Checks of the ledger: records are readable, job branches and pinned commits exist."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from mtf import rundir
from mtf.commands.doctor.finding import Checkup, Finding, Theme
from mtf.core.planner.drift import Branches, repairs, unrecorded_submissions
from mtf.core.vocabulary.actions import Repin
from mtf.core.vocabulary.ids import JOB_BRANCH_PREFIX, submission_path
from mtf.errors import RepositoryError
from mtf.reconcile.drift_scan import beyond_repair, known_submissions, look_for_drift
from mtf.reconcile.run_access import is_elsewhere

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mtf.core.vocabulary.ids import SubmissionId


def records(checkup: Checkup) -> Iterator[Finding]:
    """Find records that were damaged, edited or removed since mtf wrote them."""
    for path, why in beyond_repair(checkup.ledger).items():
        cure = f"git log -p mtf/ledger -- {path}"
        yield Finding("error", f"the record {why}", f"mtf/ledger:{path}", cure)
    for trouble in checkup.ledger.findings or ():
        if trouble.last_good is not None:
            where = f"mtf/ledger:{trouble.path}"
            yield Finding("error", f"the record {trouble.why}", where, "mtf sync (restores it)")


def branches(checkup: Checkup) -> Iterator[Finding]:
    """Find job branches that were deleted or moved, and branches without a record."""
    project, ledger = checkup.project, checkup.ledger
    on_remote = None
    if project.remote:
        with suppress(RepositoryError):  # the repository's checks report it
            on_remote = project.repo.remote_refs(project.remote, [f"{JOB_BRANCH_PREFIX}*"])
    found = Branches(project.repo.refs(JOB_BRANCH_PREFIX), on_remote)
    here = [r for r in ledger.runs.values() if not is_elsewhere(project.runs_root, r)]
    drift = look_for_drift(
        ledger,
        here,
        found,
        project.store(),
        repository=project.repo.root,
        is_shared=project.remote is not None,
    )
    for action in repairs(drift, ledger.runs, ledger.runs):
        if isinstance(action, Repin):
            where = f"refs/heads/{action.record.branch}"
            yield Finding("warning", action.reason, where, "mtf sync (restores it)")
    for submission in unrecorded_submissions(drift, known_submissions(ledger)):
        yield _without_record(checkup, submission, found)


def _without_record(checkup: Checkup, submission: SubmissionId, branches: Branches) -> Finding:
    """Return the finding about a job branch that no record explains."""
    ref = f"{JOB_BRANCH_PREFIX}{submission}"
    folder = rundir.submission_dir(checkup.project.runs_root, submission)
    if folder.is_dir():
        origin = f"its run folder {folder} exists, so its runs may have been submitted"
    else:
        origin = "there is no run folder here, but another clone may have submitted its runs"
    short = ref.removeprefix("refs/heads/")
    removals = [f"git branch -D {short}"] if ref in branches.here else []
    if ref in (branches.on_remote or {}):
        removals.append(f"git push {checkup.project.remote} :{ref}")
    return Finding(
        "error",
        f"the job branch has no record in the ledger: {origin}",
        short,
        "mtf sync in the clone that created it restores the record; if nothing was submitted: "
        + "; ".join(removals),
    )


def submissions(checkup: Checkup) -> Iterator[Finding]:
    """Find runs whose submission has no record."""
    for submission in sorted({r.submission for r in checkup.ledger.runs.values()}):
        if submission not in checkup.ledger.submissions:
            path = submission_path(submission)
            yield Finding(
                "error",
                f"{submission} has runs but no submission record, so they cannot be retried",
                f"mtf/ledger:{path}",
                f"git log mtf/ledger -- {path}",
            )


def pins(checkup: Checkup) -> Iterator[Finding]:
    """Find pinned commits that are missing from this repository."""
    repo = checkup.project.repo
    by_commit = {r.commit: r for r in checkup.ledger.runs.values()}
    for commit, record in by_commit.items():
        if repo.find_commit(commit) is None:
            cure = f"git fetch {checkup.project.remote} {record.branch}"
            what = "the pinned commit is missing here, so the run cannot be continued from here"
            yield Finding("error", what, f"{record.run}: {commit}", cure)


THEME = Theme("ledger", (records, branches, submissions, pins))
