"""Retries a compare-and-swap that lost to another writer of the ledger."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, TypeVar

from mtf.git.refs import RefMovedError
from mtf.ledger.store import Change

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mtf.core.vocabulary.ids import RunId
    from mtf.core.vocabulary.records import RunRecord
    from mtf.ledger.store import Ledger, LedgerStore

_T = TypeVar("_T")
_TRIES = 30  # with growing random pauses: 8 writers of one remote waited at most 14 s


def with_retries(read_and_write: Callable[[], _T]) -> _T:
    """Return the function's result; call it again whenever another writer was faster.

    Raises:
        RefMovedError: other writers were faster every time.
    """
    for attempt in range(1, _TRIES):
        try:
            return read_and_write()
        except RefMovedError:
            time.sleep(random.uniform(0.02, 0.1) * attempt)  # noqa: S311
    return read_and_write()


def update_records(
    store: LedgerStore,
    branch: str,
    runs: Iterable[RunId],
    change: Callable[[RunRecord], RunRecord],
    message: str,
    *,
    first: Ledger | None = None,
) -> Ledger:
    """Change the current records of some runs in one commit, and return the ledger with it.

    Args:
        store: of the ledger.
        branch: the tracked branch, which is fetched with the ledger.
        runs: to change; those without a record are left out.
        change: returns the new record for a current one.
        message: of the commit.
        first: the ledger for the first try, by default the one in this clone.
    """
    runs, unread = list(runs), [store.read() if first is None else first]

    def write() -> Ledger:
        if not unread:
            store.fetch(branch)
        current = unread.pop() if unread else store.read()
        pairs = [(r, change(r)) for run in runs if (r := current.runs.get(run))]
        updated = tuple(new for old, new in pairs if new != old)
        if not updated:
            return current
        return store.append(current, Change(runs=updated), message)

    return with_retries(write)
