"""Learning-rate schedules step as they do in a plain torch loop."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn import functional
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
    train_batches,
)

if TYPE_CHECKING:
    from pathlib import Path

    from torch.optim import Optimizer


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


@pytest.mark.parametrize("in_turns", [True, False])
def test_each_of_several_optimizers_follows_its_own_schedule(
    in_turns: bool, tmp_path: Path
) -> None:
    """In turns, a schedule steps after the steps of its own optimizer only."""

    class Together(nn.Sequential):
        def training_step(self, batch: Any) -> torch.Tensor:
            return functional.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch: Any) -> dict[str, Any]:
            return {"loss": functional.cross_entropy(self(batch[0]), batch[1])}

    class InTurns(Together):
        def training_step(self, batch: Any, optimizer: str) -> torch.Tensor:  # type: ignore[override]
            del optimizer
            return super().training_step(batch)

    def both(model: nn.Sequential) -> dict[str, Optimizer]:
        return {name: adam(part) for name, part in (("first", model[0]), ("last", model[2]))}

    def schedules(optimizers: dict[str, Optimizer]) -> dict[str, Any]:
        factors = {"first": 0.9, "last": 0.8}
        return {n: lr_scheduler.ExponentialLR(o, factors[n]) for n, o in optimizers.items()}

    run = plain_run(tmp_path)
    model, reference = (InTurns if in_turns else Together)(*net()), net()
    ours, theirs = both(model), both(reference)
    our_schedules, their_schedules = schedules(ours), schedules(theirs)
    stepped = {name: Schedule(schedule, "step") for name, schedule in our_schedules.items()}
    trained = by_trainer(run, model, ours, stepped)
    rates, step = [], 0
    for _ in range(EPOCHS):
        for inputs, targets in train_batches():
            functional.cross_entropy(reference(inputs), targets).backward()
            for name in [["first", "last"][step % 2]] if in_turns else ["first", "last"]:
                theirs[name].step()
                their_schedules[name].step()
            reference.zero_grad()
            step += 1
            rates.append({f"lr/{name}": o.param_groups[0]["lr"] for name, o in theirs.items()})
    assert_equal(trained.model, reference.state_dict())
    assert_equal(trained.optimizer, {name: part.state_dict() for name, part in theirs.items()})
    rows = map(json.loads, (run / "scalars.jsonl").read_text().splitlines())
    logged = [{key: row[key] for key in row if key.startswith("lr/")} for row in rows]
    assert [row for row in logged if row] == rates
    assert len({json.dumps(rate) for rate in rates}) == len(rates)
