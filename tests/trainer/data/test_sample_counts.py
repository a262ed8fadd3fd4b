"""The number of samples in a batch is known from the data, or told by a rule that never guesses."""

from __future__ import annotations

import dataclasses
from collections import UserDict, namedtuple
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import zeros
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from mtf.trainer.data.batches import Stream, batches_from_loader
from mtf.trainer.data.epochs import open_epoch
from mtf.trainer.data.mixing import mixed
from mtf.trainer.data.sample_counts import count_samples, known_samples

if TYPE_CHECKING:
    from collections.abc import Iterator

Pair = namedtuple("Pair", "x y")


@dataclasses.dataclass
class Fields:
    x: Any
    y: Any = None


def images(*sizes: int) -> list[torch.Tensor]:
    return [zeros(3, size, size) for size in sizes]


CONTAINS_ITSELF: list[Any] = ["a"]
CONTAINS_ITSELF.append(CONTAINS_ITSELF)
PACKED = pack_sequence([zeros(5, 2), zeros(3, 2), zeros(1, 2)])
EDGES = zeros(2, 9).long()
BOXES = tuple({"boxes": zeros(n, 4), "labels": zeros(n)} for n in (1, 2, 0, 5))

KNOWN: dict[str, tuple[int, Any]] = {
    "tensors": (8, (zeros(8, 6), zeros(8))),
    "tensors of one type": (8, (zeros(8, 6), zeros(8, 1))),
    "a list of fields": (8, [zeros(8, 6), zeros(8).long()]),
    "array": (8, {"x": np.zeros((8, 2)), "scale": np.float32(3)}),
    "strings beside tensors": (3, {"id": ["a", "b", "c"], "x": zeros(3, 6)}),
    "strings alone": (3, ["aa", "b", "c"]),
    "a dict of lists": (2, {"texts": ["a", "b"], "labels": [0, 1]}),
    "nested": (4, {"a": {"b": [zeros(4, 2), zeros(4)]}, "c": (zeros(4, 1), zeros(4, 2))}),
    "None, numbers, text": (4, {"x": zeros(4, 2), "n": None, "step": 7, "name": "train"}),
    "a tensor without a dimension": (4, (zeros(4, 2), zeros(()))),
    "images of one size": (5, images(8, 8, 8, 8, 8)),
    "images and labels": (5, (images(4, 5, 6, 7, 8), zeros(5))),
    "detection": (4, (tuple(images(4, 5, 6, 7)), BOXES)),
    "a list of samples": (2, [{"image": zeros(3, 8, 8), "boxes": zeros(2, 4)} for _ in "ab"]),
    "sequences": (8, {"tokens": [zeros(n + 1) for n in range(8)], "y": zeros(8)}),
    "tokens of texts, padded": (2, UserDict(ids=[[1, 2, 3], [4, 5, 6]], mask=[[1, 1, 1]] * 2)),
    "tokens of texts, ragged": (2, {"ids": [[1, 2, 3], [4]]}),
    "packed": (3, (PACKED, zeros(3))),
    "graphs": (4, SimpleNamespace(edge_index=EDGES, x=zeros(5, 3), num_graphs=4)),
    "graphs by their starts": (2, {"edge_index": EDGES, "ptr": torch.tensor([0, 3, 5])}),
    "dataclass": (6, Fields(zeros(6, 2))),
    "named tuple": (6, Pair(zeros(6, 2), ["a"] * 6)),
    "two views of a batch": (8, ({"tokens": zeros(8, 4)}, {"tokens": zeros(8, 5)})),
    "one sample": (1, {"x": 0.5, "y": zeros(()), "name": "a"}),
    "number": (1, 3.0),
    "text": (1, "abc"),
    "nothing": (0, []),
    "beside an object": (8, {"x": zeros(8, 2), "tokenizer": object()}),
}
UNKNOWN: dict[str, Any] = {
    "object": object(),
    "None": None,
    "contains itself": CONTAINS_ITSELF,
    "a graph": {"edge_index": EDGES},
    "a graph as a tuple": (EDGES, zeros(5, 3), zeros(4)),
    "fields that disagree": {"x": zeros(8, 3), "class_weights": zeros(10)},
    "samples or fields": [zeros(8, 6), zeros(8, 1)],
}


