"""Learning-rate schedules step as they do in a plain torch loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from torch.optim import lr_scheduler

from mtf.trainer.components.lr_schedulers import Schedule
from tests.trainer.plain_loop.by_hand import (
    EPOCHS,
    adam,
    assert_equal,
    assert_same,
    by_hand,
    by_trainer,
    net,
    plain_run,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_a_scheduler_steps_after_each_step_or_each_epoch(interval: Any, tmp_path: Path) -> None:
    run = plain_run(tmp_path, training={"gradient_accumulation_steps": 3})
    model, reference = net(), net()
    optimizer, reference_optimizer = adam(model), adam(reference)
    schedule = Schedule(lr_scheduler.ExponentialLR(optimizer, 0.8), interval)
    reference_schedule = lr_scheduler.ExponentialLR(reference_optimizer, 0.8)
    hooks: dict[str, Any] = {f"after_{interval}": reference_schedule.step}
    expected = by_hand(reference, reference_optimizer, window=3, **hooks)
    assert_same(by_trainer(run, model, optimizer, schedule), expected)
    assert_equal(schedule.scheduler.state_dict(), reference_schedule.state_dict())
    assert len(set(expected.rates)) == (12 if interval == "step" else EPOCHS)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_plateau_scheduler_follows_the_monitored_metric_in_its_own_mode(
    mode: Any, tmp_path: Path
) -> None:
    run = plain_run(tmp_path)
    model, reference = net(), net()
    optimizer, reference_optimizer = adam(model), adam(reference)
    settings: dict[str, Any] = {"mode": mode, "patience": 0, "factor": 0.5}
    plateau = lr_scheduler.ReduceLROnPlateau(optimizer, **settings)
    reference_schedule = lr_scheduler.ReduceLROnPlateau(reference_optimizer, **settings)
    expected = by_hand(
        reference,
        reference_optimizer,
        after_metrics=lambda m: reference_schedule.step(m["val_loss"]),
    )
    assert_same(by_trainer(run, model, optimizer, plateau), expected)
    assert_equal(plateau.state_dict(), reference_schedule.state_dict())
    losses = [metrics["val_loss"] for metrics in expected.metrics]
    assert losses == sorted(losses, reverse=True)  # it falls: no improvement where more is better
    assert (len(set(expected.rates)) > 1) == (mode == "max")
