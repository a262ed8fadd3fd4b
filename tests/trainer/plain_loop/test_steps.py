"""An optimizer step is that of plain torch: accumulation, clipping, skipped steps, 16 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader

from mtf.trainer.components.lr_schedulers import Schedule
from mtf.trainer.compute.fabric import Fabric
from tests.trainer.hard_training import result
from tests.trainer.plain_loop.by_hand import (
    BATCH_SIZE,
    EPOCHS,
    TRAIN_SIZE,
    adam,
    assert_equal,
    assert_same,
    by_hand,
    by_trainer,
    net,
    plain_run,
    samples,
    train_batches,
    validate,
    weighed,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch.optim import Optimizer


@pytest.mark.parametrize("window", [1, 3, 4, 11, 20])
def test_accumulation_weighs_by_samples_also_at_the_ragged_end(window: int, tmp_path: Path) -> None:
    """11 batches make ragged last windows of 2 and 3."""
    run = plain_run(tmp_path, training={"gradient_accumulation_steps": window})
    model, reference = net(), net()
    expected = by_hand(reference, adam(reference), window=window)
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
    model, reference = net(), net()
    momentum: Callable[[nn.Module], Optimizer] = lambda m: torch.optim.SGD(  # noqa: E731
        m.parameters(), lr=0.5, momentum=0.9
    )
    expected = by_hand(reference, momentum(reference), window=2, clip=clip)
    assert_same(by_trainer(run, model, momentum(model)), expected)
    unclipped = by_hand(other := net(), momentum(other), window=2)
    is_clipped = not torch.equal(unclipped.model["0.weight"], expected.model["0.weight"])
    assert is_clipped == (max_norm != 1e9)


def test_a_step_whose_gradients_are_not_finite_is_skipped_and_its_schedule_goes_on(
    tmp_path: Path,
) -> None:
    """In the mean loss, a batch whose loss is not finite does not count."""
    data = samples(TRAIN_SIZE, 1)
    data.tensors[0][9] = float("inf")  # in the third batch, the second window
    batches = DataLoader(data, batch_size=BATCH_SIZE)
    training = {"on_nonfinite": "skip", "gradient_accumulation_steps": 2, "max_grad_norm": 0.1}
    run = plain_run(tmp_path, training=training)
    model, reference = net(), net()
    optimizer, reference_optimizer = adam(model), adam(reference)
    schedule = lr_scheduler.LinearLR(optimizer, total_iters=10)
    reference_schedule = lr_scheduler.LinearLR(reference_optimizer, total_iters=10)
    trained = by_trainer(run, model, optimizer, Schedule(schedule, "step"), train=batches)
    total, count = 0.0, 0
    for _ in range(EPOCHS):
        total, count, all_batches = 0.0, 0, list(batches)
        for first in range(0, 11, 2):
            for inputs, targets in (window := all_batches[first : first + 2]):
                loss = functional.cross_entropy(reference(inputs), targets)
                weighed(loss, len(targets), window).backward()
                if loss.isfinite():
                    total, count = total + loss.item() * len(targets), count + len(targets)
            gradients = [p.grad for p in reference.parameters() if p.grad is not None]
            if all(bool(gradient.isfinite().all()) for gradient in gradients):
                clip_grad_norm_(reference.parameters(), 0.1)
                reference_optimizer.step()
            reference_optimizer.zero_grad()
            reference_schedule.step()
    assert_equal(trained.model, reference.state_dict())
    assert_equal(trained.optimizer, reference_optimizer.state_dict())
    assert_equal(schedule.state_dict(), reference_schedule.state_dict())
    assert trained.metrics[-1] == {"train_loss": total / count, **validate(reference)}
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
    model, reference = net(), net()
    run = plain_run(tmp_path, training={**training, "gradient_accumulation_steps": 3})
    trained = by_trainer(run, model, adam(model), fabric=fabric)
    scaler, optimizer, skipped = new_scaler(), adam(reference), 0
    for _ in range(EPOCHS):
        batches = list(train_batches())
        for first in range(0, 11, 3):
            for inputs, targets in (window := batches[first : first + 3]):
                with torch.autocast("cpu", dtype=torch.float16):
                    loss = functional.cross_entropy(reference(inputs), targets)
                scaler.scale(weighed(loss, len(targets), window)).backward()
            if training.get("max_grad_norm"):
                scaler.unscale_(optimizer)
                clip_grad_norm_(reference.parameters(), training["max_grad_norm"])
            before = scaler.get_scale()
            scaler.step(optimizer)
            scaler.update()
            skipped += scaler.get_scale() < before
            optimizer.zero_grad()
    assert_equal(trained.model, reference.state_dict())
    assert_equal(trained.optimizer, optimizer.state_dict())
    assert_equal(result(run)["content"]["scaler"], scaler.state_dict())
    assert 0 < skipped < 12
