"""Starts the ranks of a run on this machine, and ends them together, as ``srun`` does.

Run by its path, as ``python -I start_ranks.py <ranks> <command>...``: the mtf that the job could
import is that of its checkout.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_ENDING_S = 10.0  # for the others, after the first rank has failed
_STOPPED = (0, 85, 130, 143)  # exit codes of a rank that is done, or saved when asked to stop
_POLL_S = 0.05


def main(argv: Sequence[str]) -> int:
    """Run the command once for each rank; return the first exit code that is not 0."""
    ranks, command = int(argv[0]), list(argv[1:])
    for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2"):
        signal.signal(signal.Signals[name], lambda *_: None)  # the ranks get them, too
    shared = {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "GROUP_RANK": "0"}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    running: set[int] = set()
    for rank in range(ranks):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        env = {**address, **os.environ, **shared, **own}
        # they inherit all open files: the leases of the job's GPUs
        running.add(os.posix_spawnp(command[0], command, env))
    return _wait(running)


def _wait(running: set[int]) -> int:
    """Wait for the ranks; once one has failed, kill those that do not end within some time."""
    code, end = 0, float("inf")
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid in running:
            running.discard(pid)
            ended = os.waitstatus_to_exitcode(status)
            ended = 128 - ended if ended < 0 else ended
            code = code or ended
            if ended not in _STOPPED:
                end = min(end, time.monotonic() + _ENDING_S)
        elif not pid:
            time.sleep(_POLL_S)
        if time.monotonic() >= end:
            for each in running:
                with suppress(ProcessLookupError):
                    os.kill(each, signal.SIGKILL)
    return code


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
