"""A local executor in its own folder, with short grace times, and helpers to find its processes."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from mtf.executor.local.job_process import WorkerLock
from mtf.executor.local.local_executor import LocalExecutor
from mtf.executor.local.machine_query import LocalLimits
from mtf.executor.local.queue import LocalQueue
from tests.executor.contract import Bench

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mtf.core.vocabulary.jobs import JobRequest

WORKER = "mtf.executor.local.worker"


def processes(root: Path, word: str = "") -> list[int]:
    """Return the processes that have a word and the run root in their command lines."""
    found = []
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            line = (process / "cmdline").read_text() if process.name.isdigit() else ""
            if str(root) in line and word in line:
                found.append(int(process.name))
    return found


def kill_worker(root: Path) -> None:
    """Kill the worker, and wait until its lock is free."""
    for pid in processes(root, WORKER):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    lock = WorkerLock(LocalQueue(root).folder)
    until(lock.acquire, "the worker is dead")
    lock.release()


def end_all(root: Path) -> list[int]:
    """Kill all processes, the worker first; return those that are left for another call."""
    for word in (WORKER, ""):
        for pid in processes(root, word):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    return processes(root)


def until(true: Callable[[], object], what: str, seconds: float = 30) -> None:
    """Wait until a condition is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.02)


class MakeBench(Protocol):
    """Makes a bench whose jobs run a shell snippet instead of the trainer."""

    def __call__(
        self,
        snippet: str,
        max_parallel: int = 4,
        limits: LocalLimits | None = None,
        **times: float,
    ) -> Bench: ...


@pytest.fixture
def local(tmp_path: Path) -> Iterator[MakeBench]:
    """Return a function that makes benches over one run root; all processes end with the test."""
    root = tmp_path / "runs"

    def make(
        snippet: str, max_parallel: int = 4, limits: LocalLimits | None = None, **times: float
    ) -> Bench:
        text = (
            "#!/bin/bash\n{% include 'environment.sh.j2' %}\n: stands for mtf.trainer\n" + snippet
        )
        given: dict[str, Any] = {"grace_s": 0.5, "kill_wait_s": 0.5, **times}
        most = limits or LocalLimits(max_parallel)
        return Bench(LocalExecutor(root, most, {"local.sh.j2": text}, **given), root)

    yield make
    until(lambda: not end_all(root), "all has ended")


def folder_of(request: JobRequest, index: int = 0) -> Path:
    """Return the run folder of a task."""
    return Path(next(t.run_dir for t in request.tasks if t.index == index))
