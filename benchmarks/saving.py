"""Saving a checkpoint of 1.2 GB (100 million parameters and AdamW's state), against plain torch.

The floor is `torch.save` and fsync to the same disk, for which the training waits. Each side runs
in a process of its own, so that its memory can be measured, and alternately, since disks vary from
minute to minute. Times are the minimum of all rounds, memory is the maximum. The lines say how long
the training thread is blocked, when the state is durable, how much memory is used in addition to
that of the training, and how slow small steps are during a write.
"""

from __future__ import annotations

import functools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

WIDTH, LAYERS = 2048, 24
ROUNDS = 2
SAVES = 3  # of a process
_BLOCKED = "saving: training blocked"


def _training() -> tuple[Any, Any]:
    """Return a model of 100 million parameters and its optimizer after a step."""
    import torch

    torch.set_num_threads(1)
    model = torch.nn.Sequential(*(torch.nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)))
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    return model, optimizer


def _state(model: Any, optimizer: Any) -> dict[str, Any]:
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}


def _small_step() -> Callable[[], float]:
    """Return a function that trains a small model for a step and returns its seconds."""
    import torch

    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    optimizer = torch.optim.AdamW(model.parameters())
    inputs, targets = torch.randn(32, 64), torch.randint(10, (32,))

    def step() -> float:
        start = time.perf_counter()
        torch.nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - start

    return step


class _Memory:
    """Measures the peak resident size above that at its start, in bytes."""

    def __init__(self) -> None:
        self._before = _resident()
        self._most = self._before
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self._most = max(self._most, _resident())

    def peak(self) -> int:
        self._stop.set()
        self._thread.join()
        return max(self._most, _resident()) - self._before


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def plain(folder: Path) -> dict[str, Any]:
    """Measure `torch.save` and fsync."""
    import torch

    model, optimizer = _training()
    memory, blocked = _Memory(), []
    for number in range(SAVES):
        start = time.perf_counter()
        with (folder / f"{number}.pt").open("wb") as file:
            torch.save(_state(model, optimizer), file)
            file.flush()
            os.fsync(file.fileno())
        blocked.append(time.perf_counter() - start)
    return {"blocked": blocked, "durable": blocked, "memory": memory.peak()}


def ours(folder: Path) -> dict[str, Any]:
    """Measure a save as the checkpointer does it, and small steps during its write."""
    import torch

    from mtf.trainer.storage.checkpoint_store import CheckpointStore
    from mtf.trainer.storage.checkpoint_writer import CheckpointWriter, WriteRequest
    from mtf.trainer.storage.journal import Journal
    from mtf.trainer.storage.staging import StagingBuffer, expected_size, nbytes

    model, optimizer = _training()
    step = _small_step()
    alone = [step() for _ in range(2000)]
    writer = CheckpointWriter(CheckpointStore(folder / "checkpoints", keep_last=1), Journal(folder))
    staging, memory = StagingBuffer(), _Memory()
    staging.reserve(expected_size(model, [optimizer]))  # during the first steps of a training
    blocked, durable, during = [], [], []
    for number in range(SAVES):
        start = time.perf_counter()
        content = staging.copy_of(_state(model, optimizer))
        write = functools.partial(torch.save, content)
        writer.start(WriteRequest(write, (0, number), nbytes(content)))
        blocked.append(time.perf_counter() - start)
        while writer.is_busy:
            during.append(step())
        durable.append(time.perf_counter() - start)
        del content, write
        writer.settle()
    last = []
    for number in range(SAVES):
        start = time.perf_counter()
        write = functools.partial(torch.save, _state(model, optimizer))
        writer.write_now(WriteRequest(write, (1, number), 0))
        last.append(time.perf_counter() - start)
    return {
        "last": last,
        "blocked": blocked,
        "durable": durable,
        "memory": memory.peak(),
        "alone": statistics.median(alone),
        "during": statistics.median(during),
        "mean": statistics.mean(during) / statistics.mean(alone),
        "longest": max(during),
        "state": nbytes(_state(model, optimizer)),
    }


def main() -> None:
    """Measure and print the figure."""
    sides: dict[str, list[dict[str, Any]]] = {"plain": [], "ours": []}
    for _ in range(ROUNDS):
        for name, results in sides.items():
            results.append(_in_process(name))
    floor = _least(sides["plain"], "blocked", slice(None))
    state = sides["ours"][0]["state"]
    for title, results, key, which in (
        ("torch.save + fsync", sides["plain"], "blocked", slice(None)),
        (_BLOCKED, sides["ours"], "blocked", slice(1, None)),
        ("saving: the same, first", sides["ours"], "blocked", slice(0, 1)),
        ("saving: until durable", sides["ours"], "durable", slice(None)),
        ("saving at a stop", sides["ours"], "last", slice(None)),
    ):
        spent = _least(results, key, which)
        limit = "   (limit 0.150)" if title == _BLOCKED else ""
        print(f"{title:<28} {spent:6.3f} s   {spent / floor:5.3f} x torch.save + fsync{limit}")
    for title, name in (("memory of torch.save", "plain"), ("memory of saving", "ours")):
        peak = max(result["memory"] for result in sides[name])
        limit = "   (limit 1.000)" if name == "ours" else ""
        print(f"{title:<28} {peak / 1e9:6.3f} GB  {peak / state:5.3f} x the state{limit}")
    slower = statistics.median(r["during"] / r["alone"] for r in sides["ours"])
    mean = statistics.median(r["mean"] for r in sides["ours"])
    longest = max(r["longest"] for r in sides["ours"])
    print(
        f"{'small steps during a write':<28} {slower:5.2f} x alone (mean {mean:.2f} x, longest"
        f" {longest:.3f} s)"
    )


def _in_process(name: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        command = [sys.executable, "-m", "benchmarks.saving", name, folder]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _least(results: list[dict[str, Any]], key: str, which: slice) -> float:
    return min(float(value) for result in results for value in result[key][which])


if __name__ == "__main__":
    print(json.dumps({"plain": plain, "ours": ours}[sys.argv[1]](Path(sys.argv[2]))))
