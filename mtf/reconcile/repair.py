"""Restores job branches and checkouts that somebody moved or deleted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mtf import rundir
from mtf.core.vocabulary.actions import Repin, Throttle, owner_name
from mtf.errors import MtfError
from mtf.reconcile.checkout import materialise

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtf.core.vocabulary.actions import Repair
    from mtf.git.repo import GitRepo
    from mtf.ledger.store import LedgerStore
    from mtf.reconcile.executors import Executors


def restore(repo: GitRepo, store: LedgerStore, action: Repair, say: Callable[[str], None]) -> None:
    """Restore one branch or checkout; a failure is reported, and stops nothing else."""
    record = action.record
    try:
        if isinstance(action, Repin):
            store.repin(record.branch, record.commit, action.found, remote=action.on_remote)
        else:
            root = rundir.root_of(Path(record.run_dir), record.run)
            materialise(repo, root, record.commit, store.remote)
    except MtfError as e:
        say(f"failed   {action.reason}; could not restore it: {e}")
    else:
        say(f"restored {action.reason}: back at {record.commit[:8]}")


def set_throttle(executors: Executors, action: Throttle, say: Callable[[str], None]) -> None:
    """Set the limits of a grid's arrays; a failure is reported, and stops nothing else."""
    try:
        executors.open(action.record.executor).set_limits(action.limits)
    except MtfError as e:
        say(f"failed   {owner_name(action)}: {action.reason}: {e}")
    else:
        say(f"limit    {owner_name(action)}: {action.reason}")
