"""Runs several trainings in parallel, from one process that waits for their processes."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Generator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mtf.trainer.verify.trial_process import POLL_S, ChildProcess

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

T = TypeVar("T")
# yields each process to wait for, is sent its exit code, and returns the training's result
Steps = Generator[ChildProcess, int, T]

_MAX_AT_ONCE = 16  # the waiting process also compares results


def run_parallel(limit: int, tasks: Iterable[Steps[T]]) -> Iterator[T]:
    """Run up to ``limit`` tasks at once, started in order; yield the result of each when it ends.

    When the iterator is closed early, the processes are killed.
    """
    waiting, running = iter(tasks), dict[Steps[T], ChildProcess]()
    try:
        while True:
            polled: list[tuple[Steps[T], Any]] = [(t, c.poll()) for t, c in running.items()]
            ready = [(task, code) for task, code in polled if code is not None]
            ready += [(task, None) for task in islice(waiting, limit - len(running))]
            if not ready and not running:
                return
            for task, code in ready:
                running.pop(task, None)
                try:
                    running[task] = task.send(code)  # None starts it
                except StopIteration as end:
                    yield end.value
            if not ready:
                time.sleep(POLL_S)
    finally:
        for child in running.values():
            child.kill()


def trainings_that_fit(processes: int) -> int:
    """Return the number of trainings that cores and free memory allow at once.

    Args:
        processes: the number of busy processes of one training. Its memory is taken to be that of
            the largest child process so far.
    """
    cores = len(os.sched_getaffinity(0)) // processes
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    memory = _available_bytes() // max(1, largest)
    return max(1, min(cores, memory, _MAX_AT_ONCE))


def _available_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, value, *_ = line.split()
        if name == "MemAvailable:":
            return int(value) * 1024
    return 0
