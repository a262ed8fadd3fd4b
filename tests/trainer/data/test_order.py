"""Sample orders: each sample is used once an epoch over all ranks, in an order of (seed, epoch)."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import chain, zip_longest
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
)

from mtf.errors import MtfError
from mtf.trainer.data.batches import Stream, batches_from_loader
from mtf.trainer.data.order import CustomSamplerOrder, Indices, SampleOrder, order_from_sampler

SIZES = st.integers(1, 60)
BATCH_SIZES = st.integers(1, 9)
RANKS = st.integers(1, 5)
EPOCHS = st.integers(0, 1000)
ORDERS = st.builds(
    SampleOrder,
    size=SIZES,
    batch_size=BATCH_SIZES,
    seed=st.integers(),
    shuffled=st.booleans(),
    even=st.booleans(),
)


def epoch_of(order: SampleOrder, epoch: int = 0, start: int = 0) -> list[Indices]:
    return list(order.batches(epoch, start))


def by_rank(order: SampleOrder, world_size: int) -> list[SampleOrder]:
    return [replace(order, rank=rank, world_size=world_size) for rank in range(world_size)]


@given(ORDERS, EPOCHS, RANKS)
def test_ranks_together_use_every_sample_once_an_epoch(
    order: SampleOrder, epoch: int, world_size: int
) -> None:
    ranks = by_rank(order, world_size)
    used = Counter(chain(*(chain(*epoch_of(rank, epoch)) for rank in ranks)))
    assert set(used) == set(range(order.size))
    extra = used.total() - order.size
    if order.even:
        assert extra == -order.size % world_size, "only as many repeats as even shares need"
    else:
        assert extra == 0, "a validation counts no sample twice"


@given(ORDERS, EPOCHS, RANKS)
def test_ranks_that_train_have_equal_shares(
    order: SampleOrder, epoch: int, world_size: int
) -> None:
    ranks = by_rank(replace(order, even=True), world_size)
    assert len({len(rank) for rank in ranks}) == 1
    assert len({sum(map(len, epoch_of(rank, epoch))) for rank in ranks}) == 1


@given(ORDERS, EPOCHS, st.booleans())
def test_batches_are_full_but_for_the_last_one(
    order: SampleOrder, epoch: int, drop_last: bool
) -> None:
    order = replace(order, drop_last=drop_last)
    sizes = [len(batch) for batch in epoch_of(order, epoch)]
    assert len(sizes) == len(order)
    assert all(size == order.batch_size for size in sizes[:-1])
    assert all(0 < size <= order.batch_size for size in sizes[-1:])
    whole, rest = divmod(order.size, order.batch_size)
    assert len(sizes) == whole + (rest > 0 and not drop_last)


@given(ORDERS, EPOCHS, RANKS, st.data())
def test_an_epoch_opened_late_continues_the_same_batches(
    order: SampleOrder, epoch: int, world_size: int, data: st.DataObject
) -> None:
    order = replace(order, rank=data.draw(st.integers(0, world_size - 1)), world_size=world_size)
    whole = epoch_of(order, epoch)
    start = data.draw(st.integers(0, len(order)))
    assert epoch_of(order, epoch, start) == whole[start:]


@given(ORDERS, EPOCHS)
def test_the_order_is_a_function_of_seed_and_epoch(order: SampleOrder, epoch: int) -> None:
    same = replace(order)
    epoch_of(same, epoch + 1)  # nothing that was asked before matters
    torch.randperm(9)
    assert epoch_of(same, epoch) == epoch_of(order, epoch)
    if not order.shuffled:
        assert epoch_of(order, epoch) == epoch_of(replace(order, seed=order.seed + 1), epoch + 1)


@pytest.mark.parametrize("change", ["seed", "epoch"])
def test_another_seed_or_epoch_shuffles_differently(change: str) -> None:
    order = SampleOrder(50, 50, seed=1, shuffled=True)
    others = [
        epoch_of(
            replace(order, seed=n) if change == "seed" else order, 0 if change == "seed" else n
        )
        for n in range(20)
    ]
    assert len({tuple(batch) for (batch,) in others}) == 20


def in_turn(ranks: list[list[list[int]]]) -> list[list[int]]:
    """Return the batches of all ranks in the order in which they take them."""
    return [batch for row in zip_longest(*ranks) for batch in row if batch is not None]


@given(ORDERS, EPOCHS, RANKS, RANKS)
def test_other_ranks_take_the_same_batches_in_the_same_order(
    order: SampleOrder, epoch: int, before: int, after: int
) -> None:
    order = replace(order, even=True)
    whole = in_turn([epoch_of(rank, epoch) for rank in by_rank(order, before)])
    dealt = [rank.dealt(before) for rank in by_rank(order, after)]
    assert in_turn([epoch_of(rank, epoch) for rank in dealt]) == whole
    assert [len(rank) for rank in dealt] == [len(epoch_of(rank, epoch)) for rank in dealt]


@given(ORDERS, RANKS, RANKS)
def test_a_dealt_batch_knows_its_place_among_the_batches_of_the_other_ranks(
    order: SampleOrder, before: int, after: int
) -> None:
    order = replace(order, even=True)
    shares = [epoch_of(rank, 0) for rank in by_rank(order, before)]
    for rank in by_rank(order, after):
        dealt = rank.dealt(before)
        for number, batch in enumerate(epoch_of(dealt, 0)):
            share, place = dealt.place(number)
            assert shares[share][place] == batch


# -- torch's samplers and custom ones --------------------------------------------------------------


class Numbers(Dataset[int]):
    """Sample n is n."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> int:
        return index


