"""Is the ledger whole: every record readable, every pin there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtf.commands.doctor.finding import Checkup, Finding, Theme
from mtf.core.ids import submission_path

if TYPE_CHECKING:
    from collections.abc import Iterator


def records(checkup: Checkup) -> Iterator[Finding]:
    """Find records that cannot be read."""
    for path, why in checkup.ledger.damaged.items():
        yield Finding("error", f"the record is damaged: {why}", f"mtf/ledger:{path}", "mtf sync")


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


THEME = Theme("ledger", (records, submissions, pins))
