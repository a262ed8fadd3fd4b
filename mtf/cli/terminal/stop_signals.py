"""TERM, INT and HUP as a request to stop, which a long-lived command sees while it waits."""

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
    """Return a function that waits some seconds, and returns True at once after a stop request.

    The first signal is the request: work in progress is finished. A second one has its default
    effect and ends the process.
    """
    waker, wake = os.pipe()
    for end in (waker, wake):
        os.set_blocking(end, False)
    requested = False

    def request(number: int, _: object) -> None:
        nonlocal requested
        requested = True
        signal.signal(number, signal.SIG_DFL)

    def pause(seconds: float) -> bool:
        if not requested:
            select.select([waker], [], [], seconds)  # a signal writes its number to the pipe
        return requested

    # nohup ignores HUP, and so do we then
    caught = [n for n in _SIGNALS if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, request) for number in caught}
    previous_wake = signal.set_wakeup_fd(wake)
    try:
        yield pause
    finally:
        signal.set_wakeup_fd(previous_wake)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(waker)
        os.close(wake)
