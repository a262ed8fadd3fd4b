"""The loops that are timed against each other: `python -m benchmarks.loops ROUNDS STEPS NAME...`.

Each trains the same MLP 64-64-10 by plain descent on the same ready batches of 32, on one thread.
One process does all of them in turn, round by round, and prints as JSON for each loop and round the
microseconds of a step, of the process's time on its core, in each block of 100, taken between two
batches that its loader is asked for: what code costs, however busy the machine is.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WARM_UP, BLOCK = 300, 100
EVERYTHING = {
    "checkpoint": {"every_n_epochs": 1, "every_n_steps": 1000},
    "logging": {"log_scalars_every_n_steps": 50},
}
NOTHING = {"checkpoint": {"every_n_epochs": None}, "logging": {"log_scalars_every_n_steps": 10**9}}


class Ready(Dataset[Any]):
    """Batches that are there already, and when every hundredth of them was asked for."""

    num_classes, input_shape = 10, (64,)

    def __init__(self, steps: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self._batches = [
            (torch.randn(32, 64, generator=generator), torch.arange(32) % 10) for _ in range(64)
        ]
        self._steps = WARM_UP + steps
        self._asked_s: list[float] = []

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        if index >= WARM_UP and index % BLOCK == 0:
            self._asked_s.append(time.process_time())
        return self._batches[index % 64]

    def loader(self) -> DataLoader[Any]:
        return DataLoader(self, batch_size=None)

    def steps_us(self) -> list[float]:
        """Return the mean time of a step in each block, in microseconds."""
        pairs = itertools.pairwise(self._asked_s)
        return [(after - before) / BLOCK * 1e6 for before, after in pairs]


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def _parts() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = _model()
    return model, torch.optim.SGD(model.parameters(), lr=1e-3)


def raw(ready: Ready, _folder: Path) -> None:
    """Train with torch alone."""
    model, optimizer = _parts()
    for inputs, targets in ready.loader():
        loss = functional.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def fabric(ready: Ready, _folder: Path) -> None:
    """Train with Fabric as its documentation shows."""
    from lightning.fabric import Fabric

    lightning = Fabric(accelerator="cpu", devices=1)
    model, optimizer = lightning.setup(*_parts())
    for inputs, targets in lightning.setup_dataloaders(ready.loader()):
        loss = functional.cross_entropy(model(inputs), targets)
        lightning.backward(loss)
        optimizer.step()
        optimizer.zero_grad()


def accelerate(ready: Ready, _folder: Path) -> None:
    """Train with Accelerate as its documentation shows."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    model, optimizer, loader = accelerator.prepare(*_parts(), ready.loader())
    for inputs, targets in loader:
        loss = functional.cross_entropy(model(inputs), targets)
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()


def lightning(ready: Ready, folder: Path) -> None:
    """Train with Lightning's Trainer, all that can be off being off."""
    from lightning.pytorch import LightningModule, Trainer

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = _model()

        def training_step(self, batch: Any, _batch_idx: int) -> torch.Tensor:
            return functional.cross_entropy(self.model(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=1e-3)

    Trainer(
        accelerator="cpu", devices=1, max_epochs=1, logger=False, default_root_dir=folder,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    ).fit(Module(), ready.loader())  # fmt: skip


def ddp(ready: Ready, _folder: Path) -> None:
    """Train with torch alone, one of several ranks."""
    rank, ranks = int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_NTASKS"])
    torch.distributed.init_process_group("gloo", rank=rank, world_size=ranks)
    model, optimizer = _parts()
    wrapped = nn.parallel.DistributedDataParallel(model)
    for inputs, targets in ready.loader():
        loss = functional.cross_entropy(wrapped(inputs), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


class _Batches:
    """Ready batches as mtf's loop takes them, through the same loader as all others."""

    def __init__(self, ready: Ready) -> None:
        self._ready = ready

    def __len__(self) -> int:
        return len(self._ready)

    def batches(self, _epoch: int, start: int) -> Iterator[Any]:
        assert start == 0
        return iter(self._ready.loader())


def _mtf(ready: Ready, folder: Path, sections: dict[str, Any]) -> None:
    from mtf.spec.schema.run_config import ExperimentConfig
    from mtf.trainer import GenericTrainer
    from mtf.trainer.compute.fabric import build_fabric

    name = dict.fromkeys(
        ("run", "submission", "experiment", "key", "commit", "code_dir", "manifest", "repository"),
        "benchmark",
    )
    config = ExperimentConfig.model_validate(
        {
            "experiment_name": "benchmark",
            "model": {"type": "mlp"},
            "data": {"dataset_name": "synthetic"},
            "slurm": {"ntasks_per_node": int(os.environ.get("SLURM_NTASKS", "1"))},
            "training": {"max_epochs": 1, "max_grad_norm": None, "use_amp": False},
            "mtf": {**name, "grid": None},
            **sections,
        }
    )
    trainer = GenericTrainer(config, build_fabric(config, os.environ), *_parts(), run_dir=folder)
    trainer.fit(_Batches(ready))


def mtf_alone(ready: Ready, folder: Path) -> None:
    """Train with mtf, all that can be off being off."""
    _mtf(ready, folder, NOTHING)


def mtf_whole(ready: Ready, folder: Path) -> None:
    """Train with mtf: checkpoints, journal and scalars."""
    _mtf(ready, folder, EVERYTHING)


LOOPS: dict[str, Callable[[Ready, Path], None]] = {
    "raw": raw,
    "mtf_alone": mtf_alone,
    "mtf_whole": mtf_whole,
    "fabric": fabric,
    "accelerate": accelerate,
    "lightning": lightning,
}
RANKS = {"ddp": ddp, "mtf_alone": mtf_alone}


def main(rounds: int, steps: int, names: list[str]) -> None:
    """Do the loops in turn and print what they took."""
    torch.set_num_threads(1)
    spent: dict[str, list[list[float]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, blocks in spent.items():
            ready = Ready(steps)
            with tempfile.TemporaryDirectory() as folder:
                {**LOOPS, **RANKS}[name](ready, Path(folder))
            blocks.append(ready.steps_us())
            gc.collect()  # no loop pays for what another has left
    print(json.dumps(spent))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
