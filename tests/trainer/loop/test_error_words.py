"""Errors of torch that a user can do something about are said in one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from mtf.errors import MtfError
from mtf.trainer.loop.error_words import in_words

if TYPE_CHECKING:
    from collections.abc import Callable


class NeedsClosure(torch.optim.SGD):
    """An optimizer of the kind of SAM."""

    def step(self, closure: Any = None) -> Any:
        """Take a step."""
        assert closure is not None, "this optimizer requires a closure"


def uncompilable() -> None:
    torch.compile(lambda x: x + 1, backend="none such")(torch.ones(1))


@pytest.mark.parametrize(
    ("fail", "words"),
    [
        (
            lambda: torch.optim.Adam(sparse_embedding().parameters()).step(),
            "Adam does not support sparse gradients: let configure_optimizers return two",
        ),
        (
            lambda: NeedsClosure(nn.Linear(1, 1).parameters()).step(),
            "the optimizer needs a closure that computes the loss again (this optimizer requires a",
        ),
        (uncompilable, "training.compile: torch cannot compile the model (InvalidBackend: "),
    ],
)
def test_a_known_error_says_what_to_change(fail: Callable[[], Any], words: str) -> None:
    with pytest.raises(Exception) as failed:  # noqa: PT011 -- torch's own, of several kinds
        fail()
    found = in_words(failed.value, nn.Linear(1, 1))
    assert isinstance(found, MtfError)
    assert words in str(found)


def sparse_embedding() -> nn.Module:
    embedding = nn.Embedding(4, 2, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    return embedding


@pytest.mark.parametrize("error", [ValueError("wrong"), MtfError("already in words")])
def test_any_other_error_stays_as_it_is(error: Exception) -> None:
    assert in_words(error, nn.Linear(1, 1)) is None
