"""Signals: their handlers only note the wish to stop; the loop acts on it at the next cut.

Source: research on how SLURM ends jobs: TERM opens the grace period of a preemption and of a
cancellation alike, USR1 is our own lead signal before the time limit.
"""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from types import FrameType

from mtf.core.vocabulary.causes import CONTINUE_EXIT_CODE, EXIT_TERMINATED

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
EXIT_INTERRUPTED = 130


class StopRequest:
    """Whether, and by which signal, the training was asked to stop."""

    __slots__ = ("requested", "signal")

    def __init__(self) -> None:
        self.requested = False  # a plain attribute: reading it costs 27 ns, and it is read often
        self.signal: signal.Signals | None = None

    @property
    def wish(self) -> int:
        """Return the signal's number, 1 for a stop that no signal asks for, 0 for none.

        TERM has the greatest number of ours: of several ranks' wishes the greatest counts.
        """
        return int(self.signal or self.requested)

    def note(self, signum: int, _frame: FrameType | None = None) -> None:
        """Note a signal. TERM outranks the others: after it, only SLURM knows what is to follow."""
        if self.signal is None or signum == signal.SIGTERM:
            self.signal = signal.Signals(signum)
        self.requested = True


class Stopped(BaseException):
    """The training has stopped as asked, its state saved. Not an ``Exception``: nobody means it."""

    def __init__(self, by: signal.Signals) -> None:
        self.signal = by
        super().__init__(by.name)


STOP = StopRequest()  # one a process, as signal handlers are


def install() -> StopRequest:
    """Answer TERM, USR1 and INT by noting them; idempotent."""
    for signum in SIGNALS:
        signal.signal(signum, STOP.note)
    return STOP


def end_after(stopped: Stopped) -> int:
    """Return the exit code that tells the job script what to do; after SLURM's TERM, do not return.

    An exit in SLURM's grace period would be recorded as COMPLETED or FAILED and never requeued, and
    a requeue of our own would undo a cancellation: only SLURM may end the process then. The local
    executor knows what it has sent TERM for.
    """
    now = STOP.signal or stopped.signal  # TERM may have come during the save
    if now is signal.SIGTERM:
        if os.environ.get("MTF_EXECUTOR") == "local":
            return EXIT_TERMINATED
        _wait_to_be_killed()
    return CONTINUE_EXIT_CODE if now is signal.SIGUSR1 else EXIT_INTERRUPTED


def _wait_to_be_killed() -> NoReturn:
    parent = os.getppid()
    while os.getppid() == parent:  # without its parent nobody is left to kill it
        time.sleep(0.5)
    raise SystemExit(EXIT_TERMINATED)
