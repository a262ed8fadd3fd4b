"""The trainer computes what a loop written by hand in plain torch computes, bit for bit."""

from __future__ import annotations

import copy
import json
import os
import signal
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import distributed, nn
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, DistributedSampler, Subset, TensorDataset

from mtf.trainer import GenericTrainer
from mtf.trainer.components.lr_schedulers import Schedule
from mtf.trainer.compute.fabric import Fabric, build_fabric
from mtf.trainer.job.run_job import read_config
from mtf.trainer.runtime.signals import SIGNALS
from tests.trainer.nasty import COMPLETE, result
from tests.trainer.ranks import train_ranks
from tests.trainer.resume.test_warm_start import begin
from tests.trainer.runs import DIGITS, config_with, events, make_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from torch.optim import Optimizer

EPOCHS = 3
PLAIN = config_with(
    DIGITS,
    {
        "training": {"max_epochs": EPOCHS, "max_grad_norm": None},
        "logging": {"log_scalars_every_n_steps": 1},
    },
)
TRAIN_SIZE, BATCH_SIZE = 42, 4  # 11 batches, the last of 2 samples


@pytest.fixture(autouse=True)
def own_signal_handlers() -> Iterator[None]:
    """Give the test runner its own handlers back."""
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


def samples(size: int, seed: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.randn(size, 6, generator=generator), torch.arange(size) % 3)


def train_batches() -> DataLoader[Any]:
    return DataLoader(samples(TRAIN_SIZE, 1), batch_size=BATCH_SIZE)


def val_batches() -> DataLoader[Any]:
    return DataLoader(samples(9, 2), batch_size=4)


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def adam(model: nn.Module) -> Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-2)


@dataclass
class Trained:
    """What a training has come to; metrics by epoch, and the learning rate after each step."""

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
        for i, (one, other) in enumerate(zip(left, right, strict=True)):
            assert_equal(one, other, f"{where}[{i}]")
    else:
        assert left == right, where


def assert_same(left: Trained, right: Trained) -> None:
    assert_equal(vars(left), vars(right))


# -- the loop by hand ------------------------------------------------------------------------------


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
    """Train for ``EPOCHS``; each micro-batch of a window has the same weight, whatever its size."""
    trained = Trained({}, {}, [])
    for _ in range(EPOCHS):
        losses, batches = [], list(train_batches())
        for first in range(0, len(batches), window):
            accumulated = batches[first : first + window]
            for inputs, targets in accumulated:
                loss = functional.cross_entropy(model(inputs), targets)
                (loss / len(accumulated)).backward()
                losses.append(loss.item())
            clip(model)
            optimizer.step()
            optimizer.zero_grad()
            after_step()
            trained.rates.append(optimizer.param_groups[0]["lr"])
        after_epoch()
        metrics = {"train_loss": sum(losses) / len(losses), **validate(validated or model)}
        after_metrics(metrics)
        trained.metrics.append(metrics)
    trained.model, trained.optimizer = model.state_dict(), optimizer.state_dict()
    return trained


# -- the same by the trainer -----------------------------------------------------------------------


def by_trainer(
    run: Path,
    model: nn.Module,
    optimizer: Optimizer | Mapping[str, Optimizer],
    schedule: Any = None,
    *,
    fabric: Fabric | None = None,
    train: DataLoader[Any] | None = None,
) -> Trained:
    config = read_config(run)
    fabric = fabric or build_fabric(config, {"MTF_CPUS": "1"})
    trainer = GenericTrainer(config, fabric, model, optimizer, schedule, run_dir=run)
    trainer.fit(train or train_batches(), val_batches())
    rows = map(json.loads, (run / "scalars.jsonl").read_text().splitlines())
    return Trained(
        model.state_dict(),
        optimizer.state_dict()
        if isinstance(optimizer, torch.optim.Optimizer)
        else {name: one.state_dict() for name, one in optimizer.items()},
        [event["metrics"] for event in events(run, "metrics")],
        [row["lr"] for row in rows if "lr" in row],
    )


