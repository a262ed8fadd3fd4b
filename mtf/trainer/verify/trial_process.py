"""The processes that train: forked or new, with the interruption that each may get."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from mtf.core.vocabulary import json_text
from mtf.errors import MtfError
from mtf.packaged_files import PACKAGE
from mtf.trainer.loop.loop import HANDLERS
from mtf.trainer.loop.phases import Phase
from mtf.trainer.runtime.process_end import end_data_workers
from mtf.trainer.runtime.signals import STOP, Stopped

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mtf.trainer.loop.loop import Loop

COMPLETE, FAILED, STOPPED, OVERDUE = 0, 1, 7, 124
_MTF = f"{PACKAGE}/"
OUTPUT, ERROR = "output.txt", "error.txt"
POLL_S = 0.002


@dataclass(frozen=True)
class Interruption:
    """A signal that a training sends to itself, right before or after the nth time of a phase.

    Without a phase, it comes ``delay_s`` seconds after the start.
    """

    signum: int
    phase: str | None = None
    nth: int = 1
    after: bool = False
    delay_s: float = 0.0

    @property
    def is_kill(self) -> bool:
        """Return True if the signal kills the process at once."""
        return self.signum == signal.SIGKILL

    def __str__(self) -> str:
        """Return the signal and its place in words."""
        name = signal.Signals(self.signum).name
        if self.phase is None:
            return f"{name} {self.delay_s:.2f} s after the start"
        return f"{name} {'after' if self.after else 'before'} {self.phase} number {self.nth}"

    def install(self) -> None:
        """Make this process interrupt itself there."""
        signum = signal.Signals(self.signum)
        if self.phase is None:
            signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signum))
            signal.setitimer(signal.ITIMER_REAL, self.delay_s)
        else:
            interrupt_at(Phase(self.phase), self.nth, signum, after=self.after)


@dataclass(frozen=True)
class Trial:
    """What one process of a training does: its folder, changes, interruption and probes."""

    run_dir: str
    interruption: Interruption | None = None
    batches: int | None = None  # of an epoch, at most
    val_batches: int | None = None
    deterministic: bool = False
    num_workers: int | None = None
    probed_to: tuple[int, bool, int] | None = None  # the last batch to probe in full

    def dumps(self) -> str:
        """Return the trial as one line of JSON."""
        return json_text.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str) -> Trial:
        """Return the trial that ``dumps`` wrote."""
        value: dict[str, Any] = json_text.loads(text)
        interruption, last_batch = value["interruption"], value["probed_to"]
        value["interruption"] = Interruption(**interruption) if interruption else None
        value["probed_to"] = tuple(last_batch) if last_batch else None
        return cls(**value)

    def interrupted(self, interruption: Interruption | None) -> Trial:
        """Return the same trial with an interruption, or without one."""
        return replace(self, interruption=interruption)


def interrupt_at(phase: Phase, nth: int, signum: signal.Signals, *, after: bool) -> None:
    """Make this process signal itself right before or after the nth time of a phase."""
    handler, count = HANDLERS[phase], 0

    def interrupting(loop: Loop) -> Phase:
        nonlocal count
        count += 1
        if count == nth and not after:
            os.kill(os.getpid(), signum)
        next_phase = handler(loop)
        if count == nth and after:
            os.kill(os.getpid(), signum)
        return next_phase

    HANDLERS[phase] = interrupting


def exit_code_of(body: Callable[[], None], folder: Path | None = None) -> int:
    """Run a training and return COMPLETE, STOPPED, or FAILED after printing the traceback.

    The error is also written to the file ``ERROR`` in ``folder``, without a traceback if its
    message is meant for the user.
    """
    STOP.requested, STOP.signal = False, None
    try:
        _train(body)
    except Stopped:
        return STOPPED
    except BaseException as e:  # noqa: BLE001 -- the parent gets the exit code
        traceback.print_exc()
        if folder is not None:
            (folder / ERROR).write_text(str(e) if isinstance(e, MtfError) else _traceback(e))
        return FAILED
    return COMPLETE


def _traceback(error: BaseException) -> str:
    """Return the traceback of an error, from the first frame on that is not mtf's."""
    whole = traceback.TracebackException.from_exception(error)
    own = [frame.filename.startswith(_MTF) for frame in whole.stack]
    del whole.stack[: own.index(False) if False in own else 0]
    return "".join(whole.format())


def _train(body: Callable[[], None]) -> None:
    try:
        body()
    finally:
        end_data_workers()


class ChildProcess:
    """A process that trains, with an optional time limit in seconds."""

    def __init__(self, pid: int, limit_s: float | None) -> None:
        self._pid = pid
        self._ends_by_s = None if limit_s is None else time.monotonic() + limit_s
        self._is_reaped = False  # then its pid may be that of another process

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs; kill it if it exceeds its time limit.

        Returns:
            COMPLETE, STOPPED, FAILED, OVERDUE, or the negative number of the signal that killed it.
        """
        ended, status = os.waitpid(self._pid, os.WNOHANG)
        if ended:
            self._is_reaped = True
            return os.waitstatus_to_exitcode(status)
        if self._ends_by_s is not None and time.monotonic() > self._ends_by_s:
            self.kill()
            return OVERDUE
        return None

    def wait(self) -> int:
        """Wait for the process and return its exit code."""
        while (code := self.poll()) is None:
            time.sleep(POLL_S)
        return code

    def kill(self) -> None:
        """Kill the process; one whose exit code was already returned is left alone."""
        if not self._is_reaped:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._is_reaped = True


def fork(
    body: Callable[[], None], *, log: Path | None = None, limit_s: float | None = None
) -> ChildProcess:
    """Train in a fork of this process, with its output in ``log``."""
    sys.stdout.flush()
    sys.stderr.flush()
    if (pid := os.fork()) == 0:
        code = FAILED
        try:
            if log is not None:
                _redirect_output(log)
            code = exit_code_of(body, log.parent if log else None)
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
    return ChildProcess(pid, limit_s)


def spawn(
    command: list[str], *, log: Path, limit_s: float | None = None, **env: str
) -> ChildProcess:
    """Train in a new process, by a command and with further environment variables."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions = [
        (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    pid = os.posix_spawn(command[0], command, {**os.environ, **env}, file_actions=actions)
    return ChildProcess(pid, limit_s)


def _redirect_output(log: Path) -> None:
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)
    # replaces whatever the parent put there, such as pytest's capture
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
