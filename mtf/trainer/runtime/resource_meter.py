"""Measures the memory, CPU time and GPU memory of this process and of all that it starts.

A thread looks at the processes every few seconds. It never asks a GPU for anything that would make
the training wait: the peak of torch's allocator is a number on the host. Pages that processes share
are counted once, which takes the system some time: so seldom that it is under a hundredth.
"""

from __future__ import annotations

import importlib.util
import os
import resource
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_EVERY_S = 5.0
_FIRST_REPORT_S = 30.0  # a job that is killed leaves the last of these
_REPORT_S = 300.0
_SUM_S = 10.0  # between two looks at all processes, if there are several
_GROWN = 1.1  # a report comes early if the memory has grown by this factor
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICK = os.sysconf("SC_CLK_TCK")


class ResourceMeter:
    """Measures within a ``with`` block; ``report`` gets the amounts, at the end and now and then.

    ``report`` may be called by another thread, and must not raise.
    """

    def __init__(self, report: Callable[[dict[str, float]], None]) -> None:
        self._report = report
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="resource-meter", daemon=True)
        self._peak = 0.0  # bytes
        self._next_sum = 0.0  # the monotonic time of the next look at all processes
        self._reported = 0.0
        self._busy: list[float] = []  # percent of the GPU

    def __enter__(self) -> ResourceMeter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(_EVERY_S)
        self._next_sum = 0.0
        self._look()
        self._report(self.used())

    def used(self) -> dict[str, float]:
        """Return the amounts so far, by the names of ``mtf.core.usage.used``."""
        own = resource.getrusage(resource.RUSAGE_SELF)
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        alive = sum(map(_cpu_s, children()))
        cpu = own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime + alive
        peak = max(self._peak, own.ru_maxrss * 1024.0)
        found = {"peak_memory_mb": peak / 2**20, "cpu_s": cpu}
        found |= _gpu_memory()
        if self._busy:
            found["gpu_percent"] = sum(self._busy) / len(self._busy)
        return {name: round(amount, 1) for name, amount in found.items()}

    def _watch(self) -> None:
        waited, due = 0.0, _FIRST_REPORT_S
        while not self._stop.wait(_EVERY_S):
            waited += _EVERY_S
            self._look()
            has_grown = self._peak > self._reported * _GROWN
            if waited >= due or (has_grown and waited >= _FIRST_REPORT_S):
                self._reported = self._peak
                due = waited + _REPORT_S
                self._report(self.used())

    def _look(self) -> None:
        started, begun = children(), time.monotonic()
        if started and begun >= self._next_sum:
            self._peak = max(self._peak, sum(map(_memory, (os.getpid(), *started))))
            took = time.monotonic() - begun
            self._next_sum = begun + max(_SUM_S, 100 * took)
        elif not started:
            self._peak = max(self._peak, _resident(os.getpid()))
        self._busy += _gpu_percent()


def _gpu() -> Any:
    """Return torch's module for CUDA if the training uses a GPU, else None."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    return cuda if cuda is not None and cuda.is_initialized() else None


def _gpu_memory() -> dict[str, float]:
    cuda = _gpu()
    if cuda is None:
        return {}
    peaks = map(cuda.max_memory_reserved, range(cuda.device_count()))
    return {"peak_gpu_memory_mb": max(peaks, default=0) / 2**20}


def _gpu_percent() -> list[float]:
    """Return the utilisation of the GPU now, nothing if NVIDIA's library does not tell it."""
    cuda = _gpu()
    if cuda is None or importlib.util.find_spec("pynvml") is None:
        return []
    try:
        return [float(cuda.utilization())]
    except (RuntimeError, ImportError, AttributeError, _nvml_error()):
        return []


def _nvml_error() -> type[Exception]:
    """Return the class of errors of NVIDIA's library, which torch has imported."""
    found: type[Exception] = getattr(sys.modules.get("pynvml"), "NVMLError", RuntimeError)
    return found


def children() -> list[int]:
    """Return the processes that this one has started, and those that these have."""
    found: list[int] = []
    waiting = [os.getpid()]
    while waiting:
        for child in _children_of(waiting.pop()):
            found.append(child)
            waiting.append(child)
    return found


def _children_of(pid: int) -> Iterator[int]:
    """Yield the children of all threads of a process. Source: proc(5)."""
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                yield from map(int, (task / "children").read_text().split())


def _memory(pid: int) -> float:
    """Return the bytes of a process, its part of those that it shares (PSS)."""
    with suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return float(int(line.split()[1]) * 1024)
    return _resident(pid)


def _resident(pid: int) -> float:
    with suppress(OSError, ValueError, IndexError):
        return float(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE)
    return 0.0


def _cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process and of those that it has waited for."""
    with suppress(OSError, ValueError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        return sum(map(int, fields[11:15])) / _TICK
    return 0.0
