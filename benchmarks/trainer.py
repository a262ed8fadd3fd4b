"""The trainer against raw PyTorch and other trainers: time of a step, of a start, of a resume.

All figures are minima of alternating rounds, since disturbances only ever add time. Trainers that
are not installed are left out, with a note.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.loops import LOADERS, LOOPS, OWN_DATA, RANKS
from benchmarks.timing import alternately

ROOT = Path(__file__).parents[1]
STEPS, ROUNDS = 1000, 5
STEPS_OF_RANKS, ROUNDS_OF_RANKS = 500, 3
LIMITS = {"mtf_alone": 1.10, "mtf_whole": 1.20, "mtf_tensors": 1.10}

Blocks = dict[str, list[list[float]]]  # of each loop: rounds of blocks, microseconds a step


def _command(rounds: int, steps: int, *names: str) -> list[str]:
    words = ("benchmarks.loops", str(rounds), str(steps), *names)
    return [sys.executable, "-W", "ignore", "-m", *words]


def _read(output: str) -> Blocks:
    blocks: Blocks = json.loads(output.splitlines()[-1])
    return blocks


def _print(blocks: Blocks, floor: str) -> None:
    """Print the fastest block and the fastest whole round of each loop."""
    least = {name: min(us for r in rounds for us in r) for name, rounds in blocks.items()}
    whole = {name: min(sum(r) / len(r) for r in rounds) for name, rounds in blocks.items()}
    for name, us in least.items():
        limit = (
            f"   (limit {LIMITS[name]:.2f})" if floor.startswith("raw") and name in LIMITS else ""
        )
        print(
            f"  {name:<12} {us:7.0f} µs   {us / least[floor]:5.2f} x {floor}{limit or ' ' * 15}"
            f"   whole rounds {whole[name]:7.0f} µs   {whole[name] / whole[floor]:5.2f} x"
        )


def steps() -> None:
    """Print the time of a step of each loop, and its ratio to the raw one."""
    print(f"CPU time of a step, MLP 64-64-10, batch 32, one thread: least of {ROUNDS} rounds")
    names = [name for name in LOOPS if name != "accelerate" or importlib.util.find_spec(name)]
    if "accelerate" not in names:
        print("  accelerate is not installed: pip install accelerate")
    _compare(names, "raw")
    print("the same with a DataLoader that shuffles and collates, of a TensorDataset")
    _compare(list(LOADERS), "raw_tensors")
    print("and of a data set of one's own, which may draw random numbers")
    _compare(list(OWN_DATA), "raw_own_data")


def _compare(names: list[str], floor: str) -> None:
    command = _command(ROUNDS, STEPS, *names)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    _print(_read(done.stdout), floor)


def ranks() -> None:
    """Print the time of a step of two ranks that exchange gradients, with and without mtf."""
    print(
        f"the same on two ranks (gloo, one host): the least of {ROUNDS_OF_RANKS} alternating rounds"
    )
    rounds = [
        {k: v for name in RANKS for k, v in _of_ranks(name).items()} for _ in range(ROUNDS_OF_RANKS)
    ]
    _print({name: [blocks for each in rounds for blocks in each[name]] for name in RANKS}, "ddp")


def _of_ranks(name: str) -> Blocks:
    from tests.trainer.ranks import environment, free_port

    port = free_port()
    both = [
        subprocess.Popen(
            _command(1, STEPS_OF_RANKS, name),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            env={**os.environ, **environment(rank, 2, port)},
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for rank in range(2)
    ]
    said = [rank.communicate()[0] for rank in both]
    return _read(said[0])


_STARTS = 4
_FLOOR = "import os, torch; import mtf.trainer.compute.fabric; os._exit(0)"  # ends like _MODEL
# the pinned code of a run: a model that ends the process at its first step
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
            Path(folder),
            {"ends.py": _MODEL},
            model={"type": "ends:Ends"},
            data={"dataset_name": "synthetic"},
        )
        code = read_config(run)["mtf"]["code_dir"]
        env = {**environment(run, "1", "t", {}), "PYTHONPATH": f"{code}:{ROOT}"}

        cpu: tuple[list[float], list[float]] = ([], [])

        def process_s(spent: list[float], *args: str) -> float:
            begun, before = time.perf_counter(), os.times()
            command = [sys.executable, *args]
            subprocess.run(command, cwd=code, env=env, capture_output=True, check=True)
            after = os.times()
            spent.append(sum(after[2:4]) - sum(before[2:4]))
            return time.perf_counter() - begun

        wall = alternately(
            _STARTS,
            lambda: process_s(cpu[0], "-c", _FLOOR),
            lambda: process_s(cpu[1], "-m", "mtf.trainer", str(run)),
        )
    print(f"to the first step, whole process; the least of {_STARTS} alternating rounds")
    cpu_s = [min(spent) for spent in cpu]
    for title, i in (("import torch and Fabric alone", 0), ("python -m mtf.trainer", 1)):
        times = f"{wall[i]:6.2f} s {wall[i] / wall[0]:5.2f} x   CPU time {cpu_s[i]:5.2f} s"
        print(f"  {title:<30}{times} {cpu_s[i] / cpu_s[0]:5.2f} x{'   (limit 1.15)' * i}")


def seek() -> None:
    """Print the time of the first batch after a resume, early and late in a long epoch."""
    import torch
    from torch.utils.data import Dataset

    from mtf.trainer.data.batches import LoadedBatches, Stream
    from mtf.trainer.data.order import SampleOrder

    class Numbers(Dataset[torch.Tensor]):
        def __len__(self) -> int:
            return 32 * 110_000

        def __getitem__(self, index: int) -> torch.Tensor:
            return torch.tensor(index)

    data = Numbers()
    batches = LoadedBatches(
        data, SampleOrder(len(data), 32, 0, shuffled=True), seed=0, stream=Stream("train")
    )

    def first_batch_s(at: int) -> float:
        begun = time.perf_counter()
        next(batches.batches(0, at))
        return time.perf_counter() - begun

    early, late = alternately(7, lambda: first_batch_s(10), lambda: first_batch_s(100_000))
    print("the first batch of a resume, 3.5 million shuffled samples; the least of 7 rounds")
    print(f"  at step 10        {early * 1e3:6.1f} ms")
    print(f"  at step 100,000   {late * 1e3:6.1f} ms   {late / early:.2f} x")


PARTS = {"steps": steps, "ranks": ranks, "startup": start, "resume": seek}


def main() -> None:
    """Print all figures of the trainer."""
    for part in PARTS.values():
        part()