def plain_run(tmp_path: Path, **changes: Any) -> Path:
    return make_run(tmp_path, base=PLAIN, **changes)


@pytest.mark.parametrize("window", [1, 3, 4, 11, 20])
def test_accumulation_divides_by_the_window_and_by_what_is_left_at_the_end(
    window: int, tmp_path: Path
) -> None:
    """11 batches make ragged last windows of 2 and 3."""
    run = plain_run(tmp_path, training={"gradient_accumulation_steps": window})
    model, own = net(), net()
    expected = by_hand(own, adam(own), window=window)
    assert_same(by_trainer(run, model, adam(model)), expected)
    assert len(expected.rates) == EPOCHS * -(-11 // window)


@pytest.mark.parametrize(
    ("max_norm", "max_value"), [(0.05, None), (None, 0.01), (0.05, 0.01), (0.01, 0.02), (1e9, 1e9)]
)
def test_gradients_are_clipped_by_value_and_then_by_norm(
    max_norm: float | None, max_value: float | None, tmp_path: Path
) -> None:
    def clip(model: nn.Module) -> None:
        if max_value is not None:
            clip_grad_value_(model.parameters(), max_value)
        if max_norm is not None:
            clip_grad_norm_(model.parameters(), max_norm)

    training = {"max_grad_norm": max_norm, "max_grad_value": max_value}
    run = plain_run(tmp_path, training={**training, "gradient_accumulation_steps": 2})
    model, own = net(), net()
    momentum: Callable[[nn.Module], Optimizer] = lambda m: torch.optim.SGD(  # noqa: E731
        m.parameters(), lr=0.5, momentum=0.9
    )
    expected = by_hand(own, momentum(own), window=2, clip=clip)
    assert_same(by_trainer(run, model, momentum(model)), expected)
    unclipped = by_hand(other := net(), momentum(other), window=2)
    is_clipped = not torch.equal(unclipped.model["0.weight"], expected.model["0.weight"])
    assert is_clipped == (max_norm != 1e9)


@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_a_scheduler_steps_after_each_step_or_each_epoch(interval: Any, tmp_path: Path) -> None:
    run = plain_run(tmp_path, training={"gradient_accumulation_steps": 3})
    model, own = net(), net()
    optimizer, own_optimizer = adam(model), adam(own)
    schedule = Schedule(lr_scheduler.ExponentialLR(optimizer, 0.8), interval)
    by_plain = lr_scheduler.ExponentialLR(own_optimizer, 0.8)
    hooks: dict[str, Any] = {f"after_{interval}": by_plain.step}
    expected = by_hand(own, own_optimizer, window=3, **hooks)
    assert_same(by_trainer(run, model, optimizer, schedule), expected)
    assert_equal(schedule.scheduler.state_dict(), by_plain.state_dict())
    assert len(set(expected.rates)) == (12 if interval == "step" else EPOCHS)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_plateau_scheduler_follows_the_monitored_metric_in_its_own_mode(
    mode: Any, tmp_path: Path
) -> None:
    run = plain_run(tmp_path)
    model, own = net(), net()
    optimizer, own_optimizer = adam(model), adam(own)
    settings: dict[str, Any] = {"mode": mode, "patience": 0, "factor": 0.5}
    plateau = lr_scheduler.ReduceLROnPlateau(optimizer, **settings)
    by_plain = lr_scheduler.ReduceLROnPlateau(own_optimizer, **settings)
    expected = by_hand(own, own_optimizer, after_metrics=lambda m: by_plain.step(m["val_loss"]))
    assert_same(by_trainer(run, model, optimizer, plateau), expected)
    assert_equal(plateau.state_dict(), by_plain.state_dict())
    losses = [metrics["val_loss"] for metrics in expected.metrics]
    assert losses == sorted(losses, reverse=True)  # it falls: no improvement where more is better
    assert (len(set(expected.rates)) > 1) == (mode == "max")


def test_several_optimizers_step_together(tmp_path: Path) -> None:
    class Stepping(nn.Sequential):
        def training_step(self, batch: Any) -> torch.Tensor:
            return functional.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch: Any) -> dict[str, Any]:
            return {"loss": functional.cross_entropy(self(batch[0]), batch[1])}

    def both(model: nn.Sequential) -> dict[str, Optimizer]:
        return {
            "first": torch.optim.AdamW(model[0].parameters(), lr=1e-2),
            "last": torch.optim.SGD(model[2].parameters(), lr=0.1, momentum=0.9),
        }

    model, own = Stepping(*net()), net()
    optimizers = both(own)
    trained = by_trainer(plain_run(tmp_path), model, both(model))
    for _ in range(EPOCHS):
        for inputs, targets in train_batches():
            functional.cross_entropy(own(inputs), targets).backward()
            for optimizer in optimizers.values():
                optimizer.step()
                optimizer.zero_grad()
    assert_equal(trained.model, own.state_dict())
    assert_equal(trained.optimizer, {name: one.state_dict() for name, one in optimizers.items()})