@given(SIZES, BATCH_SIZES, st.booleans(), st.booleans())
def test_torchs_own_samplers_become_sample_orders(
    size: int, batch_size: int, shuffled: bool, drop_last: bool
) -> None:
    inner = (RandomSampler if shuffled else SequentialSampler)(Numbers(size))
    sampler = BatchSampler(inner, batch_size, drop_last)
    order = order_from_sampler(sampler, 1, 0, 1, even=True)
    assert order == SampleOrder(size, batch_size, 1, shuffled, drop_last, even=True)
    assert len(order) == len(sampler)
    if not shuffled:
        assert list(order.batches(0, 0)) == list(sampler)


@given(SIZES, BATCH_SIZES, RANKS, st.booleans(), EPOCHS)
def test_ranks_together_use_every_batch_of_a_custom_sampler(
    size: int, batch_size: int, world_size: int, even: bool, epoch: int
) -> None:
    numbers = list(range(size))
    sampler = [numbers[i : i + batch_size] for i in range(0, size, batch_size)]
    if len(sampler) < world_size:
        with pytest.raises(MtfError, match=f"too few for {world_size} ranks"):
            CustomSamplerOrder(sampler, 1, 0, world_size, even=even)
        return
    orders = [
        CustomSamplerOrder(sampler, 1, rank, world_size, even=even) for rank in range(world_size)
    ]
    batches = [list(order.batches(epoch, 0)) for order in orders]
    assert [len(rank) for rank in batches] == [len(order) for order in orders]
    in_turn = [b for row in zip_longest(*batches) for b in row if b is not None]
    assert in_turn[: len(sampler)] == sampler
    extra = -len(sampler) % world_size if even else 0
    assert in_turn[len(sampler) :] == sampler[:extra]


@pytest.mark.parametrize("name", ["train", "validation"])
def test_ranks_that_train_on_an_unshuffled_loader_get_as_many_batches_each(name: str) -> None:
    """Ranks exchange gradients at each step, so one with a batch more would wait for ever."""
    loader = DataLoader(Numbers(21), batch_size=2)
    ranks = [
        batches_from_loader(loader, seed=1, stream=Stream(name, rank), world_size=2)
        for rank in (0, 1)
    ]
    assert [len(rank) for rank in ranks] == ([6, 6] if name == "train" else [6, 5])
    used = Counter(n for rank in ranks for batch in rank.batches(0, 0) for n in batch.tolist())
    assert set(used) == set(range(21))
    assert used.total() == (22 if name == "train" else 21)


def test_a_validation_with_fewer_samples_than_ranks_is_an_error() -> None:
    sampler = BatchSampler(SequentialSampler(Numbers(2)), 1, drop_last=False)
    with pytest.raises(MtfError, match="the loader has 2 samples, too few for 3 ranks"):
        order_from_sampler(sampler, 1, 2, 3, even=False)


@given(st.integers(4, 20), RANKS, RANKS)
def test_other_ranks_take_the_same_batches_of_a_custom_sampler(
    count: int, before: int, after: int
) -> None:
    sampler = [[n, n] for n in range(count)]

    def ranks(number: int) -> list[CustomSamplerOrder]:
        return [CustomSamplerOrder(sampler, 1, rank, number) for rank in range(number)]

    assume(count >= max(before, after))
    whole = in_turn([list(order.batches(0, 0)) for order in ranks(before)])
    dealt = [list(order.dealt(before).batches(0, 0)) for order in ranks(after)]
    assert in_turn(dealt) == whole


def test_a_sampler_that_splits_the_data_itself_cannot_be_dealt_to_other_ranks() -> None:
    sampler: Any = DistributedSampler(Numbers(8), num_replicas=2, rank=0)
    order = CustomSamplerOrder(BatchSampler(sampler, 2, drop_last=False), seed=1, world_size=2)
    with pytest.raises(MtfError, match=r"its sampler \(DistributedSampler\) splits the samples"):
        order.dealt(1)


@pytest.mark.parametrize("shuffle", [True, False])
def test_the_number_of_workers_changes_no_batch(shuffle: bool) -> None:
    def epochs(num_workers: int) -> list[list[int]]:
        loader = DataLoader(Numbers(23), batch_size=4, shuffle=shuffle, num_workers=num_workers)
        batches = batches_from_loader(loader, seed=3, stream=Stream("train"), world_size=1)
        return [b.tolist() for epoch in (0, 1) for b in batches.batches(epoch, epoch)]

    assert epochs(0) == epochs(1) == epochs(2)
