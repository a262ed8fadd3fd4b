"""The trainer against raw PyTorch and its peers: time of a step, of a start, of a resume.

A step is the least decile of blocks of 100, over several processes of each loop in turn: on a busy
machine that is what the code costs. Peers that are not installed are left out and said.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.loops import LOOPS, RANKS
from benchmarks.timing import in_turn

ROOT = Path(__file__).parents[1]
STEPS, ROUNDS = 3000, 5
LIMITS = {"mtf_alone": 1.10, "mtf_whole": 1.20}


def _steps_us(name: str) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        args = [sys.executable, "-W", "ignore", "-m", "benchmarks.loops", name, str(STEPS), folder]
        done = subprocess.run(args, cwd=ROOT, capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.splitlines()[-1].split()]


def steps() -> None:
    """Print the time of a step of each loop, and its ratio to the raw one."""
    print(f"a step of an MLP 64-64-10, batch 32, one thread; {ROUNDS} processes each")
    names = [name for name in LOOPS if name != "accelerate" or importlib.util.find_spec(name)]
    if "accelerate" not in names:
        print("  accelerate is not installed here: pip install accelerate")
    blocks: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(ROUNDS):
        for name in names:
            blocks[name] += _steps_us(name)
    least = {name: statistics.quantiles(us, n=10)[0] for name, us in blocks.items()}
    for name, us in least.items():
        limit = f"   (limit {LIMITS[name]:.2f})" if name in LIMITS else ""
        print(f"  {name:<12} {us:7.0f} µs   {us / least['raw']:5.2f} x raw{limit}")


def ranks() -> None:
    """Print the time of a step of two ranks that exchange gradients, without and with mtf."""
    print(f"the same on two ranks (gloo, one host); {ROUNDS} processes each")
    blocks: dict[str, list[float]] = {name: [] for name in RANKS}
    for _ in range(ROUNDS):
        for name in blocks:
            blocks[name] += _steps_of_ranks_us(name)
    least = {name: statistics.quantiles(us, n=10)[0] for name, us in blocks.items()}
    for name, us in least.items():
        print(f"  {name:<12} {us:7.0f} µs   {us / least['ddp']:5.2f} x DDP alone")


def _steps_of_ranks_us(name: str) -> list[float]:
    from tests.trainer.ranks import environment, free_port

    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        args = [sys.executable, "-W", "ignore", "-m", "benchmarks.loops", name, "1000", folder]
        both = [
            subprocess.Popen(
                args, cwd=ROOT, env={**os.environ, **environment(rank, 2, port)},
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            )
            for rank in range(2)
        ]  # fmt: skip
        said = [rank.communicate()[0] for rank in both]
    return [float(word) for word in said[0].splitlines()[-1].split()]


_FLOOR = "import os, torch; import mtf.trainer.fabric; os._exit(0)"  # ends as ours does
# a model that ends the process at its first step, as the pinned code of a run
_MODEL = """\
import os
import torch

class Ends(torch.nn.Linear):
    def __init__(self):
        super().__init__(64, 10)
    def forward(self, x):
        os._exit(0)
"""


def start() -> None:
    """Print the time from `python -m mtf.trainer` to the first step."""
    from tests.trainer.runs import environment, make_run, read_config

    with tempfile.TemporaryDirectory() as folder:
        run = make_run(
            Path(folder), {"ends.py": _MODEL}, model={"type": "ends:Ends"},
            data={"dataset_name": "synthetic"},
        )  # fmt: skip
        code = read_config(run)["mtf"]["code_dir"]
        env = {**environment(run, "1", "t", {}), "PYTHONPATH": f"{code}:{ROOT}"}

        def process_s(*args: str) -> float:
            begun = time.perf_counter()
            subprocess.run(
                [sys.executable, *args], cwd=code, env=env, capture_output=True, check=True
            )
            return time.perf_counter() - begun

        def job() -> float:
            return process_s("-m", "mtf.trainer", str(run))

        floor, ours = in_turn(7, lambda: process_s("-c", _FLOOR), job)
    print("to the first step, whole process; medians")
    print(f"  import torch and Fabric alone   {floor:5.2f} s")
    print(f"  python -m mtf.trainer           {ours:5.2f} s   {ours / floor:.2f} x   (limit 1.15)")


def seek() -> None:
    """Print how long the first batch takes to come, early and late in a long epoch."""
    import torch
    from torch.utils.data import Dataset

    from mtf.trainer.data import LoadedBatches, Stream
    from mtf.trainer.order import Plan

    class Numbers(Dataset[torch.Tensor]):
        def __len__(self) -> int:
            return 32 * 110_000

        def __getitem__(self, index: int) -> torch.Tensor:
            return torch.tensor(index)

    data = Numbers()
    batches = LoadedBatches(
        data, Plan(len(data), 32, 0, shuffled=True), seed=0, stream=Stream("train")
    )

    def first_batch_s(at: int) -> float:
        begun = time.perf_counter()
        next(batches.batches(0, at))
        return time.perf_counter() - begun

    early, late = in_turn(7, lambda: first_batch_s(10), lambda: first_batch_s(100_000))
    print("the first batch of a resume, 3.5 million shuffled samples; medians")
    print(f"  at step 10        {early * 1e3:6.1f} ms")
    print(f"  at step 100,000   {late * 1e3:6.1f} ms   {late / early:.2f} x")


def main() -> None:
    """Print all figures of the trainer."""
    steps()
    ranks()
    start()
    seek()
