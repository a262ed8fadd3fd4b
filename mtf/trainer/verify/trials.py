"""Trainings in processes of their own, which may be interrupted: forked, or from the start."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from mtf.trainer.loop import HANDLERS
from mtf.trainer.phases import Phase
from mtf.trainer.preemption import STOP, Stopped

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mtf.trainer.loop import Loop

COMPLETE, FAILED, STOPPED = 0, 1, 7
OUTPUT = "output.txt"
_POLL_S = 0.005


@dataclass(frozen=True)
class Interruption:
    """A signal that a training gets from itself, right before or after the nth of a phase.

    Without a phase: ``delay_s`` seconds after its start.
    """

    signum: int
    phase: str | None = None
    nth: int = 1
    after: bool = False
    delay_s: float = 0.0

    @property
    def is_kill(self) -> bool:
        """Return whether the process dies of it at once."""
        return self.signum == signal.SIGKILL

    def __str__(self) -> str:
        """Return signal and place in words."""
        name = signal.Signals(self.signum).name
        if self.phase is None:
            return f"{name} {self.delay_s:.2f} s after the start"
        return f"{name} {'after' if self.after else 'before'} {self.phase} number {self.nth}"

    def install(self) -> None:
        """Make this process interrupt itself."""
        signum = signal.Signals(self.signum)
        if self.phase is None:
            signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signum))
            signal.setitimer(signal.ITIMER_REAL, self.delay_s)
        else:
            interrupt_at(Phase(self.phase), self.nth, signum, after=self.after)


@dataclass(frozen=True)
class Trial:
    """One process of a training: where, with what changes, and what is to be watched."""

    run_dir: str
    interruption: Interruption | None = None
    batches: int | None = None  # of an epoch, at most
    val_batches: int | None = None
    deterministic: bool = False
    num_workers: int | None = None
    probed_to: tuple[int, bool, int] | None = None  # the last batch that is looked into in full

    def dumps(self) -> str:
        """Return it as one line of text."""
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str) -> Trial:
        """Return what ``dumps`` wrote."""
        value: dict[str, Any] = json.loads(text)
        said, to = value["interruption"], value["probed_to"]
        value["interruption"] = Interruption(**said) if said else None
        value["probed_to"] = tuple(to) if to else None
        return cls(**value)

    def at(self, folder: Path) -> Trial:
        """Return the same trial in another folder."""
        return replace(self, run_dir=str(folder))

    def interrupted(self, interruption: Interruption | None) -> Trial:
        """Return the same trial with an interruption, or without one."""
        return replace(self, interruption=interruption)


def interrupt_at(phase: Phase, nth: int, signum: signal.Signals, *, after: bool) -> None:
    """Make this process signal itself right before or after the nth ``phase``."""
    handler, seen = HANDLERS[phase], 0

    def probed(loop: Loop) -> Phase:
        nonlocal seen
        seen += 1
        if seen == nth and not after:
            os.kill(os.getpid(), signum)
        following = handler(loop)
        if seen == nth and after:
            os.kill(os.getpid(), signum)
        return following

    HANDLERS[phase] = probed


def outcome(body: Callable[[], None]) -> int:
    """Call a training and return COMPLETE, STOPPED or FAILED, its traceback said."""
    STOP.requested, STOP.signal = False, None
    try:
        body()
    except Stopped:
        return STOPPED
    except BaseException:  # noqa: BLE001 -- the parent sees the code, people the text
        traceback.print_exc()
        return FAILED
    return COMPLETE


def in_child(
    body: Callable[[], None], *, log: Path | None = None, limit_s: float | None = None
) -> int:
    """Train in a fork of this process, whose output goes to ``log``.

    Returns:
        COMPLETE, STOPPED, FAILED, or minus the signal that it died of.

    Raises:
        TimeoutError: it was killed after ``limit_s`` seconds.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if (pid := os.fork()) == 0:
        code = FAILED
        try:
            if log is not None:
                _write_to(log)
            code = outcome(body)
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
    return _wait(pid, limit_s)


def in_new_interpreter(
    command: list[str], *, log: Path, limit_s: float | None = None, **env: str
) -> int:
    """Run a command that answers as ``in_child`` does, with other variables if any are given.

    Raises:
        TimeoutError: it was killed after ``limit_s`` seconds.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions = [
        (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    pid = os.posix_spawn(command[0], command, {**os.environ, **env}, file_actions=actions)
    return _wait(pid, limit_s)


def _write_to(log: Path) -> None:
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)
    # whatever the parent has put in their place, say a test's capture
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)


def _wait(pid: int, limit_s: float | None) -> int:
    if limit_s is None:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    end = time.monotonic() + limit_s
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise TimeoutError(f"a training did not end within {limit_s:.0f} s")
        time.sleep(_POLL_S)