@pytest.mark.parametrize(("number", "batch"), KNOWN.values(), ids=KNOWN)
def test_the_shape_of_a_batch_tells_its_number_of_samples(number: int, batch: Any) -> None:
    assert count_samples(batch) == number


@pytest.mark.parametrize("batch", UNKNOWN.values(), ids=UNKNOWN)
def test_a_batch_that_does_not_tell_its_number_of_samples_is_unknown(batch: Any) -> None:
    assert count_samples(batch) is None


# -- counts from the data --------------------------------------------------------------------------


class Texts(Dataset[str]):
    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> str:
        return "word " * index


class WholeBatches(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return zeros(index + 2, 6), zeros(index + 2, 1)


class Stream10(IterableDataset[str]):
    def __len__(self) -> int:
        return 10

    def __iter__(self) -> Iterator[str]:
        return iter(map(str, range(10)))


class StreamOfBatches(IterableDataset[Any]):
    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return iter(WholeBatches()[i] for i in range(3))


def joined(texts: list[str]) -> str:
    return "".join(texts)


LOADERS: dict[str, tuple[list[int], DataLoader[Any]]] = {
    "map-style": ([4, 4, 2], DataLoader(Texts(), 4, collate_fn=joined)),
    "with workers": ([4, 4, 2], DataLoader(Texts(), 4, collate_fn=joined, num_workers=1)),
    "tensors": ([4, 4, 2], DataLoader(TensorDataset(zeros(10, 2)), 4)),
    "without the last": ([4, 4], DataLoader(Texts(), 4, collate_fn=joined, drop_last=True)),
    "batch sampler": ([1, 3], DataLoader(Texts(), batch_sampler=[[1], [2, 4, 5]])),
    "items are batches": ([2, 3, 4], DataLoader(WholeBatches(), batch_size=None)),
    "iterable": ([4, 4, 2], DataLoader(Stream10(), 4, collate_fn=joined)),
    "iterable, a worker": ([4, 4, 2], DataLoader(Stream10(), 4, collate_fn=joined, num_workers=1)),
    "iterable of batches": ([2, 3, 4], DataLoader(StreamOfBatches(), batch_size=None)),
}


@pytest.mark.parametrize(("numbers", "loader"), LOADERS.values(), ids=LOADERS)
def test_a_loader_knows_its_numbers_whatever_its_batches_are(
    numbers: list[int], loader: DataLoader[Any]
) -> None:
    batches = batches_from_loader(loader, seed=0, stream=Stream("train"), world_size=1)
    for start in (0, 1):
        found = [
            known_samples(batches, 1, number) or count_samples(content)
            for number, content in enumerate(open_epoch(batches, 1, start), start)
        ]
        assert found == numbers[start:]


@pytest.mark.parametrize(
    ("mode", "numbers"), [("cycle", [6, 3, 5]), ("shortest", [6]), ("in_turn", [4, 2, 1, 3])]
)
def test_a_batch_of_several_sets_has_the_samples_of_all(mode: Any, numbers: list[int]) -> None:
    loaders = {
        "many": DataLoader(Texts(), batch_sampler=[[0, 1, 2, 3], [4], [5, 6, 7]]),
        "few": DataLoader(TensorDataset(zeros(2, 2)), 2),
    }
    sets = {
        name: batches_from_loader(loader, seed=0, stream=Stream(name), world_size=1)
        for name, loader in loaders.items()
    }
    both = mixed(sets, mode)
    assert [known_samples(both, 0, batch) for batch in range(len(both))] == numbers


def test_a_sampler_is_asked_once_an_epoch() -> None:
    asked = []

    class Sampler:
        def __len__(self) -> int:
            return 2

        def __iter__(self) -> Iterator[list[int]]:
            asked.append(1)
            return iter([[1, 2, 3], [4]])

    loader: DataLoader[Any] = DataLoader(Texts(), batch_sampler=Sampler())
    batches = batches_from_loader(loader, seed=0, stream=Stream("train"), world_size=1)
    for epoch in range(2):
        assert [known_samples(batches, epoch, batch) for batch in range(2)] == [3, 1]
        assert len(list(open_epoch(batches, epoch, 0))) == 2
    assert len(asked) == 2
