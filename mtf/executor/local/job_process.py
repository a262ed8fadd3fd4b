"""The local executor's processes: how a job is started at most once, found again, and signalled.

A job is a session of its own, led by a small shell that outlives the worker. What happened is in
files, so that the next worker knows it: ``<base>.start`` claims a start and names its process,
``<base>.exit`` holds its exit code. ``<base>`` ends in the job's number and how often it was
started before, which is never used twice.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from mtf import proc

if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping

# The claim is a link to a whole file: it is there with its content, or not at all, on NFS too.
# The traps keep this shell alive through signals to the group; what it starts gets them as they
# are. Field 22 of stat is the start time (Source: proc(5)): its first two are cut off here.
_WRAPPER = r"""
trap : HUP INT QUIT TERM USR1 USR2
base=$1 script=$2
read -r boot < /proc/sys/kernel/random/boot_id
read -r stat < /proc/$$/stat
set -- - - ${stat##*) }
echo "$$ $boot ${22}" > "$base.$$" && ln "$base.$$" "$base.start"
claimed=$?
rm -f "$base.$$"
[ "$claimed" = 0 ] || exit 0
bash "$script"
echo $? > "$base.exit" && sync "$base.exit"
"""
_DEAD = ("Z", "X")  # ended, and not waited for
_SHUT = "shut"  # a start that must not happen any more


@dataclass(frozen=True)
class Process:
    """A process that is known again: a job's shell, mostly, which leads its session and group."""

    pid: int
    identity: str  # boot id and start time: another process with this pid has another

    def is_alive(self) -> bool:
        """Return whether the shell runs."""
        return _identity(self.pid) == self.identity

    def has_group(self) -> bool:
        """Return whether any process of the group runs, its shell or what that left behind."""
        if self.is_alive():
            return True
        try:
            os.killpg(self._group(), 0)
        except (ProcessLookupError, PermissionError):
            return False
        return any(_is_in_group(entry.name, str(self.pid)) for entry in Path("/proc").iterdir())

    def signal(self, what: signal.Signals) -> None:
        """Signal every process of the group; one that is gone, or not ours, is passed over."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._group(), what)

    def _group(self) -> int:
        """Return the group's id, which outlives its leader; never one that was given out anew.

        Raises:
            ProcessLookupError: the group is of an earlier boot, or its pid was used again.
        """
        boot = self.identity.split()[0]
        if boot != _boot() or _identity(self.pid) not in (None, self.identity):
            raise ProcessLookupError
        return self.pid


def this_process() -> Process:
    """Return the process that asks."""
    pid = os.getpid()
    return Process(pid, f"{_boot()} {_stat(str(pid))[-1]}")


def launch(
    base: Path, script: str, cwd: Path, output: tuple[Path, Path], env: Mapping[str, str]
) -> Process:
    """Start a job's shell, output appended to two files.

    Raises:
        OSError: it did not start, and will not.
    """
    pid = proc.start_detached(
        ("bash", "-c", _WRAPPER, "mtf-job", str(base), script),
        log=output[0], errors=output[1], env=env, cwd=cwd,
    )  # fmt: skip
    # our child until we wait for it: the pid is its own, even if it has ended already
    return Process(pid, f"{_boot()} {_stat(str(pid))[-1]}")


def read_start(base: Path) -> Process | None:
    """Return the process that claimed a start; None when the start was shut out.

    Raises:
        FileNotFoundError: neither has happened yet.
    """
    text = _file(base, "start").read_text().strip()
    if text == _SHUT:
        return None
    pid, _, identity = text.partition(" ")
    # a file that a power failure has emptied names a process that cannot be
    return Process(int(pid), identity) if pid.isdigit() and identity else Process(0, "-")


def shut_out(base: Path) -> bool:
    """Make sure that a start never happens; False when it has."""
    mine = _file(base, secrets.token_hex(8))
    mine.write_text(_SHUT)
    try:
        os.link(mine, _file(base, "start"))
    except FileExistsError:
        return False
    finally:
        mine.unlink()
    return True


def read_exit(base: Path) -> tuple[int, float] | None:
    """Return a job's exit code and when it ended (seconds since the epoch); None: no word."""
    path = _file(base, "exit")
    try:
        text, at = path.read_text(), path.stat().st_mtime
    except FileNotFoundError:
        return None
    return (int(text), at) if text.endswith("\n") else None  # else torn: the disk was full


def forget(base: Path) -> None:
    """Remove the files of a start whose end is on record; one that was shut out stays so."""
    with contextlib.suppress(FileNotFoundError):
        if read_start(base) is None:
            return
    for kind in ("exit", "start"):
        _file(base, kind).unlink(missing_ok=True)


def _file(base: Path, kind: str) -> Path:
    return base.with_name(f"{base.name}.{kind}")


@cache
def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _stat(pid: str) -> list[str]:
    """Return state, parent, group, session and start time of a process; [] when there is none.

    Source: proc(5), ``/proc/pid/stat``: the name, in brackets, may hold anything.
    """
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY)  # pathlib takes four times as long
    except FileNotFoundError:
        return []
    try:
        fields = os.read(fd, 4096).rpartition(b") ")[2].decode().split()
    except ProcessLookupError:
        return []
    finally:
        os.close(fd)
    return [*fields[:4], fields[19]]


def _is_in_group(pid: str, group: str) -> bool:
    fields = _stat(pid) if pid.isdigit() else []
    return bool(fields) and fields[2] == group and fields[0] not in _DEAD


def _identity(pid: int) -> str | None:
    fields = _stat(str(pid))
    return f"{_boot()} {fields[-1]}" if fields and fields[0] not in _DEAD else None


class WorkerLock:
    """The lock that the one worker of a run root holds; the system frees it at its death.

    Who finds it free takes it and hands it, with the open file, to the worker that it starts: there
    is no moment in which two would start one.
    """

    def __init__(self, folder: Path, fd: int | None = None) -> None:
        self._path = folder / "worker.lock"
        self.fd = fd  # None: not held by us

    def acquire(self) -> bool:
        """Take the lock unless somebody holds it; return whether we have it.

        Raises:
            OSError: it cannot be opened, or that file system has no locks.
        """
        if self.fd is None:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self.fd = fd
            except BlockingIOError:
                os.close(fd)
            except OSError:
                os.close(fd)
                raise
        return self.fd is not None

    def release(self) -> None:
        """Let go of the lock; a process that it was handed to still holds it."""
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None
