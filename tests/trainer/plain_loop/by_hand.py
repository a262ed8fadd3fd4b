"""A training loop written by hand in plain torch, and the same training by the trainer."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from mtf.trainer import GenericTrainer
from mtf.trainer.compute.fabric import Fabric, build_fabric
from mtf.trainer.job.run_job import read_config
from tests.trainer.runs import DIGITS, config_with, events, make_run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch.optim import Optimizer

    from mtf.trainer import Callback

EPOCHS = 3
PLAIN = config_with(
    DIGITS,
    {
        "training": {"max_epochs": EPOCHS, "max_grad_norm": None},
        "logging": {"log_scalars_every_n_steps": 1},
    },
)
TRAIN_SIZE, BATCH_SIZE = 42, 4  # 11 batches, the last of 2 samples


def samples(size: int, seed: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.randn(size, 6, generator=generator), torch.arange(size) % 3)


def train_batches() -> DataLoader[Any]:
    """Return the batches; with a generator of its own, a loader draws no global random number."""
    return DataLoader(samples(TRAIN_SIZE, 1), batch_size=BATCH_SIZE, generator=torch.Generator())


def val_batches() -> DataLoader[Any]:
    return DataLoader(samples(9, 2), batch_size=4, generator=torch.Generator())


VAL_BATCHES = val_batches()


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def adam(model: nn.Module) -> Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-2)


@dataclass
class Trained:
    """The result of a training: metrics by epoch, and the learning rate after each step."""

    model: Any
    optimizer: Any
    metrics: list[dict[str, float]]
    rates: list[float] = field(default_factory=list)


def assert_equal(left: Any, right: Any, where: str = "") -> None:
    """Compare containers of tensors and numbers, tensors by ``torch.equal``."""
    if isinstance(left, torch.Tensor):
        assert torch.equal(left, right), where
    elif isinstance(left, dict):
        assert left.keys() == right.keys(), where
        for key, value in left.items():
            assert_equal(value, right[key], f"{where}.{key}")
    elif isinstance(left, list | tuple):
        assert len(left) == len(right), where
        for i, (a, b) in enumerate(zip(left, right, strict=True)):
            assert_equal(a, b, f"{where}[{i}]")
    else:
        assert left == right, where


def assert_same(left: Trained, right: Trained) -> None:
    assert_equal(vars(left), vars(right))


def val_sums(model: nn.Module, batches: DataLoader[Any]) -> tuple[float, int, int]:
    """Return the summed loss, the number of right answers and that of samples."""
    loss, right, count = torch.zeros((), dtype=torch.float64), 0, 0
    model.eval()
    with torch.no_grad():
        for inputs, targets in batches:
            logits = model(inputs)
            loss += functional.cross_entropy(logits, targets, reduction="sum").double()
            right += int((logits.argmax(1) == targets).sum())
            count += len(targets)
    model.train()
    return float(loss), right, count


def validate(model: nn.Module) -> dict[str, float]:
    loss, right, count = val_sums(model, val_batches())
    return {"val_loss": loss / count, "val_accuracy": right / count}


def weighed(loss: torch.Tensor, size: int, window: list[Any]) -> torch.Tensor:
    """Return a mean loss over ``size`` samples with its weight in a window of batches."""
    sizes = [len(targets) for _, targets in window]
    if len(set(sizes)) == 1:
        return loss / len(window)
    return loss * (size / sum(sizes))


def by_hand(
    model: nn.Module,
    optimizer: Optimizer,
    *,
    window: int = 1,
    clip: Callable[[nn.Module], object] = lambda _: None,
    after_step: Callable[[], object] = lambda: None,
    after_epoch: Callable[[], object] = lambda: None,
    after_metrics: Callable[[dict[str, float]], object] = lambda _: None,
    validated: nn.Module | None = None,
) -> Trained:
    """Train for ``EPOCHS``; each micro-batch of a window has the weight of its samples."""
    trained = Trained({}, {}, [])
    for _ in range(EPOCHS):
        total, batches = 0.0, list(train_batches())
        for first in range(0, len(batches), window):
            accumulated = batches[first : first + window]
            for inputs, targets in accumulated:
                loss = functional.cross_entropy(model(inputs), targets)
                weighed(loss, len(targets), accumulated).backward()
                total += loss.item() * len(targets)
            clip(model)
            optimizer.step()
            optimizer.zero_grad()
            after_step()
            trained.rates.append(optimizer.param_groups[0]["lr"])
        after_epoch()
        metrics = {"train_loss": total / TRAIN_SIZE, **validate(validated or model)}
        after_metrics(metrics)
        trained.metrics.append(metrics)
    trained.model, trained.optimizer = model.state_dict(), optimizer.state_dict()
    return trained


def by_trainer(
    run: Path,
    model: nn.Module,
    optimizer: Optimizer | Mapping[str, Optimizer],
    schedule: Any = None,
    *,
    fabric: Fabric | None = None,
    train: Any = None,
    validation: DataLoader[Any] | None = VAL_BATCHES,
    callbacks: Mapping[str, Callback] | None = None,
) -> Trained:
    config = read_config(run)
    fabric = fabric or build_fabric(config, {"MTF_CPUS": "1"})
    trainer = GenericTrainer(
        config, fabric, model, optimizer, schedule, run_dir=run, callbacks=callbacks
    )
    trainer.fit(train or train_batches(), validation)
    rows = map(json.loads, (run / "scalars.jsonl").read_text().splitlines())
    return Trained(
        model.state_dict(),
        optimizer.state_dict()
        if isinstance(optimizer, torch.optim.Optimizer)
        else {name: part.state_dict() for name, part in optimizer.items()},
        [event["metrics"] for event in events(run, "metrics")],
        [row["lr"] for row in rows if "lr" in row],
    )


def plain_run(tmp_path: Path, **changes: Any) -> Path:
    return make_run(tmp_path, base=PLAIN, **changes)


def rows(run: Path) -> list[dict[str, Any]]:
    """Return the rows of steps."""
    lines = (run / "scalars.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if "lr" in row]


class Validated(nn.Sequential):
    def validation_step(self, batch: Any) -> dict[str, Any]:
        return {"loss": functional.cross_entropy(self(batch[0]), batch[1])}


def counted(model: nn.Module, batch: Any) -> Any:
    """Count the samples whose target is not 0, as a language model counts tokens."""
    kept = batch[1] != 0
    losses = functional.cross_entropy(model(batch[0]), batch[1], reduction="none")
    return (losses * kept).sum(), kept.sum()


class Tokens(Validated):
    def training_step(self, batch: Any) -> Any:
        return counted(self, batch)
