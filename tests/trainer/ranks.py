"""Several ranks of one training, as ``srun`` starts them on one node."""

from __future__ import annotations

import os
import signal
import socket
import time
import traceback
from typing import TYPE_CHECKING, Any

import torch

from mtf.trainer.compute import rank_sync
from mtf.trainer.runtime.signals import STOP, Stopped
from tests.trainer.hard_training import COMPLETE, STOPPED, train

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


def environment(rank: int, ranks: int, port: int) -> dict[str, str]:
    """Return the variables that SLURM sets for one rank."""
    return {
        "SLURM_NTASKS": str(ranks),
        "SLURM_NTASKS_PER_NODE": str(ranks),
        "SLURM_NNODES": "1",
        "SLURM_NODEID": "0",
        "SLURM_NODELIST": "localhost",
        "SLURM_JOB_ID": "1",
        "SLURM_JOB_NAME": "mtf",
        "MASTER_PORT": str(port),
        "MASTER_ADDR": "127.0.0.1",
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank),
        "MTF_CPUS": "1",
    }


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


def train_ranks(
    run: Path,
    ranks: int,
    prepare: Mapping[int, Callable[[], None]] | None = None,
    training: Callable[[Path], None] = train,
) -> list[int]:
    """Train in ``ranks`` processes; return the exit code of each, see ``hard_training.in_child``.

    As with ``srun --kill-on-bad-exit``, all others are killed if one fails.
    """
    port, prepared = free_port(), prepare or {}
    pids = []
    for rank in range(ranks):
        if (pid := os.fork()) == 0:
            os._exit(_rank(run, environment(rank, ranks, port), prepared.get(rank), training))
        pids.append(pid)
    codes: dict[int, int] = {}
    while len(codes) < ranks:
        for pid in [pid for pid in pids if pid not in codes]:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                codes[pid] = os.waitstatus_to_exitcode(status)
        if any(code not in (COMPLETE, STOPPED) for code in codes.values()):
            for other in set(pids) - codes.keys():
                os.kill(other, signal.SIGKILL)
        time.sleep(0.01)
    return [codes[pid] for pid in pids]


def _rank(run: Path, env: Mapping[str, str], prepare: Any, training: Callable[[Path], None]) -> int:
    try:
        os.environ.update(env)
        torch.set_num_threads(1)
        STOP.requested, STOP.signal = False, None
        rank_sync.EXCHANGE_EVERY_S = 0.0  # at every cut: these trainings take but a moment
        if prepare:
            prepare()
        training(run)
    except Stopped:
        return STOPPED
    except BaseException:  # noqa: BLE001 -- the parent sees the code, pytest the text
        traceback.print_exc()
        return 1
    return COMPLETE