def test_optimizers_that_take_turns_step_for_a_window_each(tmp_path: Path) -> None:
    class Turning(nn.Sequential):
        def training_step(self, batch: Any, optimizer: str) -> torch.Tensor:
            loss = functional.cross_entropy(self(batch[0]), batch[1])
            return loss if optimizer == "first" else 2 * loss

        def validation_step(self, batch: Any) -> dict[str, Any]:
            return {"loss": functional.cross_entropy(self(batch[0]), batch[1])}

    def both(model: nn.Sequential) -> dict[str, Optimizer]:
        return {name: adam(part) for name, part in (("first", model[0]), ("last", model[2]))}

    model, own = Turning(*net()), net()
    optimizers = list(both(own).items())
    run = plain_run(tmp_path, training={"gradient_accumulation_steps": 4})
    trained = by_trainer(run, model, both(model))
    step = 0
    for _ in range(EPOCHS):
        batches = list(train_batches())
        for first in range(0, 11, 4):
            name, optimizer = optimizers[step % 2]
            for inputs, targets in (window := batches[first : first + 4]):
                loss = functional.cross_entropy(own(inputs), targets)
                loss = loss if name == "first" else 2 * loss
                (loss / len(window)).backward()
            optimizer.step()
            own.zero_grad()
            step += 1
    assert_equal(trained.model, own.state_dict())
    assert_equal(trained.optimizer, {name: one.state_dict() for name, one in optimizers})


@pytest.mark.parametrize("every", [1, 2])
def test_the_average_of_weights_is_updated_after_steps_and_validated(
    every: int, tmp_path: Path
) -> None:
    model, own = net(), net()
    average, steps = copy.deepcopy(own), 0

    def update() -> None:
        nonlocal steps
        steps += 1
        if steps % every == 0:
            with torch.no_grad():
                for kept, weight in zip(average.parameters(), own.parameters(), strict=True):
                    kept.lerp_(weight, 1 - 0.9)

    run = plain_run(tmp_path, callbacks={"ema": {"decay": 0.9, "every_n_steps": every}})
    expected = by_hand(own, adam(own), after_step=update, validated=average)
    assert_same(by_trainer(run, model, adam(model)), expected)
    assert_equal(result(run)["content"]["callbacks"]["ema"]["average"], average.state_dict())


