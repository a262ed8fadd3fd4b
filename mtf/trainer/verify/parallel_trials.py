"""Several trainings beside each other, by one process that waits for theirs."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Generator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mtf.trainer.verify.trials import POLL_S, Child

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

T = TypeVar("T")
Steps = Generator[Child, int, T]  # yields each process that it waits for, gets how it has ended

_MOST = 16  # at once: the process that waits also compares


def at_once(most: int, works: Iterable[Steps[T]]) -> Iterator[T]:
    """Do so many works at once, in their order; yield what each returns when it is done.

    When the iteration is given up, the processes are killed.
    """
    waiting, running = iter(works), dict[Steps[T], Child]()
    try:
        while True:
            polled: list[tuple[Steps[T], Any]] = [(w, c.poll()) for w, c in running.items()]
            todo = [(work, code) for work, code in polled if code is not None]
            todo += [(work, None) for work in islice(waiting, most - len(running))]
            if not todo and not running:
                return
            for work, code in todo:
                running.pop(work, None)
                try:
                    running[work] = work.send(code)  # None: it begins
                except StopIteration as end:
                    yield end.value
            if not todo:
                time.sleep(POLL_S)
    finally:
        for child in running.values():
            child.kill()


def places_for(processes: int) -> int:
    """Return how many trainings of so many processes fit beside each other.

    Cores and memory must do for them; the greatest child so far says how much memory one takes.
    """
    cores = len(os.sched_getaffinity(0)) // processes
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    memory = _available_bytes() // max(1, largest)
    return max(1, min(cores, memory, _MOST))


def _available_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, value, *_ = line.split()
        if name == "MemAvailable:":
            return int(value) * 1024
    return 0
