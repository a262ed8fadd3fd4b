"""Iterable data: no sample is used several times or left out without a word."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, get_worker_info

from mtf.errors import MtfError
from mtf.trainer.data.epochs import OpenEpoch, open_epoch
from mtf.trainer.data.streams import ReplayedBatches

if TYPE_CHECKING:
    from collections.abc import Iterator


class Numbers(IterableDataset[Any]):
    """Counts to ``gives``, all of it in each data worker or split between them."""

    def __init__(
        self, says: int, gives: int | None = None, *, splits: bool = False, noise: float = 0.0
    ) -> None:
        self.says, self.gives = says, says if gives is None else gives
        self.splits, self.noise = splits, noise

    def __len__(self) -> int:
        return self.says

    def __iter__(self) -> Iterator[torch.Tensor]:
        worker = get_worker_info() if self.splits else None
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        for number in range(first, self.gives, step):
            yield torch.tensor(number) + self.noise * torch.rand(())


def replayed(data: Any, *, is_bounded: bool = False, **options: Any) -> ReplayedBatches:
    loader = DataLoader(data, **{"batch_size": 4, **options})
    return ReplayedBatches(loader, 1, "train", 0, is_bounded=is_bounded)


def epoch_of(batches: Any, epoch: int = 0, start: int = 0) -> list[Any]:
    return list(open_epoch(batches, epoch, start))


def used(batches: Any, epoch: int = 0) -> list[int]:
    """Return the numbers in an epoch, sorted."""
    return sorted(int(number) for batch in epoch_of(batches, epoch) for number in batch)


def test_samples_that_every_worker_gives_are_divided_among_them(
    capfd: pytest.CaptureFixture[str],
) -> None:
    batches = replayed(Numbers(26, noise=0.5), num_workers=2)
    assert [used(batches, epoch) for epoch in (0, 1)] == [list(range(26))] * 2
    assert len(batches) == 8, "two workers with 13 samples each"
    said = capfd.readouterr().err
    assert said.count("each of the 2 data workers gives the same samples") == 1


class Range(Numbers):
    first, last = 0, 26

    def __iter__(self) -> Iterator[torch.Tensor]:
        return (torch.tensor(number) for number in range(self.first, self.last))


def divide(worker: int) -> None:
    info: Any = get_worker_info()
    info.dataset.first, info.dataset.last = 13 * worker, 13 * worker + 13


def test_workers_may_be_told_their_part_by_worker_init_fn(
    capfd: pytest.CaptureFixture[str],
) -> None:
    batches = replayed(Range(26), num_workers=2, worker_init_fn=divide)
    assert used(batches) == used(batches, 1) == [*range(26)]
    assert capfd.readouterr().err == ""


def test_a_resume_divides_them_in_the_same_way() -> None:
    whole = epoch_of(replayed(Numbers(26, noise=0.5), num_workers=2), 1)
    rest = epoch_of(replayed(Numbers(26, noise=0.5), num_workers=2), 1, start=3)
    assert len({float(number) % 1 for number in torch.cat(whole)}) == 26, "each has its own noise"
    assert len(rest) == len(whole) - 3
    assert all(torch.equal(a, b) for a, b in zip(whole[3:], rest, strict=True))


def test_no_sample_of_workers_that_share_them_is_cut_off(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Torch's loader says ceil(24 / 4) = 6 batches, though each worker ends with a smaller one."""
    batches = replayed(Numbers(26, splits=True), num_workers=4)
    assert used(batches) == list(range(26))
    assert len(epoch_of(batches)) == len(batches) == 8
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("data", "options", "numbers", "message"),
    [
        (
            Numbers(8, 14),
            {},
            [*range(8)],
            "gave 8 samples, as many as __len__ says, and goes on: an epoch ends there. If it"
            " should not, correct __len__",
        ),
        (Numbers(9, 8), {"batch_size": 5}, [*range(8)], "gave 8 samples, and __len__ says 9"),
        (
            Numbers(26, splits=True),
            {"num_workers": 2, "drop_last": True},
            [*range(24)],
            "gave 24 samples (12, 12 by data worker), and __len__ says 26: drop_last leaves out",
        ),
    ],
)
def test_a_length_that_is_not_true_is_reported_once(
    data: Any,
    options: dict[str, Any],
    numbers: list[int],
    message: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    batches = replayed(data, **options)
    assert used(batches) == used(batches, 1) == numbers
    assert capfd.readouterr().err.count(message) == 1


class Endless(IterableDataset[int]):
    def __len__(self) -> int:
        return 8

    def __iter__(self) -> Iterator[int]:
        number = 0
        while True:
            yield number
            number += 1


def test_an_epoch_of_data_without_an_end_is_as_long_as_it_says() -> None:
    for workers in (0, 2):
        assert used(replayed(Endless(), num_workers=workers)) == [*range(8)]


class ShuffledByAll(Numbers):
    """Shuffles by the generator that all code shares, then splits between the data workers."""

    def __iter__(self) -> Iterator[torch.Tensor]:
        worker: Any = get_worker_info()
        order = random.sample(range(self.gives), self.gives)
        for number in order[worker.id :: worker.num_workers]:
            yield torch.tensor(number)


def test_workers_that_shuffle_before_they_split_shuffle_alike() -> None:
    batches = replayed(ShuffledByAll(30), num_workers=3)
    assert used(batches) == used(batches, 1) == [*range(30)]


def test_data_that_gives_fewer_batches_than_it_says_is_an_error() -> None:
    for is_bounded in (False, True):
        with pytest.raises(MtfError, match="epoch 1 gave 8 samples, and __len__ says 40: return"):
            epoch_of(replayed(Numbers(40, 8), is_bounded=is_bounded))
    with pytest.raises(MtfError, match="the data gave 0 batches in epoch 1"):
        epoch_of(replayed(Numbers(3), drop_last=True))


def test_several_ranks_use_as_many_batches_as_said_and_hear_of_the_rest(
    capfd: pytest.CaptureFixture[str],
) -> None:
    batches = replayed(Numbers(8, 14), is_bounded=True)
    assert [len(epoch_of(batches, epoch)) for epoch in (0, 1)] == [2, 2]
    said = "gave 8 samples, as many as __len__ says, and goes on"
    assert capfd.readouterr().err.count(said) == 1


class Shuffled(IterableDataset[int]):
    """Shuffles by a generator of its own, then splits between the data workers."""

    def __init__(self) -> None:
        self.rng: Any = random.Random()
        self.noise = np.random.default_rng()

    def __len__(self) -> int:
        return 24

    def __iter__(self) -> Iterator[int]:
        worker = get_worker_info()
        order = self.rng.sample(range(24), 24)
        yield from order[worker.id :: worker.num_workers] if worker else order


@pytest.mark.parametrize("workers", [0, 2])
def test_generators_of_iterable_data_begin_each_epoch_from_its_seed(workers: int) -> None:
    batches = replayed(Shuffled(), num_workers=workers)
    first, second = (epoch_of(batches, epoch) for epoch in (0, 1))
    again = epoch_of(replayed(Shuffled(), num_workers=workers), 1)
    assert torch.equal(torch.cat(second), torch.cat(again))
    assert not torch.equal(torch.cat(first), torch.cat(second))
    assert used(batches, 2) == list(range(24))


class Doubling(DataLoader[Any]):
    """A loader of the user's own that changes its batches and has more than it says."""

    def __iter__(self) -> Any:
        for batch in super().__iter__():
            yield batch[0] * 2
            yield batch[0]


def test_a_loader_class_of_the_users_own_is_iterated_as_it_is(
    capfd: pytest.CaptureFixture[str],
) -> None:
    loader = Doubling(TensorDataset(torch.arange(1, 5)), batch_size=2)
    batches = ReplayedBatches(loader, 1, "train", 0, is_bounded=False)
    assert torch.cat(epoch_of(batches)).tolist() == [2, 4, 1, 2]
    assert "epoch 1 gave 2 batches, as many as __len__ says, and goes on" in capfd.readouterr().err


def test_the_samples_of_a_batch_are_known_while_others_are_made_ahead() -> None:
    batches = replayed(Numbers(10, splits=True), num_workers=2)
    opened = OpenEpoch(batches, 0, 0, length=None, ahead=2)
    sizes = [(len(next(opened)), batches.num_samples(0, number)) for number in range(4)]
    assert sizes == [(4, 4), (4, 4), (1, 1), (1, 1)]


class TwoOrMore:
    def __len__(self) -> int:
        return 2

    def batches(self, epoch: int, start: int) -> Iterator[int]:
        return iter(range(start, 3 + epoch))


def test_more_batches_than_the_users_own_data_says_are_reported_once(
    capfd: pytest.CaptureFixture[str],
) -> None:
    batches = TwoOrMore()
    assert [epoch_of(batches, epoch) for epoch in (0, 1)] == [[0, 1], [0, 1]]
    assert capfd.readouterr().err.count("the data gives 3 batches or more, and its __len__") == 1
