"""Runs programs: tuples of arguments, never through a shell, always with a time limit."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from mtf.errors import MtfError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

_INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_DYING_S = 10.0  # time for killed processes to finish their system calls


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
    """Run a program to its end.

    Raises:
        ProgramMissingError: the program is not installed.
        ProgramTimeoutError: the program was killed after ``timeout_s`` seconds.
    """
    try:
        done = subprocess.run(
            list(args),
            input=stdin,
            cwd=cwd,
            env=env,
            timeout=timeout_s,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError as e:
        raise ProgramMissingError(f"{args[0]}: not found on PATH") from e
    except subprocess.TimeoutExpired as e:
        raise ProgramTimeoutError(f"{args[0]} did not answer within {timeout_s:g} s") from e
    return Output(done.returncode, done.stdout, done.stderr)


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
            select.select([alive], [], [], _DYING_S)
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
