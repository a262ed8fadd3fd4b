"""TERM, INT and HUP as a wish to end, which a long-lived command sees while it waits."""

from __future__ import annotations

import os
import select
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextmanager
def stoppable() -> Iterator[Callable[[float], bool]]:
    """Return a function that waits some seconds and returns True, at once, when asked to end.

    The first signal asks; what is being done is finished. A second one ends the process as it
    would any other.
    """
    waker, wake = os.pipe()
    for end in (waker, wake):
        os.set_blocking(end, False)
    asked = False

    def ask(number: int, _: object) -> None:
        nonlocal asked
        asked = True
        signal.signal(number, signal.SIG_DFL)

    def pause(seconds: float) -> bool:
        if not asked:
            select.select([waker], [], [], seconds)  # a signal's number arrives there
        return asked

    heard = [n for n in _SIGNALS if signal.getsignal(n) is not signal.SIG_IGN]  # nohup
    before = {number: signal.signal(number, ask) for number in heard}
    woken = signal.set_wakeup_fd(wake)
    try:
        yield pause
    finally:
        signal.set_wakeup_fd(woken)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(waker)
        os.close(wake)
