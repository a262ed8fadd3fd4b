"""Is the ledger whole: every record readable, every pin there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtf import rundir
from mtf.commands.doctor.finding import Checkup, Finding, Theme
from mtf.core.planner.drift import Branches, repairs, strangers
from mtf.core.vocabulary.actions import Repin
from mtf.core.vocabulary.ids import JOB_BRANCH_PREFIX, submission_path
from mtf.reconcile.drift_scan import beyond_repair, known_submissions, look_for_drift
from mtf.reconcile.run_access import is_elsewhere

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mtf.core.vocabulary.ids import SubmissionId


def records(checkup: Checkup) -> Iterator[Finding]:
    """Find records that are not as mtf has left them: damaged, edited, removed."""
    for path, why in beyond_repair(checkup.ledger).items():
        look = f"git log -p mtf/ledger -- {path}"
        yield Finding("error", f"the record {why}", f"mtf/ledger:{path}", look)
    for trouble in checkup.ledger.troubles or ():
        if trouble.good is not None:
            where = f"mtf/ledger:{trouble.path}"
            yield Finding("error", f"the record {trouble.why}", where, "mtf sync (puts it back)")


def branches(checkup: Checkup) -> Iterator[Finding]:
    """Find job branches that are gone, elsewhere, or unknown to the ledger."""
    project, ledger = checkup.project, checkup.ledger
    there = None
    if project.remote:
        there = project.repo.remote_refs(project.remote, [f"{JOB_BRANCH_PREFIX}*"])
    found = Branches(project.repo.refs(JOB_BRANCH_PREFIX), there)
    here = [r for r in ledger.runs.values() if not is_elsewhere(project.runs_root, r)]
    drift = look_for_drift(
        ledger,
        here,
        found,
        repository=project.repo.root,
        is_shared=project.remote is not None,
    )
    for action in repairs(drift, ledger.runs, ledger.runs):
        if isinstance(action, Repin):
            where = f"refs/heads/{action.record.branch}"
            yield Finding("warning", action.reason, where, "mtf sync (puts it back)")
    for submission in strangers(drift, known_submissions(ledger)):
        yield _stranger(checkup, submission, found)


def _stranger(checkup: Checkup, submission: SubmissionId, branches: Branches) -> Finding:
    """Return what is said of a job branch that no record explains."""
    ref = f"{JOB_BRANCH_PREFIX}{submission}"
    folder = rundir.submission_dir(checkup.project.runs_root, submission)
    if folder.is_dir():
        ran = f"its run folder is there ({folder}): its runs may have been submitted"
    else:
        ran = "it has no run folder here; its runs may have been submitted from elsewhere"
    short = ref.removeprefix("refs/heads/")
    removals = [f"git branch -D {short}"] if ref in branches.here else []
    if ref in (branches.there or {}):
        removals.append(f"git push {checkup.project.remote} :{ref}")
    return Finding(
        "error", f"a job branch without a record in the ledger: {ran}", short,
        "mtf sync in the clone that made it brings the record back; if nothing ran from it: "
        + "; ".join(removals),
    )  # fmt: skip


def submissions(checkup: Checkup) -> Iterator[Finding]:
    """Find runs whose submission has no record: they cannot be given another attempt."""
    for submission in sorted({r.submission for r in checkup.ledger.runs.values()}):
        if submission not in checkup.ledger.submissions:
            path = submission_path(submission)
            yield Finding(
                "error", f"{submission} has runs, but no record of its configurations",
                f"mtf/ledger:{path}", f"git log mtf/ledger -- {path}",
            )  # fmt: skip


def pins(checkup: Checkup) -> Iterator[Finding]:
    """Find pinned commits that are not in this repository."""
    repo = checkup.project.repo
    by_commit = {r.commit: r for r in checkup.ledger.runs.values()}
    for commit, record in by_commit.items():
        if repo.find_commit(commit) is None:
            cure = f"git fetch {checkup.project.remote} {record.branch}"
            yield Finding(
                "error", "the pinned commit is missing here", f"{record.run}: {commit}", cure
            )


THEME = Theme("ledger", (records, branches, submissions, pins))
