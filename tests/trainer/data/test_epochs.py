"""Epochs that differ: told to data sets and samplers, and as long as the data makes them."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.utils.data import BatchSampler, ConcatDataset, DataLoader, Dataset, Sampler, Subset

from mtf.errors import MtfError
from mtf.trainer.data.batches import LoadedBatches, Stream, batches_from_loader
from mtf.trainer.data.epochs import num_batches_in, num_steps_in
from mtf.trainer.data.mixing import mixed
from mtf.trainer.data.order import SampleOrder
from tests.trainer.changing_data import Buckets, CountingItself

if TYPE_CHECKING:
    from collections.abc import Iterator


class Told(Dataset[Any]):
    """Gives the epoch that it was told last, and grows with it."""

    def __init__(self, size: int = 12, growth: int = 0) -> None:
        self.size, self.growth = size, growth
        self.epoch = -1
        self.told: list[int] = []

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        self.told.append(epoch)

    def __len__(self) -> int:
        return self.size + self.growth * max(self.epoch, 0)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([self.epoch, index])


def exact(loader: Any, name: str = "train", rank: int = 0, world_size: int = 1) -> Any:
    return batches_from_loader(loader, seed=1, stream=Stream(name, rank), world_size=world_size)


def epochs_in(batches: Any) -> set[int]:
    return {int(epoch) for batch in batches for epoch in batch[:, 0]}


def indices_in(batches: Any) -> list[int]:
    return sorted(int(index) for batch in batches for index in batch[:, 1])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_set_is_told_each_epoch_in_workers_that_outlive_it(workers: int) -> None:
    nested: Any = Subset(ConcatDataset([Told(6), Told(6)]), range(12))
    loader = DataLoader(
        nested, batch_size=4, num_workers=workers, persistent_workers=workers > 0, shuffle=True
    )
    batches = exact(loader)
    assert [epochs_in(batches.batches(epoch, 0)) for epoch in (0, 1, 2)] == [{0}, {1}, {2}]
    assert epochs_in(batches.batches(1, 2)) == {1}, "a resume in the middle of an epoch"


def test_validation_data_is_told_the_epoch_and_draws_the_same_numbers() -> None:
    class Noisy(Told):
        def __getitem__(self, index: int) -> torch.Tensor:
            return torch.tensor([self.epoch, index, torch.rand(())])

    batches = exact(DataLoader(Noisy(), batch_size=4, shuffle=True), "validation")
    first, second = (torch.cat(list(batches.batches(epoch, 0))) for epoch in (0, 1))
    assert torch.equal(first[:, 1:], second[:, 1:])
    assert (epochs_in([first]), epochs_in([second])) == ({0}, {1})


def test_a_data_set_that_grows_is_used_as_a_whole() -> None:
    data = Told(growth=5)
    order = SampleOrder(12, 4, 1, shuffled=True, source=data)
    own = LoadedBatches(data, order, seed=1, stream=Stream("train"))
    for batches in (own, exact(DataLoader(Told(growth=5), batch_size=4, shuffle=True))):
        assert [num_batches_in(batches, epoch) for epoch in (0, 1, 2)] == [3, 5, 6]
        assert indices_in(batches.batches(2, 0)) == [*range(22)]
        assert num_steps_in(batches, 2, 3) == 2 + 3 + 3
    shrinking = exact(DataLoader(Told(growth=-12), batch_size=4))
    with pytest.raises(MtfError, match="epoch 2 of the data has 0 samples, too few for 1 process"):
        shrinking.batches(1, 0)


def test_the_length_of_a_training_is_asked_of_few_epochs_if_data_does_not_grow() -> None:
    data = Told()
    assert num_steps_in(exact(DataLoader(data, batch_size=4)), 1, 100) == 300
    assert len(data.told) < 10


def loader_of(sampler: Any, size: int = 42) -> DataLoader[Any]:
    return DataLoader(Told(size), batch_sampler=sampler)


def test_a_sampler_makes_another_number_of_batches_in_each_epoch() -> None:
    batches = exact(loader_of(Buckets(42)))
    lengths = [batches.num_batches(epoch) for epoch in range(6)]
    assert len(set(lengths)) > 1
    for epoch, length in enumerate(lengths):
        whole = list(batches.batches(epoch, 0))
        assert len(whole) == length
        assert indices_in(whole) == [*range(42)]
    assert num_steps_in(exact(loader_of(Buckets(42))), 2, 6) == sum(-(-n // 2) for n in lengths)


@pytest.mark.parametrize("kind", [Buckets, CountingItself])
def test_a_resume_repeats_the_order_of_a_sampler_with_state_of_its_own(kind: Any) -> None:
    uninterrupted = exact(loader_of(kind(42)))
    epochs = [list(uninterrupted.batches(epoch, 0)) for epoch in range(4)]
    for epoch in (0, 3):
        rest = list(exact(loader_of(kind(42))).batches(epoch, 2))
        assert len(rest) == len(epochs[epoch]) - 2
        assert all(torch.equal(a, b) for a, b in zip(epochs[epoch][2:], rest, strict=True))
    assert len({len(batches) for batches in epochs}) > 1


def test_ranks_have_equally_many_of_the_batches_of_each_epoch() -> None:
    for epoch in range(3):
        ranks = [exact(loader_of(Buckets(42)), rank=rank, world_size=2) for rank in (0, 1)]
        assert num_batches_in(ranks[0], epoch) == num_batches_in(ranks[1], epoch)
        both = chain.from_iterable(batches.batches(epoch, 0) for batches in ranks)
        assert set(indices_in(both)) == set(range(42))


class Inner(Sampler[int]):
    def __init__(self) -> None:
        self.told: list[int] = []

    def set_epoch(self, epoch: int) -> None:
        self.told.append(epoch)

    def __len__(self) -> int:
        return 12

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.told[-1], 12))


def test_a_sampler_inside_a_batch_sampler_is_told_before_it_draws(
    capsys: pytest.CaptureFixture[str],
) -> None:
    inner = Inner()
    batches = exact(loader_of(BatchSampler(inner, 4, drop_last=False), 12))
    assert indices_in(batches.batches(4, 0)) == [*range(4, 12)]
    assert num_batches_in(batches, 4) == 2
    said = capsys.readouterr().err
    assert "the sampler BatchSampler makes 2 batches in epoch 5, and its __len__ says 3" in said


def test_a_sampler_without_an_end_or_a_batch_is_an_error() -> None:
    class Endless(Buckets):
        def __iter__(self) -> Iterator[list[int]]:
            while True:
                yield [0]

    class Empty(Buckets):
        def __iter__(self) -> Iterator[list[int]]:
            return iter([])

    for sampler, many in ((Endless(12), "100.. batches or more"), (Empty(12), "no batch")):
        with pytest.raises(MtfError, match=f"{type(sampler).__name__} makes {many} in epoch 1"):
            exact(loader_of(sampler, 12)).batches(0, 0)


@pytest.mark.parametrize("mode", ["cycle", "shortest", "in_turn"])
def test_a_mix_of_sets_whose_epochs_differ_continues_at_any_batch(mode: Any) -> None:
    def mix() -> Any:
        sets = {
            "buckets": exact(loader_of(Buckets(42)), "train/buckets"),
            "growing": exact(DataLoader(Told(5, growth=4), batch_size=2), "train/growing"),
        }
        return mixed(sets, mode)

    def content(batches: Any) -> list[Any]:
        return [{name: part.tolist() for name, part in batch.items()} for batch in batches]

    batches = mix()
    for epoch in (0, 1, 2):
        length = num_batches_in(batches, epoch)
        whole = content(batches.batches(epoch, 0))
        assert len(whole) == length
        for start in (1, len(whole) - 1):
            assert content(mix().batches(epoch, start)) == whole[start:]
        if mode != "shortest":
            seen = {index for batch in whole for _, index in batch.get("buckets", [])}
            assert seen == set(range(42))
