"""Training loops to be compared: `python -m benchmarks.loops ROUNDS STEPS NAME...`.

Each loop trains the same MLP 64-64-10 with SGD, on the same batches of 32, on one thread.
One process runs all loops in each round. It prints as JSON, for each loop and round, the CPU time
of a step in microseconds, for each block of 100 steps, measured between two batches that the loader
is asked for. CPU time is the cost of the code, however busy the machine is.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.loop_data import Batches, PreparedBatches, Samples, Tensors

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.loop_data import TimedData

EVERYTHING = {
    "checkpoint": {"every_n_epochs": 1, "every_n_steps": 1000},
    "logging": {"log_scalars_every_n_steps": 50, "use_wandb": False},
}
NOTHING = {
    "checkpoint": {"every_n_epochs": None},
    "logging": {"log_scalars_every_n_steps": 10**9, "use_wandb": False},
}


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def _parts() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = _model()
    return model, torch.optim.SGD(model.parameters(), lr=1e-3)


def raw(data: TimedData, _folder: Path) -> None:
    """Train with torch alone."""
    model, optimizer = _parts()
    for inputs, targets in data.loader():
        loss = functional.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def fabric(data: TimedData, _folder: Path) -> None:
    """Train with Fabric as its documentation shows."""
    from lightning.fabric import Fabric

    lightning = Fabric(accelerator="cpu", devices=1)
    model, optimizer = lightning.setup(*_parts())
    for inputs, targets in lightning.setup_dataloaders(data.loader()):
        loss = functional.cross_entropy(model(inputs), targets)
        lightning.backward(loss)
        optimizer.step()
        optimizer.zero_grad()


def accelerate(data: TimedData, _folder: Path) -> None:
    """Train with Accelerate as its documentation shows."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    model, optimizer, loader = accelerator.prepare(*_parts(), data.loader())
    for inputs, targets in loader:
        loss = functional.cross_entropy(model(inputs), targets)
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()


def lightning(data: TimedData, folder: Path) -> None:
    """Train with Lightning's Trainer, with everything off that can be off."""
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
        accelerator="cpu",
        devices=1,
        max_epochs=1,
        logger=False,
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(Module(), data.loader())


def ddp(data: TimedData, _folder: Path) -> None:
    """Train one of several ranks with torch alone."""
    rank, ranks = int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_NTASKS"])
    torch.distributed.init_process_group("gloo", rank=rank, world_size=ranks)
    model, optimizer = _parts()
    wrapped = nn.parallel.DistributedDataParallel(model)
    for inputs, targets in data.loader():
        loss = functional.cross_entropy(wrapped(inputs), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def _mtf(batches: Any, folder: Path, sections: dict[str, Any]) -> None:
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
    trainer.fit(batches)


def mtf_alone(data: TimedData, folder: Path) -> None:
    """Train with mtf, with everything off that can be off."""
    _mtf(Batches(data), folder, NOTHING)


def mtf_whole(data: TimedData, folder: Path) -> None:
    """Train with mtf, with checkpoints, journal and scalars."""
    _mtf(Batches(data), folder, EVERYTHING)


def mtf_loader(data: TimedData, folder: Path) -> None:
    """Train with mtf on the loader itself, with everything off that can be off."""
    _mtf(data.loader(), folder, NOTHING)


LOOPS: dict[str, Callable[[TimedData, Path], None]] = {
    "raw": raw,
    "mtf_alone": mtf_alone,
    "mtf_whole": mtf_whole,
    "fabric": fabric,
    "accelerate": accelerate,
    "lightning": lightning,
}
RANKS = {"ddp": ddp, "mtf_alone": mtf_alone}
# on a TensorDataset, and on a data set of one's own, whose random numbers mtf makes repeatable
LOADERS = {"raw_tensors": raw, "mtf_tensors": mtf_loader}
OWN_DATA = {"raw_own_data": raw, "mtf_own_data": mtf_loader}


def _data_of(name: str) -> type[TimedData]:
    if name in LOADERS:
        return Tensors
    return Samples if name in OWN_DATA else PreparedBatches


def main(rounds: int, steps: int, names: list[str]) -> None:
    """Run the loops alternately and print their times."""
    torch.set_num_threads(1)
    spent: dict[str, list[list[float]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, blocks in spent.items():
            data = _data_of(name)(steps)
            with tempfile.TemporaryDirectory() as folder:
                {**LOOPS, **RANKS, **LOADERS, **OWN_DATA}[name](data, Path(folder))
            blocks.append(data.steps_us())
            gc.collect()  # no loop pays for the garbage of another
    print(json.dumps(spent))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
