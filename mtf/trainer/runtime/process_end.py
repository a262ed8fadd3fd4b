"""Ends the process of a job: no data worker, child process or thread can hold it up.

Python waits at its exit, without limit, for threads and for processes of ``multiprocessing``.
"""

from __future__ import annotations

import atexit
import faulthandler
import os
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess, active_children
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from weakref import WeakKeyDictionary

from mtf.trainer.runtime.console import say
from mtf.trainer.runtime.signals import SIGNALS

if TYPE_CHECKING:
    from collections.abc import Iterator

FAILED_S = 4.0  # time limit for the exit of a job that failed or stopped
COMPLETE_S = 60.0  # of one that is complete: user code may upload results at its exit
_DYING_S = 1.0  # of a killed process; one that waits for a dead disk does not end

_data_workers: WeakKeyDictionary[BaseProcess, int] = WeakKeyDictionary()  # and their parents' pids
_guarded: list[int] = []  # pids of the processes that have a time limit: this one, if any


@contextmanager
def starting_data_workers() -> Iterator[None]:
    """Let the processes that are started meanwhile ignore the stop signals, for good.

    SLURM sends TERM to every process: a data worker that died of it would fail the training before
    it can save. The workers inherit the blocked signals, so only SIGKILL ends them early.
    """
    before = set(active_children())
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for worker in set(active_children()) - before:
            _data_workers[worker] = os.getpid()
            vars(worker)["terminate"] = worker.kill  # torch terminates workers that are stuck


def end_data_workers() -> None:
    """Kill the data workers of this process, which hold no state.

    Call it at the end of a job, before the iterators are deleted: each would wait 5 s for each of
    its workers that is busy.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler raises for a killed worker
    workers = [worker for worker, parent in _data_workers.items() if parent == os.getpid()]
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.join(_DYING_S)


def limit_exit(code: int) -> None:
    """End this process by force, with ``code``, if it has not ended within the time limit.

    Call it when everything is durable.
    """
    if os.getpid() in _guarded:
        return
    _guarded[:] = [os.getpid()]
    limit_s = FAILED_S if code else COMPLETE_S
    threading.Thread(target=_end_by_force, args=(code, limit_s), daemon=True).start()
    # a thread of C, for the case that this process is stuck in C code and runs no Python
    with suppress(OSError):  # there is no standard error
        faulthandler.dump_traceback_later(limit_s + _DYING_S, exit=True, file=2)


def leave(code: int) -> NoReturn:
    """Do what Python does at its exit, within the time limit, and end this process.

    Objects that are still alive are not deleted: their destructors might wait.
    """
    limit_exit(code)
    try:
        vars(threading)["_shutdown"]()  # waits for threads, as multiprocessing's children do it
        atexit._run_exitfuncs()  # noqa: SLF001 -- the only way to call them
    finally:
        _end_now(code)


def _end_by_force(code: int, limit_s: float) -> None:
    time.sleep(limit_s)
    threads = [
        f"thread {thread.name}"
        for thread in threading.enumerate()
        if not thread.daemon and thread is not threading.main_thread()
    ]
    children = _descendants(os.getpid())
    held = ", ".join([*threads, *(f"process {pid}" for pid in children)]) or "its exit"
    say(f"the job is over, but {held} did not end within {limit_s:g} s: ended by force")
    for pid in children:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    _end_now(code)


def _end_now(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # it is closed, or the disk is full: the exit code counts
            stream.flush()
    os._exit(code)


def _descendants(pid: int) -> list[int]:
    """Return the pids of all child processes of a process, and of theirs."""
    texts = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            texts.append(file.read_text())
    children = [int(child) for child in " ".join(texts).split()]
    return [found for child in children for found in (child, *_descendants(child))]
