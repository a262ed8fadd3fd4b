"""A small training with all that makes a resume go wrong, and children that are interrupted in it.

Dropout, BatchNorm, shuffling, augmentation from python's, numpy's and torch's generators, gradient
accumulation with a smaller last window, a smaller last batch, clipping, a scheduler, validation.
"""

from __future__ import annotations

import functools
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from mtf.trainer.context import RunContext
from mtf.trainer.fabric import Fabric, build_fabric
from mtf.trainer.job import read_config
from mtf.trainer.rng import seed_all, seed_at
from mtf.trainer.verify import trials
from mtf.trainer.verify.compare import difference, result
from mtf.trainer.verify.trials import COMPLETE, STOPPED

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from pathlib import Path

    from mtf.trainer.phases import Phase

__all__ = ["COMPLETE", "STOPPED", "difference", "in_child", "result", "signal_at"]
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

    def body() -> None:
        prepare()
        train(run, precision)

    return trials.in_child(body)


def signal_at(phase: Phase, nth: int, signum: signal.Signals, *, after: bool) -> Callable[[], None]:
    """Return what makes a process signal itself right before or after the nth ``phase``."""
    return functools.partial(trials.interrupt_at, phase, nth, signum, after=after)
