"""Puts back what somebody has changed outside the ledger: job branches and checkouts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mtf import rundir
from mtf.core.vocabulary.actions import Repin
from mtf.errors import MtfError
from mtf.reconcile.checkout import materialise

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtf.core.vocabulary.actions import Repair
    from mtf.ledger.store import LedgerStore
    from mtf.project.project import Project


def put_back(
    project: Project, store: LedgerStore, action: Repair, say: Callable[[str], None]
) -> None:
    """Repair one thing; where that fails it is said, and hinders nothing else."""
    record = action.record
    try:
        if isinstance(action, Repin):
            store.repin(record.branch, record.commit, action.found, remote=action.on_remote)
        else:
            root = rundir.root_of(Path(record.run_dir), record.run)
            materialise(project.repo, root, record.commit)
    except MtfError as e:
        say(f"failed   {action.reason}; to put it back has failed: {e}")
    else:
        say(f"put back {action.reason}: back at {record.commit[:8]}")
