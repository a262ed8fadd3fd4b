"""Errors of torch that a user can do something about are said in one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, default_collate

from mtf.errors import MtfError
from mtf.trainer.loop.error_words import in_words

if TYPE_CHECKING:
    from collections.abc import Callable


class NeedsClosure(torch.optim.SGD):
    """An optimizer of the kind of SAM."""

    def step(self, closure: Any = None) -> Any:
        """Take a step."""
        assert closure is not None, "this optimizer requires a closure"


KEPT = torch.ones(2, requires_grad=True).exp()


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
        (
            lambda: nn.BatchNorm1d(3)(torch.ones(1, 3)),
            "BatchNorm cannot train on a batch of one sample: choose a training.batch_size",
        ),
        (
            lambda: nn.Linear(2, 1)(torch.ones(3, 2).double()),
            "the model's layers compute in Float and get Double: return such values from the data",
        ),
        (
            lambda: nn.Conv2d(1, 1, 1)(torch.ones(1, 1, 2, 2, dtype=torch.uint8)),
            "the model's layers compute in float and get unsigned char: return such values",
        ),
        (
            lambda: nn.Conv2d(3, 4, 1)(torch.ones(2, 1, 8, 8)),
            "a convolution takes 3 channels and gets 1 (inputs [2, 1, 8, 8]): build the model for",
        ),
        (
            lambda: nn.Linear(16, 4)(torch.ones(3, 17)),
            "a layer takes 16 features and gets 17: build the model for them",
        ),
        (
            lambda: nn.Embedding(3, 2)(torch.tensor([3])),
            "an embedding gets an index that is not in its table: raise its num_embeddings",
        ),
        (lambda: nn.Module()(1), "Module has no forward: define forward(inputs), which returns"),
        (
            lambda: [graph().backward() for graph in [KEPT.sum] * 2],
            "the loss depends on what an earlier batch has computed: detach what the model keeps",
        ),
        (
            lambda: default_collate([torch.ones(3), torch.ones(4)]),
            "samples cannot be made a batch (stack expects each tensor to be equal size, but got",
        ),
        (
            lambda: default_collate([(torch.ones(2), 1), None]),
            "or give it a collate_fn",
        ),
        (
            lambda: next(iter(DataLoader([1, None], batch_size=2, num_workers=1))),  # type: ignore[arg-type]
            "samples cannot be made a batch (RuntimeError: Could not infer dtype of NoneType): let",
        ),
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
