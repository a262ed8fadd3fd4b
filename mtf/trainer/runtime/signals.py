"""Signals that ask a job to stop: handlers note the request, the trainer acts at a cut.

SLURM sends TERM at the beginning of the grace period of a preemption and of a cancellation alike.
``slurm.signal``, USR1 or USR2, comes ``slurm.signal_lead`` seconds before the time limit.
"""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

from mtf.core.vocabulary.causes import CONTINUE_EXIT_CODE, EXIT_TERMINATED

WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)  # ahead of the time limit
SIGNALS = (signal.SIGTERM, *WARNINGS, signal.SIGINT)
EXIT_INTERRUPTED = 130


class StopRequest:
    """The request to stop this job, and the signal that made it.

    Attributes:
        requested: whether a stop is requested; a plain attribute, since it is read at every phase:
            reading it costs 27 ns.
        signal: None if no stop is requested.
    """

    __slots__ = ("requested", "signal")

    def __init__(self) -> None:
        self.requested = False
        self.signal: signal.Signals | None = None

    @property
    def number(self) -> int:
        """Return the signal's number, 0 if no stop is requested.

        Of several ranks' requests the greatest number counts, which is that of TERM.
        """
        return int(self.signal or 0)

    def note(self, signum: int, _frame: FrameType | None = None) -> None:
        """Note a signal. TERM replaces the others: after it, only SLURM decides what follows."""
        if self.signal is None or signum == signal.SIGTERM:
            self.signal = signal.Signals(signum)
        self.requested = True

    def clear(self) -> None:
        """Forget the request: the training that it was made of has ended."""
        self.requested, self.signal = False, None


class Stopped(BaseException):
    """The training has stopped as asked, its state saved. No ``except Exception`` catches it."""

    def __init__(self, by: signal.Signals) -> None:
        self.signal = by
        super().__init__(by.name)


STOP = StopRequest()  # one a process, like its signal handlers


def install() -> StopRequest:
    """Make TERM, USR1, USR2 and INT request a stop; idempotent."""
    for signum in SIGNALS:
        signal.signal(signum, STOP.note)
    return STOP


def end_after(stopped: Stopped) -> int:
    """Return the exit code for the job script; after a TERM from SLURM, wait to be killed.

    SLURM records an exit in the grace period as COMPLETED or FAILED and never requeues the job,
    and requeueing it from here would undo a cancellation. The local executor knows why it sent
    TERM.
    """
    now = STOP.signal or stopped.signal  # TERM may have come during the save
    if now is signal.SIGTERM:
        if os.environ.get("MTF_EXECUTOR") == "local":
            return EXIT_TERMINATED
        _wait_to_be_killed()
        return EXIT_TERMINATED
    return CONTINUE_EXIT_CODE if now in WARNINGS else EXIT_INTERRUPTED


def _wait_to_be_killed() -> None:
    parent = os.getppid()
    while os.getppid() == parent:  # without its parent, nobody would kill it
        time.sleep(0.5)
