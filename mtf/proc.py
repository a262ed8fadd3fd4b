"""Runs programs: tuples of arguments, never through a shell, always with a time limit.

A program that runs into its limit ends with everything that it has started (``Started.end``).
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple, Protocol

from mtf.errors import MtfError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_DYING_S = 10.0  # time for killed processes to finish their system calls
_POLITE_S = 1.0  # for a program that was asked to end
_QUICKLY_S = 0.5  # for those that have none to finish


class ProgramMissingError(MtfError):
    """The program is not on PATH."""


class ProgramTimeoutError(MtfError):
    """The program did not end within its time limit; what it has done is unknown."""


@dataclass(frozen=True)
class Output:
    """The exit code of a program and what it printed."""

    code: int
    stdout: str
    stderr: str


def run(
    args: Sequence[str],
    *,
    timeout_s: float,
    stdin: str | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Output:
    """Run a program to its end, in a session of its own.

    Raises:
        ProgramMissingError: the program is not installed.
        ProgramTimeoutError: the program, and all that it had started, was killed after
            ``timeout_s`` seconds.
    """
    with closing(HeldPipe.make()) as pipe:
        try:
            child = subprocess.Popen(
                list(args),
                stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=cwd,
                env=env,
                start_new_session=True,
                pass_fds=(pipe.held,),
            )
        except FileNotFoundError as e:
            raise ProgramMissingError(f"{args[0]}: not found on PATH") from e
        pipe.release()
        given = None if stdin is None else stdin.encode()
        try:
            out, err = communicate(child, pipe, given, timeout_s=timeout_s, name=args[0])
        finally:
            if child.poll() is None:  # interrupted: a terminal reaches only its own session
                end_all(child.pid, pipe.alive)
                child.wait(_QUICKLY_S)
    return Output(child.returncode, _text(out), _text(err))


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace").replace("\r\n", "\n")


# -- the end of a program with everything that it has started --------------------------------------


class Running(Protocol):
    """A process that somebody has started with pipes, as ``subprocess`` represents it."""

    pid: int

    def communicate(
        self, given: bytes | None = None, /, timeout: float | None = None
    ) -> tuple[bytes, bytes]:
        """Write the input, read all output and wait for the end."""
        ...

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""
        ...


@dataclass
class HeldPipe:
    """A pipe whose writing end a program inherits, and all that it starts with its files open.

    Attributes:
        alive: the reading end, which reaches its end when all of them have ended.
        held: the writing end, to be passed to the program.
    """

    alive: int
    held: int

    @classmethod
    def make(cls) -> HeldPipe:
        """Return a new pipe, which has to be closed."""
        return cls(*os.pipe())

    def release(self) -> None:
        """Close the writing end here, once the program has it."""
        if self.held >= 0:
            os.close(self.held)
            self.held = -1

    def close(self) -> None:
        """Close what is open; idempotent."""
        self.release()
        if self.alive >= 0:
            os.close(self.alive)
            self.alive = -1


def communicate(
    child: Running,
    pipe: HeldPipe,
    given: bytes | None,
    *,
    timeout_s: float,
    name: str,
    politely: bool = False,
) -> tuple[bytes, bytes]:
    """Give a program its input, wait for its end and return its output and errors.

    If that takes too long, the program ends with all that it has started (``end_all``). A program
    that has ended, but left a process with its output open, has its output returned.

    Raises:
        ProgramTimeoutError: it took too long.
    """
    try:
        return child.communicate(given, timeout=timeout_s)
    except subprocess.TimeoutExpired as e:
        has_ended = child.poll() is not None
        end_all(child.pid, pipe.alive, politely=politely)
        with suppress(subprocess.TimeoutExpired):  # a process that cannot be killed holds a pipe
            output = child.communicate(timeout=_QUICKLY_S)
            if has_ended:
                return output
        raise ProgramTimeoutError(f"{name} did not answer within {timeout_s:g} s") from e


def end_all(pid: int, alive: int, *, politely: bool = False) -> None:
    """Kill a program and everything that it has started, and wait until all of it has ended.

    Found are its descendants, the processes of the session that it leads, and all that hold the
    pipe whose reading end is ``alive``. They are stopped before they are killed, so that none
    starts another meanwhile. Not found are a process that has closed all its files, left the
    session and lost its parent before, and those of another user.

    With ``politely``, they are asked to end first, and have a second to remove their locks.
    """
    if politely:
        _signal(_started_by(pid, alive), signal.SIGTERM)
        select.select([alive], [], [], _POLITE_S)
    stopped: set[int] = set()
    while found := _started_by(pid, alive) - stopped:
        stopped |= found
        _signal(found, signal.SIGSTOP)
    _signal({pid, *stopped}, signal.SIGKILL)
    end = time.monotonic() + _DYING_S
    while time.monotonic() < end and not all(map(_has_ended, {pid, *stopped})):
        time.sleep(0.005)


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


class _Stat(NamedTuple):
    """A process in ``/proc``: its state, its parent and its session."""

    state: str
    parent: int
    session: int


def _stat(pid: int | str) -> _Stat | None:
    # Source: proc(5), /proc/pid/stat: the name, in brackets, may contain anything
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()
        return _Stat(fields[0].decode(), int(fields[1]), int(fields[3]))
    return None


def _has_ended(pid: int) -> bool:
    found = _stat(pid)
    return found is None or found.state in ("Z", "X")


def _started_by(pid: int, alive: int) -> set[int]:
    """Return the processes that a program has started, and itself; outside Linux, itself."""
    with suppress(OSError):
        stats = {
            int(name): stat
            for name in os.listdir("/proc")  # noqa: PTH208 -- names alone
            if name.isdigit() and (stat := _stat(name))
        }
        found = {p for p, stat in stats.items() if stat.session == pid or _holds(p, alive)} | {pid}
        while more := {p for p, stat in stats.items() if stat.parent in found} - found:
            found |= more
        return {p for p in found if p != os.getpid() and p in stats and stats[p].state not in "ZX"}
    return {pid}


def _holds(pid: int, alive: int) -> bool:
    """Return True if a process has the writing end of a pipe open."""
    pipe = os.readlink(f"/proc/self/fd/{alive}")  # noqa: PTH115 -- pipe:[number]
    with suppress(OSError):  # it has ended, or is another user's
        for fd in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208 -- names alone
            if os.readlink(f"/proc/{pid}/fd/{fd}") == pipe:  # noqa: PTH115
                flags = Path(f"/proc/{pid}/fdinfo/{fd}").read_text().partition("flags:")[2].split()
                return bool(int(flags[0], 8) & os.O_WRONLY)
    return False


# -- programs whose output is read as it comes -----------------------------------------------------


def lines(
    args: Sequence[str],
    *,
    silence_s: float,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Iterator[str]:
    """Yield the lines of a program as it prints them; append its standard error to ``log``.

    When the iterator ends or is closed, the program and all processes that it started are killed.

    Raises:
        ProgramMissingError: the program is not installed.
        ProgramTimeoutError: the program was killed after ``silence_s`` seconds without output.
    """
    with _killed_at_exit(args, log, env, cwd) as stream:
        yield from _lines_of(stream, args[0], silence_s)


@contextmanager
def _killed_at_exit(
    args: Sequence[str], log: Path, env: Mapping[str, str] | None, cwd: Path | None
) -> Iterator[IO[bytes]]:
    """Start a program and yield its output; at the end, kill it and every process it started."""
    # an interrupt right after the start would leave the program running
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTS)
    try:
        child, alive = _start(args, log, env, cwd, mask)
        assert child.stdout is not None
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            yield child.stdout
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.stdout.close()
            child.wait()
            if not select.select([alive], [], [], _QUICKLY_S)[0]:  # one has left the group
                end_all(child.pid, alive)
            os.close(alive)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _start(
    args: Sequence[str],
    log: Path,
    env: Mapping[str, str] | None,
    cwd: Path | None,
    mask: Iterable[int],
) -> tuple[subprocess.Popen[bytes], int]:
    """Start a program in a session of its own, with a signal mask; return it and a pipe.

    The pipe reaches its end when the program and all processes that it started have ended.
    """
    alive, held = os.pipe()
    try:
        with log.open("ab") as err:
            child = subprocess.Popen(
                list(args),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=err,
                env=env,
                cwd=cwd,
                start_new_session=True,
                pass_fds=(held,),
                preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, mask),  # noqa: PLW1509
            )
    except FileNotFoundError as e:
        os.close(alive)
        raise ProgramMissingError(f"{args[0]}: not found on PATH") from e
    finally:
        os.close(held)
    return child, alive


def _lines_of(stream: IO[bytes], name: str, silence_s: float) -> Iterator[str]:
    left = b""
    while select.select([stream], [], [], silence_s)[0]:
        if not (piece := os.read(stream.fileno(), 65536)):
            return
        *whole, left = (left + piece).split(b"\n")
        yield from (line.decode(errors="replace") for line in whole)
    raise ProgramTimeoutError(f"{name} printed nothing for {silence_s:g} s")


# -- programs that outlive this one ----------------------------------------------------------------


def start_detached(
    args: Sequence[str],
    *,
    log: Path,
    errors: Path | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    pass_fds: Sequence[int] = (),
) -> int:
    """Start a program in a session of its own and return its pid.

    Its output is appended to ``log``, and its standard error to ``errors`` if given. Of the open
    files of the caller it inherits ``pass_fds`` only. It outlives the caller and its terminal.

    Raises:
        OSError: the program could not be started.
    """
    reap_detached()
    with log.open("ab") as out, (errors or log).open("ab") as err:
        child = subprocess.Popen(
            list(args),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=env,
            cwd=cwd,
            start_new_session=True,
            close_fds=True,
            pass_fds=pass_fds,
        )
    child.returncode = 0  # we do not wait for it: no warning when the handle is deleted
    _detached.append(child.pid)
    return child.pid


_detached: list[int] = []  # pids of children that become zombies when they end


def reap_detached() -> None:
    """Reap the detached programs that have ended, which are zombies until then."""
    for pid in tuple(_detached):
        try:
            ended = os.waitpid(pid, os.WNOHANG)[0] == pid
        except ChildProcessError:  # the caller has waited for it
            ended = True
        if ended:
            _detached.remove(pid)
