"""What a training step returns is taken as it is meant, or refused with what to return instead."""

from __future__ import annotations

from collections import UserDict, namedtuple
from typing import Any

import numpy as np
import pytest
import torch

from mtf.errors import MtfError
from mtf.trainer.loop.step_values import loss_of

WEIGHT = torch.nn.Parameter(torch.ones(()))
LOSS = WEIGHT * 6.0
Output = namedtuple("Output", "loss logits")


def test_a_tensor_is_the_mean_loss() -> None:
    for shape in ((), (1,), (1, 1)):
        found = loss_of(LOSS.reshape(shape), "Net.training_step")
        assert (found.mean.item(), found.total, found.own_count) == (6.0, None, None)
        assert found.weight(4) == 4


@pytest.mark.parametrize("count", [3, 3.0, torch.tensor(3), torch.tensor([3.0]), np.int64(3)])
def test_a_pair_is_a_sum_and_its_count(count: Any) -> None:
    for returned in ((LOSS, count), {"loss": (LOSS, count)}):
        found = loss_of(returned, "Net.training_step")
        assert found.mean.item() == 2.0
        assert found.total is LOSS
        assert found.weight(100) == 3.0


@pytest.mark.parametrize("kind", [dict, UserDict])
def test_values_of_each_kind_stand_beside_the_loss(kind: Any) -> None:
    values = {
        "loss": LOSS,
        "a": 0.5,
        "train_b": torch.tensor([2.0], requires_grad=True),
        "c": np.float32(1.5),
        "right": (torch.tensor(3), 4),
        "done": True,
    }
    found = loss_of(kind(values), "Net.training_step")
    assert list(found.pairs_of_others(8)) == [
        ("train_a", 4.0, 8),
        ("train_b", 16.0, 8),
        ("train_c", 12.0, 8),
        ("train_right", 3.0, 4.0),
        ("train_done", 8.0, 8),
    ]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "returns NoneType: return the loss, a tensor, or a pair"),
        (3.0, "returns float: return the loss"),
        ([LOSS], "returns list: return the loss"),
        (torch.zeros(3, requires_grad=True), "a tensor of shape [3]: return one number"),
        (torch.zeros(()), "a loss that depends on no parameter: remove what cuts its graph"),
        ((torch.zeros(()), 3), "a loss that depends on no parameter"),
        ((LOSS, LOSS), "a pair whose second value is not a count"),
        ((LOSS, torch.zeros(4, 3)), "a pair whose second value is not a count"),
        ((LOSS, -1), "a pair whose second value is not a count"),
        ((LOSS, float("nan")), "a pair whose second value is not a count"),
        ((LOSS, "many"), "a pair whose second value is not a count"),
        ((LOSS, None), "a pair whose second value is not a count"),
        ((LOSS, 1, 2), "returns tuple: return the loss"),
        (Output(LOSS, torch.zeros(4, 3)), "returns Output: return the loss"),
        ({}, "a dict without the key 'loss', but with none"),
        ({"class_loss": LOSS, "b": 1}, "a dict without the key 'loss', but with class_loss, b"),
        ({"loss": 3.0}, "returns float: return the loss"),
        ({"loss": LOSS, "logits": torch.zeros(4, 3)}, "'logits': expected a number, such as a"),
        ({"loss": LOSS, "name": "a"}, "'name': expected a number, such as a mean, or a pair"),
        ({"loss": LOSS, "a": None}, "got NoneType None"),
        ({"loss": LOSS, "a": [1.0]}, "got list [1.0]"),
        ({"loss": LOSS, "a": (1.0, -2)}, "'a': a pair whose second value is not a count"),
        ({"loss": LOSS, "train_loss": 1.0}, "two values for the metric train_loss: rename"),
        ({"loss": LOSS, "a": 1.0, "train_a": 1.0}, "two values for the metric train_a: rename"),
    ],
)
def test_anything_else_is_refused_with_what_to_return(returned: Any, message: str) -> None:
    with pytest.raises(MtfError) as raised:
        loss_of(returned, "Net.training_step")
    assert str(raised.value).startswith("Net.training_step returns ")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_loss_needs_no_graph_in_validation() -> None:
    assert loss_of(torch.tensor(2.0), "Net.training_step", trains=False).mean == 2.0
