"""A small training that is hard to resume exactly, and child processes that train and are killed.

Dropout, BatchNorm, shuffling, augmentation from python's, numpy's and torch's generators, gradient
accumulation with a smaller last window, a smaller last batch, clipping, a scheduler, validation.
"""

from __future__ import annotations

import functools
import importlib
import os
import random
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset, IterableDataset, Subset, get_worker_info

from mtf.trainer.compute.fabric import Fabric, build_fabric
from mtf.trainer.compute.rng import seed_all, seed_at
from mtf.trainer.context import RunContext
from mtf.trainer.job.run_job import read_config
from mtf.trainer.loop.callbacks import Callback
from mtf.trainer.loop.phases import Phase
from mtf.trainer.verify import trial_process
from mtf.trainer.verify.compare_trainings import difference, result
from mtf.trainer.verify.trial_process import COMPLETE, STOPPED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from mtf.trainer.loop.loop import Loop

for _name in (
    "mtf.spec.yaml.reader",
    "mtf.spec.schema.run_config",
    "mtf.trainer.components.models",
    "yaml",
):
    importlib.import_module(_name)  # now: each forked child would import it anew

__all__ = ["COMPLETE", "STOPPED", "difference", "in_child", "result", "signal_at"]
EPOCHS = 2

HARD: dict[str, Any] = {
    "experiment_name": "hard",
    "model": {"type": "tests.trainer.hard_training:Net", "hidden_size": 8},
    "data": {"dataset_name": "tests.trainer.hard_training:Augmented", "num_workers": 0},
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
    """A model whose forward pass changes buffers and draws random numbers."""

    def __init__(self, hidden_size: int, num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(6, hidden_size),
            nn.BatchNorm1d(hidden_size),
            nn.Dropout(0.3),
            nn.utils.parametrizations.spectral_norm(nn.Linear(hidden_size, num_classes)),
        )
        self.shift: torch.Tensor
        self.register_buffer("shift", torch.zeros(6), persistent=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return logits; in training, shift the inputs by the running mean in an unsaved buffer."""
        if self.training:
            self.shift = 0.9 * self.shift + 0.1 * inputs.detach().mean(0)
        return self.layers(inputs - self.shift)


class Forgetful(Net):
    """A model whose running means are not persistent: its ``state_dict`` lacks them."""

    def __init__(self, hidden_size: int, num_classes: int) -> None:
        super().__init__(hidden_size, num_classes)
        self.register_buffer("mean", torch.zeros(6), persistent=False)
        self.register_buffer("var", torch.ones(6), persistent=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        means: Any = (self.mean, self.var)
        normal = functional.batch_norm(inputs, *means, training=self.training)  # type: ignore[misc]
        return super().forward(normal)


class Wider(Net):
    """A net with one more layer."""

    def __init__(self, hidden_size: int, num_classes: int) -> None:
        super().__init__(hidden_size, num_classes)
        self.head = nn.Linear(num_classes, num_classes)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.head(self.layers(inputs))


class Small(nn.Sequential):
    """The smallest model with dropout."""

    def __init__(self, hidden_size: int) -> None:
        del hidden_size
        super().__init__(nn.Linear(6, 3), nn.Dropout(0.5))


class Augmented(Dataset[tuple[torch.Tensor, int]]):
    """Samples that get new random noise at each access."""

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


class Streamed(IterableDataset[tuple[torch.Tensor, int]]):
    """The same samples as non-seekable data, split between the data workers."""

    num_classes = 3

    def __init__(self, split: str) -> None:
        self._samples = Augmented(split)

    def __len__(self) -> int:
        return min(40, len(self._samples))  # whole batches for two workers

    def __iter__(self) -> Iterator[tuple[torch.Tensor, int]]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        for index in range(first, len(self), step):
            yield self._samples[index]


def two_sets(split: str) -> Any:
    """Return two sets of different lengths to train on."""
    if split != "train":
        return Augmented(split)
    return {"many": Augmented(split), "few": Subset(Augmented(split), range(14))}


class OnTwoSets(Net):
    """A model that trains on a batch of either set, or of both."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__(hidden_size, 3)

    def training_step(self, batch: Any) -> torch.Tensor:
        """Return the mean loss over the sets in the batch."""
        losses = [functional.cross_entropy(self(x), y) for x, y in batch.values()]
        return torch.stack(losses).mean()

    def validation_step(self, batch: Any) -> dict[str, torch.Tensor]:
        """Return the loss of a batch of the validation set."""
        return {"loss": functional.cross_entropy(self(batch[0]), batch[1])}


class Rivals(nn.Module):
    """Two networks that are trained in turns, each by its own optimizer."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.maker = nn.Sequential(
            nn.Linear(6, hidden_size), nn.Dropout(0.3), nn.Linear(hidden_size, 6)
        )
        self.judge = Net(hidden_size, 3)

    def configure_optimizers(self, config: Any) -> dict[str, torch.optim.Optimizer]:
        """Return an optimizer of another class for each network."""
        return {
            "judge": torch.optim.AdamW(self.judge.parameters(), lr=config.lr),
            "maker": torch.optim.SGD(self.maker.parameters(), lr=config.lr, momentum=0.9),
        }

    def training_step(self, batch: Any, optimizer: str) -> torch.Tensor:
        """Return the loss of the network whose turn it is."""
        loss = functional.cross_entropy(self.judge(self.maker(batch[0])), batch[1])
        return loss if optimizer == "judge" else -loss

    def validation_step(self, batch: Any) -> dict[str, torch.Tensor]:
        """Return the judge's loss."""
        return {"loss": functional.cross_entropy(self.judge(batch[0]), batch[1])}


class Stateful(Callback):
    """A callback whose state, a sum of random numbers, changes the weights."""

    phases = (Phase.TRAIN_BATCH_END, Phase.VAL_BATCH_END)

    def __init__(self, strength: float) -> None:
        self._strength = strength
        self._sums = torch.zeros(2)

    def before(self, phase: Phase, training: Loop) -> None:
        """Add a random number to the sum of this kind of batch."""
        self._sums[int(phase is Phase.VAL_BATCH_END)] += random.random()
        del training

    def after(self, phase: Phase, training: Loop) -> None:
        """Move a bias by the sums."""
        del phase
        with torch.no_grad():
            bias = next(p for n, p in training.engine.module.named_parameters() if "bias" in n)
            bias.add_(self._strength * self._sums.sum())

    def state_dict(self) -> dict[str, Any]:
        """Return the sums."""
        return {"seen": self._sums}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the sums."""
        self._sums = state["seen"]


class SometimesInfinite(Net):
    """A model whose loss is infinite for some batches."""

    def training_step(self, batch: Any) -> torch.Tensor:
        """Return the loss, infinite if the batch's first value is above a limit."""
        loss = functional.cross_entropy(self(batch[0]), batch[1])
        return loss / 0 if float(batch[0][0, 0].detach()) > 1.2 else loss


class SometimesNotANumber(Net):
    """A model that gets NaN as input in some batches, which reach its running means."""

    def training_step(self, batch: Any) -> torch.Tensor:
        """Return the loss."""
        inputs, targets = batch
        is_broken = float(inputs[0, 0].detach()) > 1.2
        return functional.cross_entropy(
            self(inputs * float("nan") if is_broken else inputs), targets
        )

    def validation_step(self, batch: Any) -> dict[str, torch.Tensor]:
        """Return the loss, without NaN."""
        return {"loss": functional.cross_entropy(self(batch[0]), batch[1])}


class Counted(Net):
    """A model whose loss is a mean over some of the samples, with further values beside it."""

    def training_step(self, batch: Any) -> dict[str, Any]:
        """Return a sum and its count, and values of each kind, one of them sometimes."""
        losses = functional.cross_entropy(self(batch[0]), batch[1], reduction="none")
        kept = batch[1] != 0
        values = {"loss": ((losses * kept).sum(), kept.sum()), "all": losses.mean()}
        return values | ({"few": (losses.sum(), 7)} if len(losses) == 2 else {"most": 0.25})

    def validation_step(self, batch: Any) -> dict[str, torch.Tensor]:
        """Return the mean loss of all samples."""
        return {"loss": functional.cross_entropy(self(batch[0]), batch[1])}


class Sparse(Net):
    """A model with sparse gradients, of which SGD keeps a sparse momentum, and a sparse buffer."""

    def __init__(self, hidden_size: int, num_classes: int) -> None:
        super().__init__(hidden_size, num_classes)
        self.table = nn.Embedding(20, 6, sparse=True)
        self.mixing: torch.Tensor
        self.register_buffer("mixing", torch.eye(6).to_sparse(), persistent=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return logits; two of the inputs of a sample choose rows of the table."""
        rows = (inputs[:, :2].detach().abs() * 7).long().clamp(max=19)
        return super().forward((self.mixing @ inputs.T).T + self.table(rows).mean(1))


def train(run: Path, precision: Any = "32-true") -> None:
    """Train as the job does, in this process; mixed precision on the CPU too."""
    config = read_config(run)
    torch.set_num_threads(1)
    if precision == "16-mixed":  # with so great a scale that the first steps are skipped
        from lightning.fabric.plugins.precision import MixedPrecision

        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20, growth_interval=2)
        fabric = Fabric(
            accelerator="cpu", devices=1, plugins=[MixedPrecision("16-mixed", "cpu", scaler)]
        )
    elif precision != "32-true":
        ranks = int(os.environ.get("SLURM_NTASKS", "1"))
        fabric = Fabric(accelerator="cpu", devices=ranks, precision=precision)
        fabric.launch()
    else:
        fabric = build_fabric(config, os.environ)
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

    return trial_process.fork(body).wait()


def signal_at(phase: Phase, nth: int, signum: signal.Signals, *, after: bool) -> Callable[[], None]:
    """Return a function that makes a process signal itself right before or after the nth ``phase``."""
    return functools.partial(trial_process.interrupt_at, phase, nth, signum, after=after)


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

    def counted_sync(fd: Any) -> None:
        if not str(Path(f"/proc/self/fd/{fd}").readlink()).endswith(".jsonl"):
            count()
        sync(fd)

    sys.addaudithook(audit)
    os.fsync = counted_sync
