"""Averaged weights, early stopping, the best checkpoint and a warm start equal those of a plain loop."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch

from tests.trainer.hard_training import result
from tests.trainer.plain_loop.by_hand import (
    EPOCHS,
    PLAIN,
    adam,
    assert_equal,
    assert_same,
    by_hand,
    by_trainer,
    net,
    plain_run,
)
from tests.trainer.resume.test_warm_start import begin
from tests.trainer.runs import config_with

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("every", [1, 2])
def test_the_average_of_weights_is_updated_after_steps_and_validated(
    every: int, tmp_path: Path
) -> None:
    model, reference = net(), net()
    average, steps = copy.deepcopy(reference), 0

    def update() -> None:
        nonlocal steps
        steps += 1
        if steps % every == 0:
            with torch.no_grad():
                for kept, weight in zip(average.parameters(), reference.parameters(), strict=True):
                    kept.lerp_(weight, 1 - 0.9)

    run = plain_run(tmp_path, callbacks={"ema": {"decay": 0.9, "every_n_steps": every}})
    expected = by_hand(reference, adam(reference), after_step=update, validated=average)
    assert_same(by_trainer(run, model, adam(model)), expected)
    assert_equal(result(run)["content"]["callbacks"]["ema"]["average"], average.state_dict())


def test_early_stopping_ends_after_the_epochs_of_its_patience(tmp_path: Path) -> None:
    stopping = {"monitor": "val_loss", "mode": "max", "patience": 2}  # it falls: no improvement
    run = plain_run(
        tmp_path, callbacks={"early_stopping": stopping}, training={"max_epochs": EPOCHS + 5}
    )
    model, reference = net(), net()
    assert_same(by_trainer(run, model, adam(model)), by_hand(reference, adam(reference)))


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_best_checkpoint_holds_the_weights_of_the_best_epoch(mode: str, tmp_path: Path) -> None:
    run = plain_run(
        tmp_path, checkpoint={"monitor": "val_loss", "mode": mode, "keep_best": 1, "keep_last": 1}
    )
    model, reference = net(), net()
    weights: list[tuple[float, Any]] = []

    def keep(metrics: dict[str, float]) -> None:
        weights.append((metrics["val_loss"], copy.deepcopy(reference.state_dict())))

    by_hand(reference, adam(reference), after_metrics=keep)
    by_trainer(run, model, adam(model))
    best = (min if mode == "min" else max)(weights, key=lambda kept: kept[0])
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert_equal(content["model"], best[1])


def test_a_warm_start_trains_on_from_the_weights_of_another_run(tmp_path: Path) -> None:
    source = plain_run(tmp_path)
    first, reference = net(), net()
    by_trainer(source, first, adam(first))
    by_hand(reference, adam(reference))
    changes = config_with(PLAIN, {"training": {"gradient_accumulation_steps": 1}})
    run = begin(tmp_path, source, {}, **changes)
    model = net(seed=7)
    assert_same(by_trainer(run, model, adam(model)), by_hand(reference, adam(reference)))
