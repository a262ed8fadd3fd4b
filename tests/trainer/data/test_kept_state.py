"""A sampler that keeps state from pass to pass resumes exactly; data that does so is named."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, Sampler

from mtf.trainer.data.order import CustomSamplerOrder
from mtf.trainer.data.streams import ReplayedBatches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

SIZE = 12


class InPlace(Sampler[int]):
    """Shuffles its own list again and again."""

    def __init__(self) -> None:
        self.indices = list(range(SIZE))

    def __len__(self) -> int:
        return SIZE

    def __iter__(self) -> Iterator[int]:
        random.shuffle(self.indices)
        return iter(self.indices)


class Weighted(InPlace):
    """Draws less of what it has drawn."""

    def __init__(self) -> None:
        self.weights = torch.ones(SIZE)

    def __iter__(self) -> Iterator[int]:
        drawn = torch.multinomial(self.weights, SIZE, replacement=True)
        self.weights[drawn] /= 2
        return iter(drawn.tolist())


class GoingOn(InPlace):
    """Goes on where the pass before ended."""

    def __init__(self) -> None:
        self.source = itertools.cycle(range(SIZE - 1))

    def __iter__(self) -> Iterator[int]:
        return itertools.islice(self.source, SIZE)


class Nested(InPlace):
    """Keeps its state in a dict, and in another sampler."""

    def __init__(self, inner: Iterable[int]) -> None:
        self.inner = {"first": [inner]}
        self.shift = {"by": np.zeros(1, dtype=int)}

    def __iter__(self) -> Iterator[int]:
        for index in self.inner["first"][0]:
            yield (index + int(self.shift["by"][0])) % SIZE
        self.shift["by"] += 1


@pytest.mark.parametrize(
    "made", [InPlace, Weighted, GoingOn, lambda: Nested(InPlace()), lambda: Nested(range(SIZE))]
)
def test_a_sampler_that_keeps_state_makes_the_same_batches_after_a_resume(
    made: Callable[[], Any],
) -> None:
    def order() -> CustomSamplerOrder:
        return CustomSamplerOrder(BatchSampler(made(), 4, drop_last=False), seed=1)

    def epoch_of(batches: CustomSamplerOrder, epoch: int) -> list[list[int]]:
        return list(batches.begun(epoch, epoch).batches(epoch, 0))

    whole = order()
    epochs = [epoch_of(whole, epoch) for epoch in range(5)]
    assert epochs[0] != epochs[1]
    for epoch in range(5):
        assert epoch_of(order(), epoch) == epochs[epoch]


class Changing(IterableDataset[int]):
    """Shuffles its own list, or a copy."""

    def __init__(self, *, copies: bool) -> None:
        self.files, self.copies = list(range(SIZE)), copies

    def __len__(self) -> int:
        return SIZE

    def __iter__(self) -> Iterator[int]:
        files = list(self.files) if self.copies else self.files
        random.shuffle(files)
        yield from files


@pytest.mark.parametrize(("copies", "workers"), [(False, 0), (True, 0), (False, 1)])
def test_iterable_data_that_changes_itself_is_named_once(
    copies: bool, workers: int, capfd: pytest.CaptureFixture[str]
) -> None:
    loader = DataLoader(Changing(copies=copies), batch_size=4, num_workers=workers)
    batches = ReplayedBatches(loader, 1, "train", 0, is_bounded=False)
    for epoch in range(2):
        assert len(list(batches.batches(epoch, 0))) == 3
    said = capfd.readouterr().err
    is_named = not (copies or workers)  # a data worker begins with the data as it was built
    assert said.count("Changing changes its files while it is read") == is_named