def test_early_stopping_ends_after_the_epochs_of_its_patience(tmp_path: Path) -> None:
    stopping = {"monitor": "val_loss", "mode": "max", "patience": 2}  # it falls: no improvement
    run = plain_run(
        tmp_path, callbacks={"early_stopping": stopping}, training={"max_epochs": EPOCHS + 5}
    )
    model, own = net(), net()
    assert_same(by_trainer(run, model, adam(model)), by_hand(own, adam(own)))


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_best_checkpoint_holds_the_weights_of_the_best_epoch(mode: str, tmp_path: Path) -> None:
    run = plain_run(
        tmp_path, checkpoint={"monitor": "val_loss", "mode": mode, "keep_best": 1, "keep_last": 1}
    )
    model, own = net(), net()
    weights: list[tuple[float, Any]] = []

    def keep(metrics: dict[str, float]) -> None:
        weights.append((metrics["val_loss"], copy.deepcopy(own.state_dict())))

    by_hand(own, adam(own), after_metrics=keep)
    by_trainer(run, model, adam(model))
    best = (min if mode == "min" else max)(weights, key=lambda kept: kept[0])
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert_equal(content["model"], best[1])


def test_a_step_whose_gradients_are_not_finite_is_skipped_and_its_schedule_goes_on(
    tmp_path: Path,
) -> None:
    """The mean loss counts the batches whose loss was left out, as it does now."""
    data = samples(TRAIN_SIZE, 1)
    data.tensors[0][9] = float("inf")  # in the third batch, the second window
    batches = DataLoader(data, batch_size=BATCH_SIZE)
    training = {"on_nonfinite": "skip", "gradient_accumulation_steps": 2, "max_grad_norm": 0.1}
    run = plain_run(tmp_path, training=training)
    model, own = net(), net()
    optimizer, own_optimizer = adam(model), adam(own)
    schedule = lr_scheduler.LinearLR(optimizer, total_iters=10)
    own_schedule = lr_scheduler.LinearLR(own_optimizer, total_iters=10)
    trained = by_trainer(run, model, optimizer, Schedule(schedule, "step"), train=batches)
    losses: list[float] = []
    for _ in range(EPOCHS):
        losses, all_batches = [], list(batches)
        for first in range(0, 11, 2):
            for inputs, targets in (window := all_batches[first : first + 2]):
                loss = functional.cross_entropy(own(inputs), targets)
                (loss / len(window)).backward()
                losses.append(loss.item() if loss.isfinite() else 0.0)
            gradients = [p.grad for p in own.parameters() if p.grad is not None]
            if all(bool(gradient.isfinite().all()) for gradient in gradients):
                clip_grad_norm_(own.parameters(), 0.1)
                own_optimizer.step()
            own_optimizer.zero_grad()
            own_schedule.step()
    assert_equal(trained.model, own.state_dict())
    assert_equal(trained.optimizer, own_optimizer.state_dict())
    assert_equal(schedule.state_dict(), own_schedule.state_dict())
    assert trained.metrics[-1] == {"train_loss": sum(losses) / 11, **validate(own)}
    assert result(run)["content"]["ranks"][0]["skipped"] == EPOCHS


@pytest.mark.parametrize("training", [{}, {"max_grad_norm": 0.05}, {"on_nonfinite": "skip"}])
def test_sixteen_bits_are_scaled_unscaled_before_clipping_and_skipped_on_overflow(
    training: dict[str, Any], tmp_path: Path
) -> None:
    """With torch's own scaler on the CPU, whose scale is too great at first."""
    from lightning.fabric.plugins.precision import MixedPrecision

    def new_scaler() -> torch.amp.GradScaler:
        return torch.amp.GradScaler("cpu", init_scale=2.0**20, growth_interval=4)

    precision = MixedPrecision("16-mixed", "cpu", new_scaler())
    fabric = Fabric(accelerator="cpu", devices=1, plugins=[precision])
    model, own = net(), net()
    run = plain_run(tmp_path, training={**training, "gradient_accumulation_steps": 3})
    trained = by_trainer(run, model, adam(model), fabric=fabric)
    scaler, optimizer, skipped = new_scaler(), adam(own), 0
    for _ in range(EPOCHS):
        batches = list(train_batches())
        for first in range(0, 11, 3):
            for inputs, targets in (window := batches[first : first + 3]):
                with torch.autocast("cpu", dtype=torch.float16):
                    loss = functional.cross_entropy(own(inputs), targets)
                scaler.scale(loss / len(window)).backward()
            if training.get("max_grad_norm"):
                scaler.unscale_(optimizer)
                clip_grad_norm_(own.parameters(), training["max_grad_norm"])
            before = scaler.get_scale()
            scaler.step(optimizer)
            scaler.update()
            skipped += scaler.get_scale() < before
            optimizer.zero_grad()
    assert_equal(trained.model, own.state_dict())
    assert_equal(trained.optimizer, optimizer.state_dict())
    assert_equal(result(run)["content"]["scaler"], scaler.state_dict())
    assert 0 < skipped < 12


