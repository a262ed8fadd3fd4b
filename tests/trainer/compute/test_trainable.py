"""Models and optimizers that cannot be trained are refused before anything is moved or wrapped."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import nn

from mtf.errors import MtfError
from mtf.spec.schema.sections import TrainingConfig
from mtf.trainer.compute.structure import copy_of
from mtf.trainer.compute.trainable import refuse_untrainable, takes_closure


def sgd(module: nn.Module) -> dict[str, torch.optim.Optimizer]:
    return {"optimizer": torch.optim.SGD(module.parameters(), lr=0.1)}


def test_a_model_on_the_meta_device_is_refused_with_the_names() -> None:
    net = nn.Linear(6, 3, device="meta")
    with pytest.raises(MtfError, match="weight, bias of the model are on the device meta"):
        refuse_untrainable(net, sgd(net))


def test_a_model_without_parameters_is_refused() -> None:
    with pytest.raises(MtfError, match="Identity has no parameters to train"):
        refuse_untrainable(nn.Identity(), {})


def test_an_optimizer_of_other_parameters_is_refused() -> None:
    """Such as one made before a parametrization, or of a loss with parameters of its own."""
    net = nn.Linear(6, 3)
    optimizers = sgd(net)
    nn.utils.parametrizations.spectral_norm(net)
    refuse_untrainable(net, optimizers)  # torch keeps the parameter itself
    net.bias = nn.Parameter(torch.zeros(3))
    with pytest.raises(MtfError, match="1 of 2 parameters of optimizer are not the model's"):
        refuse_untrainable(net, optimizers)


class Twice(torch.optim.SGD):
    """An optimizer that computes the loss twice."""

    step: Any


def _step(self: Any, closure: Any) -> Any:
    closure()
    return torch.optim.SGD.step(self, closure)


Twice.step = _step


def test_lbfgs_is_the_only_optimizer_that_gets_a_closure() -> None:
    net, section = nn.Linear(6, 3), TrainingConfig()
    lbfgs: dict[str, torch.optim.Optimizer] = {"o": torch.optim.LBFGS(net.parameters())}
    assert takes_closure(lbfgs, section, is_plain=True)
    assert not takes_closure(sgd(net), section, is_plain=False)
    compiled: Any = torch.optim.SGD(net.parameters(), lr=0.1)
    compiled.step = max  # like a function of C, it has no signature that Python could read
    assert not takes_closure({"o": compiled}, section, is_plain=False)
    with pytest.raises(MtfError, match=r"Twice.step needs a closure: .* only torch's LBFGS"):
        takes_closure({"o": Twice(net.parameters(), lr=0.1)}, section, is_plain=True)


@pytest.mark.parametrize(
    ("keys", "is_plain", "needed"),
    [
        ({}, False, "needs a single process in full precision (training.use_amp: false)"),
        ({"gradient_accumulation_steps": 2}, True, "training.gradient_accumulation_steps: 1"),
        ({"on_nonfinite": "skip"}, True, "needs training.on_nonfinite: null"),
    ],
)
def test_lbfgs_says_what_it_needs(keys: dict[str, Any], is_plain: bool, needed: str) -> None:
    lbfgs = {"o": torch.optim.LBFGS(nn.Linear(6, 3).parameters())}
    with pytest.raises(MtfError) as refused:
        takes_closure(lbfgs, TrainingConfig(**keys), is_plain=is_plain)
    assert needed in str(refused.value)


@pytest.mark.filterwarnings("ignore:.*weight_norm")
def test_a_model_that_cannot_be_copied_for_an_average_is_refused() -> None:
    with_lock = nn.Linear(2, 2)
    vars(with_lock)["lock"] = threading.Lock()
    normed = nn.utils.weight_norm(nn.Linear(2, 2))
    for module in (with_lock, normed):
        with pytest.raises(MtfError, match=r"^callbacks.ema: Linear cannot be copied \(.*\): keep"):
            copy_of(module)
