"""The one subprocess call: argument tuples, never a shell, always a time limit."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtf.errors import MtfError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class ProgramMissingError(MtfError):
    """The program is not on PATH."""


class ProgramTimeoutError(MtfError):
    """The program did not end within its time limit; what it did is not known."""


@dataclass(frozen=True)
class Output:
    """How a program ended and what it printed."""

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
        ProgramMissingError: it is not installed.
        ProgramTimeoutError: it was killed after ``timeout_s`` seconds.
    """
    try:
        done = subprocess.run(
            list(args), input=stdin, cwd=cwd, env=env, timeout=timeout_s, capture_output=True,
            text=True, errors="replace", check=False,
        )  # fmt: skip
    except FileNotFoundError as e:
        raise ProgramMissingError(f"{args[0]}: not found on PATH") from e
    except subprocess.TimeoutExpired as e:
        raise ProgramTimeoutError(f"{args[0]} did not answer within {timeout_s:g} s") from e
    return Output(done.returncode, done.stdout, done.stderr)


def start_detached(
    args: Sequence[str],
    *,
    log: Path,
    errors: Path | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> int:
    """Start a program in a session of its own and return its pid.

    Its output is appended to ``log``, and its standard error to ``errors`` where that is given.
    It outlives the caller and the caller's terminal. Who lives longer waits for it (``ended``).

    Raises:
        OSError: it did not start, and will not.
    """
    with log.open("ab") as out, (errors or log).open("ab") as err:
        child = subprocess.Popen(
            list(args), stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=env, cwd=cwd,
            start_new_session=True, close_fds=True,
        )  # fmt: skip
    child.returncode = 0  # we do not wait for it: no warning when the handle goes
    return child.pid


def ended(pid: int) -> int | None:
    """Return how a program from ``start_detached`` ended, -N by signal N; None while it runs."""
    try:
        done, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:  # somebody else has waited for it
        return 0
    return os.waitstatus_to_exitcode(status) if done else None
