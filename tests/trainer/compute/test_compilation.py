"""Compiling changes no name in a module's state, and copies of the module compile their own steps."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from mtf.trainer.compute.compilation import compile_in_place, in_place


class Stepping(nn.Linear):
    """A model with a step of its own."""

    def training_step(self, batch: Any) -> torch.Tensor:
        """Return the loss."""
        return self(batch).mean()


def test_a_model_that_torch_has_compiled_keeps_its_plain_names() -> None:
    model = nn.Linear(2, 2)
    wrapped: Any = torch.compile(model)
    assert next(iter(wrapped.state_dict())).startswith("_orig_mod.")
    assert in_place(wrapped) is model
    assert list(model.state_dict()) == ["weight", "bias"]
    assert in_place(model) is model


def test_the_step_of_a_copy_is_that_of_the_copy() -> None:
    model = Stepping(2, 2)
    compile_in_place(model)
    compile_in_place(model)
    copied = copy.deepcopy(model)
    steps: list[Any] = [vars(each)["training_step"] for each in (model, copied)]
    assert [step.__wrapped__.__self__ for step in steps] == [model, copied]
