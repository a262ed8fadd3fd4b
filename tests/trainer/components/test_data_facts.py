"""A model learns the shape of an input and the number of classes from the data, where it is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.utils.data import (
    ChainDataset,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
)

from mtf.trainer.components.data_facts import facts_of
from mtf.trainer.data.datasets import Classified

if TYPE_CHECKING:
    from collections.abc import Iterator

TEN, THREE = (Classified(torch.ones(4, 6), torch.zeros(4).long(), n) for n in (10, 3))
FACTS = {"input_shape": (6,), "num_classes": 10}


class Folder(Dataset[Any]):
    """Has classes as those of torchvision, and images that are no tensors."""

    classes = ("cat", "dog")

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Any:
        return object(), index


class Cropped(Subset[Any]):
    """Makes other inputs of those of the whole."""

    def __getitem__(self, index: Any) -> Any:
        inputs, target = self.dataset[self.indices[index]]
        return inputs[:2], target

    def __getitems__(self, indices: list[int]) -> Any:
        return [self[index] for index in indices]


class Stream(IterableDataset[Any]):
    input_shape, num_classes = (6,), 10

    def __iter__(self) -> Iterator[Any]:
        return iter(())


@pytest.mark.parametrize(
    ("data", "facts"),
    [
        (TEN, FACTS),
        (Subset(TEN, [1, 3]), FACTS),
        (ConcatDataset([Subset(TEN, [1]), TEN]), FACTS),
        (DataLoader(Subset(Subset(TEN, [1, 3]), [0])), FACTS),
        (ChainDataset([Stream(), Stream()]), FACTS),
        (ConcatDataset([TEN, THREE]), {"input_shape": (6,)}),  # which of them is open
        (Cropped(TEN, [0]), {"input_shape": (2,), "num_classes": 10}),
        (Subset(Folder(), [0]), {"num_classes": 2}),
        (TensorDataset(torch.ones(2, 3)), {"input_shape": (3,)}),
    ],
)
def test_facts_of_data_are_those_of_what_is_in_it(data: Any, facts: dict[str, Any]) -> None:
    assert facts_of(data) == facts