def test_a_warm_start_trains_on_from_the_weights_of_another_run(tmp_path: Path) -> None:
    source = plain_run(tmp_path)
    first, own = net(), net()
    by_trainer(source, first, adam(first))
    by_hand(own, adam(own))
    changes = config_with(PLAIN, {"training": {"gradient_accumulation_steps": 1}})
    run = begin(tmp_path, source, {}, **changes)
    model = net(seed=7)
    assert_same(by_trainer(run, model, adam(model)), by_hand(own, adam(own)))


def even_samples() -> TensorDataset:
    return samples(TRAIN_SIZE - 2, 1)


def fit_on_ranks(run: Path) -> None:
    config = read_config(run)
    model = net()
    fabric = build_fabric(config, os.environ)
    trainer = GenericTrainer(config, fabric, model, adam(model), run_dir=run)
    trainer.fit(DataLoader(even_samples(), batch_size=BATCH_SIZE), val_batches())


def fit_on_ranks_by_hand(run: Path) -> None:
    rank = int(os.environ["SLURM_PROCID"])
    distributed.init_process_group("gloo", rank=rank, world_size=2)
    model = net()
    parallel, optimizer = nn.parallel.DistributedDataParallel(model), adam(model)
    losses: list[float] = []
    sampler: Any = DistributedSampler(even_samples(), shuffle=False)
    for _ in range(EPOCHS):
        losses = []
        batches = list(DataLoader(even_samples(), batch_size=BATCH_SIZE, sampler=sampler))
        for first in range(0, 5, 2):
            window = batches[first : first + 2]
            for inputs, targets in window:
                is_last = inputs is window[-1][0]
                with nullcontext() if is_last else parallel.no_sync():
                    loss = functional.cross_entropy(parallel(inputs), targets)
                    (loss / len(window)).backward()
                losses.append(loss.item())
            clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            optimizer.zero_grad()
    share: Any = Subset(val_batches().dataset, range(rank, 9, 2))
    torch.save(
        {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "losses": losses,
            "validation": val_sums(model, DataLoader(share, batch_size=4)),
        },
        run / f"{rank}.pt",
    )
    distributed.destroy_process_group()


def test_two_ranks_train_as_plain_ddp_does(tmp_path: Path) -> None:
    """20 samples to each rank, in windows of 2, 2 and 1 micro-batches."""
    training = {"gradient_accumulation_steps": 2, "max_grad_norm": 0.1}
    run = plain_run(tmp_path, training=training, slurm={"ntasks_per_node": 2})
    assert train_ranks(run, 2, training=fit_on_ranks) == [COMPLETE] * 2
    assert train_ranks(run, 2, training=fit_on_ranks_by_hand) == [COMPLETE] * 2
    expected = [torch.load(run / f"{rank}.pt", weights_only=True) for rank in range(2)]
    content = result(run)["content"]
    for of_rank in expected:
        assert_equal(dict(content["model"]), dict(of_rank["model"]))
        assert_equal(content["optimizers"]["optimizer"], of_rank["optimizer"])
    losses = [loss for of_rank in expected for loss in of_rank["losses"]]
    loss, right, count = map(
        sum, zip(*[of_rank["validation"] for of_rank in expected], strict=True)
    )
    assert events(run, "metrics")[-1]["metrics"] == {
        "train_loss": sum(losses) / 10,
        "val_loss": loss / count,
        "val_accuracy": right / count,
    }
