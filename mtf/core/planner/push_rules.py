"""Ref updates as git reports them to a push hook, and the rules for the refs that mtf writes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtf.core.vocabulary.ids import (
    JOB_BRANCH_PREFIX,
    LEDGER_REF,
    OVERVIEW,
    CommitId,
    is_run_id,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

_NOTHING = re.compile("0{40,64}")


@dataclass(frozen=True)
class Update:
    """A ref that a push moves; ``old`` or ``new`` is None if the ref is created or deleted."""

    ref: str
    old: CommitId | None
    new: CommitId | None

    @property
    def is_ours(self) -> bool:
        """Return True if only mtf writes this ref: no spec is ever read from it."""
        return self.ref == LEDGER_REF or self.ref.startswith(JOB_BRANCH_PREFIX)


def read_pre_push(lines: Iterable[str]) -> list[Update]:
    """Return the updates that a push is about to make.

    Source: githooks(5), pre-push: ``<local ref> <local oid> <remote ref> <remote oid>``.
    """
    words = [line.strip().rsplit(" ", 3) for line in lines if line.strip()]
    return [Update(ref, _id(old), _id(new)) for _, new, ref, old in words]


def read_pre_receive(lines: Iterable[str]) -> list[Update]:
    """Return the updates that a push asks of this repository.

    Source: githooks(5), pre-receive: ``<old oid> <new oid> <ref>``.
    """
    words = [line.strip().split(" ", 2) for line in lines if line.strip()]
    return [Update(ref, _id(old), _id(new)) for old, new, ref in words]


def _id(text: str) -> CommitId | None:
    return None if _NOTHING.fullmatch(text) else CommitId(text)


def refused_job_branch(update: Update) -> str | None:
    """Return the reason why a job branch must not be updated like this, None if it may be."""
    if update.old is not None:
        what = "deleted" if update.new is None else "moved"
        return f"a job branch pins the code of runs and is never {what}"
    name = update.ref.removeprefix(JOB_BRANCH_PREFIX)
    if not is_run_id(name) or name.count("/") != 2:
        return "a job branch is named slurm-job/NAME/TIME/COMMIT"
    if update.new is not None and not update.new.startswith(name.rpartition("/")[2]):
        return f"a job branch is named after its commit: this one is {update.new[:8]}"
    return None


def refused_file(path: str) -> str | None:
    """Return the reason why the ledger must not have a file, None if it may."""
    parts = path.split("/")
    if path == OVERVIEW:
        return None
    is_record = path.endswith(".json") and (parts[0], len(parts)) in (
        ("runs", 4),
        ("submissions", 3),
    )
    return None if is_record else f"{path}: the ledger holds records and {OVERVIEW} alone"
