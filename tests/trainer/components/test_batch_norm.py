"""A last batch of one sample is refused before the first step where BatchNorm cannot train on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from mtf.errors import MtfError
from tests.trainer.plain_loop.by_hand import adam, by_trainer, plain_run, samples

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def normalised(norm: nn.Module, *before: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*before, norm, nn.Flatten(), nn.Linear(6, 3))


@pytest.mark.parametrize(
    "model",
    [
        lambda: normalised(nn.BatchNorm1d(6)),
        lambda: normalised(nn.BatchNorm2d(6), nn.Unflatten(1, (6, 1, 1))),
    ],
)
def test_a_last_batch_of_one_sample_is_refused_before_the_first_step(
    model: Callable[[], nn.Module], tmp_path: Path
) -> None:
    net, run = model(), plain_run(tmp_path)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    data = DataLoader(samples(9, 1), batch_size=4)
    with pytest.raises(
        MtfError, match=r"the last batch of an epoch has one sample, .* \([01] gets"
    ):
        by_trainer(run, net, adam(net), train=data)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize(
    ("model", "size"),
    [
        (lambda: normalised(nn.BatchNorm1d(2), nn.Unflatten(1, (2, 3))), 9),  # 3 values of a sample
        (lambda: normalised(nn.GroupNorm(2, 6)), 9),
        (lambda: normalised(nn.BatchNorm1d(6)).eval(), 9),
        (lambda: normalised(nn.BatchNorm1d(6)), 10),
    ],
)
def test_what_trains_on_one_sample_is_not_refused(
    model: Callable[[], nn.Module], size: int, tmp_path: Path
) -> None:
    net: Any = model()
    run = plain_run(tmp_path, training={"max_epochs": 1})
    trained = by_trainer(run, net, adam(net), train=DataLoader(samples(size, 1), batch_size=4))
    assert len(trained.metrics) == 1
    assert not any(module._forward_pre_hooks for module in net.modules())
