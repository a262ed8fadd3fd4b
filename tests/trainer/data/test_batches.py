"""Batches depend on seed, epoch and batch alone, not on workers, resumes or other generators."""

from __future__ import annotations

import os
import random
import signal
from itertools import chain
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)

from mtf.errors import MtfError
from mtf.trainer.data.batches import Stream, batches_from_loader, tensors_of
from tests.trainer.hard_training import Augmented

if TYPE_CHECKING:
    from collections.abc import Iterator

TRAIN = Stream("train")


def batches(loader: DataLoader[Any], epoch: int = 0, start: int = 0) -> list[Any]:
    exact = batches_from_loader(loader, seed=1, stream=TRAIN, world_size=1)
    return list(exact.batches(epoch, start))


def are_equal(left: list[Any], right: list[Any]) -> bool:
    pairs = zip(left, right, strict=True)
    return all(torch.equal(a, b) for x, y in pairs for a, b in zip(x, y, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_augmentation_depends_on_epoch_and_batch_alone(workers: int) -> None:
    alone = DataLoader(Augmented("train"), batch_size=4, shuffle=True)
    other = DataLoader(Augmented("train"), batch_size=4, shuffle=True, num_workers=workers)
    whole = batches(alone, epoch=1)
    assert are_equal(batches(other, epoch=1), whole)
    assert are_equal(batches(other, epoch=1, start=7), whole[7:])
    assert not are_equal(batches(alone, epoch=2)[:1], whole[:1])


@pytest.mark.parametrize("workers", [0, 1])
def test_opening_a_loader_draws_no_random_number(workers: int) -> None:
    loader = DataLoader(Augmented("train"), batch_size=4, num_workers=workers)
    before = torch.get_rng_state()
    batches(loader)
    assert torch.equal(torch.get_rng_state(), before)


class Endless(IterableDataset[torch.Tensor]):
    """Non-seekable data with a length, which draws random numbers."""

    def __len__(self) -> int:
        return 6

    def __iter__(self) -> Iterator[torch.Tensor]:
        for number in range(6):
            yield torch.rand(1) + number


def test_iterable_data_resumes_by_replaying_earlier_batches() -> None:
    loader = DataLoader(Endless(), batch_size=2)
    whole = batches(loader, epoch=1)
    assert len(whole) == 3
    assert are_equal([[b] for b in batches(loader, epoch=1, start=2)], [[b] for b in whole[2:]])


def test_a_custom_sampler_repeats_its_order_in_each_epoch() -> None:
    data = TensorDataset(torch.arange(20))
    generator = torch.Generator()
    for sampler in (
        WeightedRandomSampler(torch.ones(20).tolist(), 12),
        WeightedRandomSampler(torch.ones(20).tolist(), 12, generator=generator),
    ):
        loader = DataLoader(data, batch_size=4, sampler=sampler)
        whole = batches(loader, epoch=3)
        assert are_equal(batches(loader, epoch=3, start=1), whole[1:])
        assert not are_equal(batches(loader, epoch=4), whole)


def test_tensors_are_used_directly_only_where_the_data_set_draws_nothing() -> None:
    class Noisy(TensorDataset):
        def __getitem__(self, index: int) -> Any:
            item = super().__getitem__(index)  # type: ignore[no-untyped-call]
            return tuple(t + torch.rand(1) for t in item)

    plain = TensorDataset(torch.arange(6))
    tensors = tensors_of(Subset(plain, [4, 1]))
    assert tensors is not None
    assert tensors[0].tolist() == [4, 1]
    assert tensors_of(Noisy(torch.arange(6))) is None


def mixed(samples: Any) -> Any:
    inputs, targets = default_collate(samples)
    return inputs * torch.rand(1) + random.random(), targets


@pytest.mark.parametrize(
    "data", [Augmented("train"), TensorDataset(torch.ones(42, 6), torch.ones(42))]
)
def test_random_numbers_of_a_collate_function_depend_on_epoch_and_batch_alone(data: Any) -> None:
    """Mixing samples is the usual case."""
    whole, other = (
        batches(DataLoader(data, batch_size=4, collate_fn=mixed, num_workers=n)) for n in (0, 1)
    )
    assert are_equal(whole, other)
    assert not torch.equal(whole[0][0][0], whole[1][0][0])


def test_a_loader_without_batching_skips_to_a_batch() -> None:
    loaded = []

    class Ready(Dataset[torch.Tensor]):
        def __len__(self) -> int:
            return 9

        def __getitem__(self, index: Any) -> torch.Tensor:
            loaded.append(index)
            return torch.as_tensor([index, random.random()])

    whole = batches(DataLoader(Ready(), batch_size=None, shuffle=True))
    assert sorted(int(batch[0]) for batch in whole) == list(range(9))
    loaded.clear()
    rest = batches(DataLoader(Ready(), batch_size=None, shuffle=True), start=7)
    assert torch.equal(torch.stack(rest), torch.stack(whole[7:]))
    assert len(loaded) == 2, "the earlier batches are not made again"


def test_workers_of_iterable_data_start_each_epoch_from_its_seed() -> None:
    def exact() -> Any:
        loader = DataLoader(Endless(), batch_size=2, num_workers=1, persistent_workers=True)
        return batches_from_loader(loader, seed=1, stream=TRAIN, world_size=1)

    one = exact()
    *_, second = (list(one.batches(epoch, 0)) for epoch in (0, 1))
    assert torch.equal(torch.stack(list(exact().batches(1, 0))), torch.stack(second))


def test_ranks_take_the_batches_of_a_custom_sampler_in_turn() -> None:
    loader = DataLoader(TensorDataset(torch.arange(21)), batch_size=3, sampler=[*range(21)])
    for name, numbers in (("train", 8), ("validation", 7)):
        by_rank = [
            list(
                batches_from_loader(
                    loader, seed=1, stream=Stream(name, rank), world_size=2
                ).batches(0, 0)
            )
            for rank in (0, 1)
        ]
        assert len(by_rank[0]) + len(by_rank[1]) == numbers
        firsts = sorted(int(batch[0][0]) for batch in chain(*by_rank))
        assert sorted({*firsts}) == list(range(0, 21, 3))
    own: Any = DistributedSampler(
        TensorDataset(torch.arange(21)), num_replicas=2, rank=1, shuffle=False
    )
    exact = batches_from_loader(
        DataLoader(TensorDataset(torch.arange(21)), batch_size=11, sampler=own),
        seed=1,
        stream=Stream("train", 1),
        world_size=2,
    )
    assert [batch[0].tolist() for batch in exact.batches(0, 0)] == [[*range(1, 21, 2), 0]]


class Unsized(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        yield 1


def test_an_error_says_why_a_loader_cannot_be_trained_on() -> None:
    for wrong, message in (
        (DataLoader(Unsized()), "the loader has no length"),
        (DataLoader(TensorDataset(torch.zeros(0))), "the loader has no batch"),
        ([1, 2], "a list is not a torch DataLoader"),
    ):
        with pytest.raises(MtfError, match=message):
            batches_from_loader(wrong, seed=1, stream=TRAIN, world_size=1)


class Pids(Dataset[int]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> int:
        return os.getpid()


def test_workers_outlive_the_signals_that_stop_a_training() -> None:
    """SLURM sends TERM to every process of a step; a dead worker would fail the training."""
    exact = batches_from_loader(
        DataLoader(Pids(), num_workers=1, prefetch_factor=1), seed=1, stream=TRAIN, world_size=1
    )
    pids = exact.batches(0, 0)
    worker = int(next(pids))
    assert worker != os.getpid()
    for signum in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        os.kill(worker, signum)
    assert {int(batch) for batch in pids} == {worker}
