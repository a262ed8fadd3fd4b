"""Dropout draws, and BatchNorm updates its means, in training alone: as in a plain loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from mtf.trainer.compute.rng import seed_all, seed_at
from mtf.trainer.job.run_job import read_config
from tests.trainer.plain_loop.by_hand import adam, assert_same, by_hand, by_trainer, plain_run

if TYPE_CHECKING:
    from pathlib import Path


def noisy_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.4), nn.Tanh(), nn.Linear(8, 3)
    )


@pytest.mark.parametrize("window", [1, 3])
def test_dropout_and_running_means_are_those_of_a_plain_loop(window: int, tmp_path: Path) -> None:
    run = plain_run(tmp_path, training={"gradient_accumulation_steps": window})
    model, reference = noisy_net(), noisy_net()
    seed_all(seed_at("train", read_config(run).training.seed, 0))
    expected = by_hand(reference, adam(reference), window=window)
    assert_same(by_trainer(run, model, adam(model)), expected)
    assert int(expected.model["1.num_batches_tracked"]) == 33
