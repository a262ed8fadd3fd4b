"""`ProcessIdentity`: a process that can be recognised later, from this host and from others."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_DEAD = ("Z", "X")  # states of a process that has ended and was not waited for


@dataclass(frozen=True)
class ProcessIdentity:
    """A process: where it runs, and what distinguishes it from a later one with the same pid.

    Attributes:
        host: the name of its host.
        boot: the id of the host's boot, empty where there is none (outside Linux).
        namespace: the pid namespace, as a container may have its own; empty where unknown.
        pid: in that namespace.
        since: its start in clock ticks after the boot, empty where unknown.
    """

    host: str
    boot: str
    namespace: str
    pid: int
    since: str

    @classmethod
    def of_this_process(cls) -> ProcessIdentity:
        """Return the identity of the current process."""
        pid = os.getpid()
        return cls(socket.gethostname(), _boot(), _namespace(), pid, _stat(pid)[1])

    def is_dead(self) -> bool:
        """Return True if the process has certainly ended; False also where that is unknown.

        Only its own host can tell: a host that does not answer may still run it.
        """
        me = ProcessIdentity.of_this_process()
        if self.host != me.host:
            return False
        if self.boot != me.boot:
            return not self.host.startswith("localhost")  # which may be two hosts
        if self.namespace != me.namespace:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # another user's
            pass
        state, since = _stat(self.pid)
        return state in _DEAD or since not in ("", self.since)

    def __str__(self) -> str:
        """Return it as ``process 17 on node3``."""
        return f"process {self.pid} on {self.host}"


def _boot() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""


def _namespace() -> str:
    with suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return ""


def _stat(pid: int) -> tuple[str, str]:
    """Return the state and the start of a process, empty texts where they cannot be read.

    Source: proc(5), ``/proc/pid/stat``: the name, in brackets, may contain anything.
    """
    with suppress(OSError):
        text = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].decode().split()
        return text[0], text[19]
    return "", ""
