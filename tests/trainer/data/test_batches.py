"""Which samples make which batch is a function of seed, epoch and batch alone."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
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
from mtf.trainer.data.batches import Stream, in_memory, of_loader
from mtf.trainer.data.order import Plan
from tests.trainer.nasty import Augmented

if TYPE_CHECKING:
    from collections.abc import Iterator

TRAIN = Stream("train")


def batches(loader: DataLoader[Any], epoch: int = 0, start: int = 0) -> list[Any]:
    exact = of_loader(loader, seed=1, stream=TRAIN, world_size=1)
    return list(exact.batches(epoch, start))


def same(left: list[Any], right: list[Any]) -> bool:
    pairs = zip(left, right, strict=True)
    return all(torch.equal(a, b) for x, y in pairs for a, b in zip(x, y, strict=True))


def test_every_sample_comes_once_an_epoch_in_an_order_of_the_epoch() -> None:
    plan = Plan(10, 3, seed=1, shuffled=True)
    first, second = ([*plan.batches(epoch, 0)] for epoch in (0, 1))
    assert [len(batch) for batch in first] == [3, 3, 3, 1]
    assert sorted(chain(*first)) == sorted(chain(*second)) == list(range(10))
    assert first != second
    assert [*plan.batches(0, 2)] == first[2:]
    assert [*Plan(10, 3, seed=2, shuffled=True).batches(0, 0)] != first


def test_drop_last_drops_the_smaller_batch() -> None:
    plan = Plan(10, 3, seed=1, shuffled=False, drop_last=True)
    assert len(plan) == 3
    assert [*plan.batches(0, 0)] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_ranks_share_the_samples(world_size: int) -> None:
    for shuffled in (True, False):
        plans = [
            Plan(10, 2, 1, shuffled, rank=rank, world_size=world_size) for rank in range(world_size)
        ]
        parts = [[*chain(*plan.batches(0, 0))] for plan in plans]
        dealt = Counter(chain(*parts))
        assert set(dealt) == set(range(10))
        if shuffled:  # ranks that train wait for each other: all have the same number
            assert len({len(part) for part in parts}) == 1
        else:  # ranks that validate must count no sample twice
            assert dealt.total() == 10
        assert [len(plan) for plan in plans] == [len([*plan.batches(0, 0)]) for plan in plans]


@pytest.mark.parametrize("workers", [0, 2])
def test_augmentation_depends_on_the_place_alone(workers: int) -> None:
    alone = DataLoader(Augmented("train"), batch_size=4, shuffle=True)
    other = DataLoader(Augmented("train"), batch_size=4, shuffle=True, num_workers=workers)
    whole = batches(alone, epoch=1)
    assert same(batches(other, epoch=1), whole)
    assert same(batches(other, epoch=1, start=7), whole[7:])
    assert not same(batches(alone, epoch=2)[:1], whole[:1])


@pytest.mark.parametrize("workers", [0, 1])
def test_opening_a_loader_draws_nothing(workers: int) -> None:
    loader = DataLoader(Augmented("train"), batch_size=4, num_workers=workers)
    before = torch.get_rng_state()
    batches(loader)
    assert torch.equal(torch.get_rng_state(), before)


class Endless(IterableDataset[torch.Tensor]):
    """Has a length, cannot be sought, and draws."""

    def __len__(self) -> int:
        return 6

    def __iter__(self) -> Iterator[torch.Tensor]:
        for number in range(6):
            yield torch.rand(1) + number


def test_iterable_data_is_replayed_to_the_place() -> None:
    loader = DataLoader(Endless(), batch_size=2)
    whole = batches(loader, epoch=1)
    assert len(whole) == 3
    assert same([[b] for b in batches(loader, epoch=1, start=2)], [[b] for b in whole[2:]])


def test_a_sampler_of_the_users_own_is_repeatable() -> None:
    data = TensorDataset(torch.arange(20))
    generator = torch.Generator()
    for sampler in (
        WeightedRandomSampler(torch.ones(20).tolist(), 12),
        WeightedRandomSampler(torch.ones(20).tolist(), 12, generator=generator),
    ):
        loader = DataLoader(data, batch_size=4, sampler=sampler)
        whole = batches(loader, epoch=3)
        assert same(batches(loader, epoch=3, start=1), whole[1:])
        assert not same(batches(loader, epoch=4), whole)


def test_what_lies_in_memory_is_known_to_draw_nothing() -> None:
    class Noisy(TensorDataset):
        def __getitem__(self, index: int) -> Any:
            item = super().__getitem__(index)  # type: ignore[no-untyped-call]
            return tuple(t + torch.rand(1) for t in item)

    plain = TensorDataset(torch.arange(6))
    tensors = in_memory(Subset(plain, [4, 1]))
    assert tensors is not None
    assert tensors[0].tolist() == [4, 1]
    assert in_memory(Noisy(torch.arange(6))) is None


def mixed(samples: Any) -> Any:
    inputs, targets = default_collate(samples)
    return inputs * torch.rand(1) + random.random(), targets


@pytest.mark.parametrize(
    "data", [Augmented("train"), TensorDataset(torch.ones(42, 6), torch.ones(42))]
)
def test_what_is_drawn_while_collating_depends_on_the_place_alone(data: Any) -> None:
    """Mixing samples is the usual case."""
    whole, other = (
        batches(DataLoader(data, batch_size=4, collate_fn=mixed, num_workers=n)) for n in (0, 1)
    )
    assert same(whole, other)
    assert not torch.equal(whole[0][0][0], whole[1][0][0])


def test_a_loader_that_does_not_batch_is_sought_too() -> None:
    asked = []

    class Ready(Dataset[torch.Tensor]):
        def __len__(self) -> int:
            return 9

        def __getitem__(self, index: Any) -> torch.Tensor:
            asked.append(index)
            return torch.as_tensor([index, random.random()])

    whole = batches(DataLoader(Ready(), batch_size=None, shuffle=True))
    assert sorted(int(batch[0]) for batch in whole) == list(range(9))
    asked.clear()
    assert torch.equal(torch.stack(batches(DataLoader(Ready(), batch_size=None, shuffle=True), start=7)), torch.stack(whole[7:]))  # fmt: skip
    assert len(asked) == 2  # the batches of before are not made again


def test_workers_of_iterable_data_draw_nothing_of_the_epoch_before() -> None:
    def exact() -> Any:
        kept: dict[str, Any] = {"num_workers": 1, "persistent_workers": True}
        return of_loader(DataLoader(Endless(), batch_size=2, **kept), seed=1, stream=TRAIN, world_size=1)  # fmt: skip

    one = exact()
    *_, second = (list(one.batches(epoch, 0)) for epoch in (0, 1))
    assert torch.equal(torch.stack(list(exact().batches(1, 0))), torch.stack(second))


def test_batches_of_a_users_own_sampler_are_dealt_out_to_ranks() -> None:
    loader = DataLoader(TensorDataset(torch.arange(21)), batch_size=3, sampler=[*range(21)])
    for name, numbers in (("train", 8), ("validation", 7)):
        dealt = [
            list(of_loader(loader, seed=1, stream=Stream(name, rank), world_size=2).batches(0, 0))
            for rank in (0, 1)
        ]
        assert len(dealt[0]) + len(dealt[1]) == numbers
        firsts = sorted(int(batch[0][0]) for batch in chain(*dealt))
        assert sorted({*firsts}) == list(range(0, 21, 3))
    own: Any = DistributedSampler(
        TensorDataset(torch.arange(21)), num_replicas=2, rank=1, shuffle=False
    )
    exact = of_loader(
        DataLoader(TensorDataset(torch.arange(21)), batch_size=11, sampler=own),
        seed=1, stream=Stream("train", 1), world_size=2,
    )  # fmt: skip
    assert [batch[0].tolist() for batch in exact.batches(0, 0)] == [[*range(1, 21, 2), 0]]


class Unsized(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        yield 1


def test_what_cannot_be_trained_on_is_said() -> None:
    for wrong, said in (
        (DataLoader(Unsized()), "the loader has no length"),
        (DataLoader(TensorDataset(torch.zeros(0))), "the loader has no batch"),
        ([1, 2], "a list is not a torch DataLoader"),
    ):
        with pytest.raises(MtfError, match=said):
            of_loader(wrong, seed=1, stream=TRAIN, world_size=1)


class Pids(Dataset[int]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> int:
        return os.getpid()


def test_workers_outlive_the_signals_that_stop_a_training() -> None:
    """SLURM sends TERM to every process of a step; a dead worker would fail the training."""
    exact = of_loader(
        DataLoader(Pids(), num_workers=1, prefetch_factor=1), seed=1, stream=TRAIN, world_size=1
    )
    taken = exact.batches(0, 0)
    worker = int(next(taken))
    assert worker != os.getpid()
    for signum in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        os.kill(worker, signum)
    assert {int(batch) for batch in taken} == {worker}
