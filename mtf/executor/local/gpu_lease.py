"""Leases of GPUs: no two jobs on a machine have the same, whatever queue they are from.

A lease is a socket that is bound to a name of the kernel's (Source: unix(7), abstract sockets). The
processes of the job inherit it, and the name is free again as soon as the last of them has ended:
there is no file to be left behind or removed, and the worker may die. The names are those of one
network namespace: containers with a network of their own do not see them.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_NAME = "\0mtf-gpu-"


class GpuLeases:
    """Leases of some GPUs, until every process that has inherited them ends."""

    def __init__(self, sockets: Mapping[str, socket.socket]) -> None:
        self._sockets = dict(sockets)

    @property
    def gpus(self) -> tuple[str, ...]:
        """Return the names of the GPUs."""
        return tuple(self._sockets)

    @property
    def fds(self) -> tuple[int, ...]:
        """Return the open files that the job's first process must inherit."""
        return tuple(held.fileno() for held in self._sockets.values())

    def close(self) -> None:
        """Give the leases up, unless a process has inherited them."""
        for held in self._sockets.values():
            held.close()


def lease_gpus(
    number: int, names: Iterable[str], uuids: Mapping[str, str]
) -> tuple[GpuLeases, set[str]]:
    """Lease up to ``number`` of these GPUs; return them, and those that others hold.

    ``uuids`` tell the GPUs of a machine apart whatever name they go by.
    """
    held: dict[str, socket.socket] = {}
    taken: set[str] = set()
    for name in names:
        if len(held) == number:
            break
        lease = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            lease.bind(f"{_NAME}{uuids.get(name, name)}")
        except OSError:
            lease.close()
            taken.add(name)
        else:
            held[name] = lease
    return GpuLeases(held), taken
