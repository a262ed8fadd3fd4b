"""Processes of local jobs: starts a job at most once, finds it again, and signals it.

Each job is a session of its own, led by a small shell that outlives the worker. Files tell the next
worker what happened: ``<base>.start`` claims a start and names its process, ``<base>.exit`` has its
exit code. ``<base>`` ends in the job's number and the number of its restarts, so that no name is
used twice.
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
    from collections.abc import Mapping, Sequence

# The claim is a link to a complete file: it exists with its content or not at all, on NFS too.
# The traps keep this shell alive when its group is signalled; its children still get the default
# action. The exit code has its place on the disk from the start, since a job may fill the disk.
# Field 22 of stat is the start time (Source: proc(5)); the first two are cut off here.
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
printf '%-4s\n' - > "$base.end"
bash "$script"
code=$?
printf '%-4s\n' "$code" 1<> "$base.end" && sync "$base.end" && mv "$base.end" "$base.exit"
[ -e "$base.exit" ] || { echo "$code" > "$base.exit" && sync "$base.exit"; }
"""
_DEAD = ("Z", "X")  # process states: ended and not waited for
_PREVENTED = "shut"  # content of the file of a start that must not happen any more


@dataclass(frozen=True)
class Process:
    """A process that can be found again, usually a job's shell, which leads its group."""

    pid: int
    identity: str  # boot id and start time, which differ between processes with the same pid

    def is_alive(self) -> bool:
        """Return True if the shell runs."""
        return _identity(self.pid) == self.identity

    def has_group(self) -> bool:
        """Return True if any process of the group runs: the shell, or one that it left behind."""
        if self.is_alive():
            return True
        try:
            os.killpg(self._group(), 0)
        except (ProcessLookupError, PermissionError):
            return False
        return any(_is_in_group(entry.name, str(self.pid)) for entry in Path("/proc").iterdir())

    def signal(self, number: signal.Signals) -> None:
        """Signal every process of the group; processes that cannot be signalled are skipped."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._group(), number)

    def _group(self) -> int:
        """Return the group's id, which outlives its leader.

        Raises:
            ProcessLookupError: the group is from an earlier boot, or its id was reused.
        """
        boot = self.identity.split()[0]
        if boot != _boot() or _identity(self.pid) not in (None, self.identity):
            raise ProcessLookupError
        return self.pid


def this_process() -> Process:
    """Return the current process."""
    pid = os.getpid()
    return Process(pid, f"{_boot()} {_stat(str(pid))[-1]}")


def launch(
    base: Path,
    script: str,
    cwd: Path,
    output: tuple[Path, Path],
    env: Mapping[str, str],
    *,
    pass_fds: Sequence[int] = (),
) -> Process:
    """Start a job's shell; its output and errors are appended to two files.

    It and its children inherit the open files ``pass_fds``.

    Raises:
        OSError: it did not start, and never will.
    """
    command = ("bash", "-c", _WRAPPER, "mtf-job", str(base), script)
    pid = proc.start_detached(
        command, log=output[0], errors=output[1], env=env, cwd=cwd, pass_fds=pass_fds
    )
    # a child keeps its pid until it is waited for, even if it has ended already
    return Process(pid, f"{_boot()} {_stat(str(pid))[-1]}")


def read_start(base: Path) -> Process | None:
    """Return the process that claimed a start, None if the start was prevented.

    Raises:
        FileNotFoundError: neither has happened yet.
    """
    text = _file(base, "start").read_text().strip()
    if text == _PREVENTED:
        return None
    pid, _, identity = text.partition(" ")
    # a file that a power failure emptied gives a process that does not exist
    return Process(int(pid), identity) if pid.isdigit() and identity else Process(0, "-")


def prevent_start(base: Path) -> bool:
    """Make sure that a start never happens; return False if it has happened already."""
    temporary = _file(base, secrets.token_hex(8))
    temporary.write_text(_PREVENTED)
    try:
        os.link(temporary, _file(base, "start"))
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    return True


def read_exit(base: Path) -> tuple[int, float] | None:
    """Return a job's exit code and its end (seconds since the epoch), None if there is no file."""
    path = _file(base, "exit")
    try:
        text, at = path.read_text(), path.stat().st_mtime
    except FileNotFoundError:
        return None
    return (int(text), at) if text.endswith("\n") else None  # incomplete: the disk was full


def forget(base: Path) -> None:
    """Remove the files of a job whose end is recorded; a prevented start stays prevented."""
    with contextlib.suppress(FileNotFoundError):
        if read_start(base) is None:
            return
    for kind in ("exit", "end", "start"):
        _file(base, kind).unlink(missing_ok=True)


def _file(base: Path, kind: str) -> Path:
    return base.with_name(f"{base.name}.{kind}")


@cache
def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _stat(pid: str) -> list[str]:
    """Return state, parent, group, session and start time of a process, [] if there is none.

    Source: proc(5), ``/proc/pid/stat``: the name, in brackets, may contain anything.
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
    """The lock of the one worker of a run root; the system releases it when the worker ends.

    A client that finds it free takes it and passes it, as an open file, to the worker that it
    starts, so that two clients never start a worker each.
    """

    def __init__(self, folder: Path, fd: int | None = None) -> None:
        self._path = folder / "worker.lock"
        self.fd = fd  # None: not held by this process

    def acquire(self) -> bool:
        """Take the lock if it is free; return True if this process holds it.

        Raises:
            OSError: the file cannot be opened, or the file system has no locks.
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
        """Release the lock; a process that it was passed to still holds it."""
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None
