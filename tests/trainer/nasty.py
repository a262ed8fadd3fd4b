"""A small training with all that makes a resume go wrong, and children that are interrupted in it.

Dropout, BatchNorm, shuffling, augmentation from python's, numpy's and torch's generators, gradient
accumulation with a smaller last window, a smaller last batch, clipping, a scheduler, validation.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from mtf import rundir
from mtf.trainer.checkpoint import CheckpointStore
from mtf.trainer.context import RunContext
from mtf.trainer.fabric import Fabric, build_fabric
from mtf.trainer.job import read_config
from mtf.trainer.loop import HANDLERS
from mtf.trainer.preemption import STOP, Stopped
from mtf.trainer.rng import seed_all, seed_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtf.trainer.loop import Loop
    from mtf.trainer.phases import Phase

STOPPED, COMPLETE = 7, 0
EPOCHS = 2

NASTY: dict[str, Any] = {
    "experiment_name": "nasty",
    "model": {"type": "tests.trainer.nasty:Net", "hidden_size": 8},
    "data": {"dataset_name": "tests.trainer.nasty:Augmented", "num_workers": 0},
    "training": {
        "max_epochs": EPOCHS,
        "batch_size": 4,
        "gradient_accumulation_steps": 4,
        "max_grad_norm": 0.5,
        "use_amp": False,
        "seed": 11,
    },
    "optimizer": {"type": "adamw", "lr": 1e-2},
    "scheduler": {"type": "onecycle"},
    "checkpoint": {"every_n_steps": 2, "keep_last": 2},
    "logging": {"log_scalars_every_n_steps": 1},
    "entrypoint": None,
}


class Net(nn.Module):
    """Buffers that the forward pass changes, and random numbers in it."""

    def __init__(self, hidden_size: int, num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(6, hidden_size),
            nn.BatchNorm1d(hidden_size),
            nn.Dropout(0.3),
            nn.utils.parametrizations.spectral_norm(nn.Linear(hidden_size, num_classes)),
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.layers(inputs)


class Augmented(Dataset[tuple[torch.Tensor, int]]):
    """Samples that differ each time they are asked for."""

    num_classes = 3

    def __init__(self, split: str) -> None:
        generator = torch.Generator().manual_seed(len(split))
        self.inputs = torch.randn(42 if split == "train" else 9, 6, generator=generator)
        self.noisy = split == "train"

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        sample = self.inputs[index]
        if self.noisy:
            sample = sample + torch.randn(6) * random.random() + float(np.random.rand())
        return sample, index % self.num_classes


def train(run: Path, precision: Any = "32-true") -> None:
    """Train as the job does, in this process; mixed precision on the CPU too."""
    config = read_config(run)
    torch.set_num_threads(1)
    fabric = build_fabric(config, {"MTF_CPUS": "1"})
    if precision != "32-true":
        fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
    context = RunContext(config, run, fabric)
    data = context.data()
    seed_all(seed_at("init", config.training.seed))
    model = context.model(data)
    optimizer = context.optimizer(model)
    schedule = context.schedule(optimizer, data)
    context.trainer(model, optimizer, schedule).fit(data.train, data.validation)


def in_child(
    run: Path, prepare: Callable[[], None] = lambda: None, precision: Any = "32-true"
) -> int:
    """Train in a child process; return STOPPED, COMPLETE, 1, or minus the signal that killed it."""
    torch.set_num_threads(1)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            STOP.requested, STOP.signal = False, None
            prepare()
            train(run, precision)
            code = COMPLETE
        except Stopped:
            code = STOPPED
        except BaseException:  # noqa: BLE001 -- the parent sees the code, pytest the text
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def signal_at(phase: Phase, nth: int, signum: signal.Signals, *, after: bool) -> Callable[[], None]:
    """Return what makes a process signal itself right before or after the nth ``phase``."""

    def prepare() -> None:
        handler, seen = HANDLERS[phase], 0

        def probed(loop: Loop) -> Phase:
            nonlocal seen
            seen += 1
            if seen == nth and not after:
                os.kill(os.getpid(), signum)
            following = handler(loop)
            if seen == nth and after:
                os.kill(os.getpid(), signum)
            return following

        HANDLERS[phase] = probed

    return prepare


def die_at_call(nth: int) -> None:
    """Make this process kill itself before the nth call that changes or syncs checkpoints."""
    calls, sync = 0, os.fsync

    def count() -> None:
        nonlocal calls
        calls += 1
        if calls == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(event: str, args: tuple[Any, ...]) -> None:
        is_half = event == "open" and str(args[0]).endswith(".half")
        if is_half or event in {"os.rename", "os.remove", "os.symlink", "os.mkdir"}:
            count()

    def counted_sync(fd: int) -> None:
        if not str(Path(f"/proc/self/fd/{fd}").readlink()).endswith(".jsonl"):
            count()
        sync(fd)

    sys.addaudithook(audit)
    os.fsync = counted_sync


def result(run: Path) -> dict[str, Any]:
    """Return all that a finished training has left, but the time it was saved."""
    newest = CheckpointStore(run / rundir.CHECKPOINTS, keep_last=1).newest_intact()
    assert newest is not None
    content: dict[str, Any] = torch.load(newest.path, weights_only=True)
    for rank in content["ranks"]:
        del rank["timestamp"]
    return {"content": content, "scalars": (run / "scalars.jsonl").read_bytes()}


def difference(left: Any, right: Any, where: str = "") -> str | None:
    """Return where two results differ in their bits, None where they are the same."""
    if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
        same = left.dtype == right.dtype and torch.equal(left, right)
        return None if same else where
    if type(left) is not type(right):
        return where
    if isinstance(left, dict):
        if left.keys() != right.keys():
            return f"{where}: {left.keys() ^ right.keys()}"
        found = (difference(left[k], right[k], f"{where}/{k}") for k in left)
    elif isinstance(left, list | tuple):
        if len(left) != len(right):
            return f"{where}: length"
        pairs = enumerate(zip(left, right, strict=True))
        found = (difference(a, b, f"{where}/{i}") for i, (a, b) in pairs)
    else:
        return None if left == right else f"{where}: {left!r} != {right!r}"
    return next((place for place in found if place), None)
