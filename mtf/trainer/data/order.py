"""The order of samples: which indices make which batch, from (seed, epoch, batch, rank, ranks).

A training's batches are made in shares, one for each process that it began with. If another number
of processes resumes it, ``dealt`` deals the same batches to these in turn: with W processes, rank r
takes as its batch i the batch number i * W + r, counted over all shares, which are served in turn.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler

from mtf.errors import MtfError
from mtf.trainer.compute.rng import seed_at, temporarily_seeded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Indices = list[int]


class BatchOrder(Protocol):
    """Which samples make which batch of an epoch."""

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        ...

    def batches(self, epoch: int, start: int) -> Iterator[Indices]:
        """Yield the sample indices of each batch of an epoch, from batch ``start`` on."""
        ...

    def num_samples(self, epoch: int, batch: int) -> int:
        """Return the number of samples in a batch."""
        ...

    @property
    def is_dealt(self) -> bool:
        """Return True if the batches are made for another number of processes."""
        ...

    def place(self, batch: int) -> tuple[int, int]:
        """Return the share that this rank's batch ``batch`` comes from, and its number there."""
        ...

    def dealt(self, shares: int) -> BatchOrder:
        """Return this rank's part of the batches that are made for ``shares`` processes.

        Raises:
            MtfError: these batches cannot be dealt to another number of processes.
        """
        ...


@dataclass(frozen=True)
class SampleOrder:
    """One rank's share of all samples, in a fixed or shuffled order; each sample once an epoch.

    For training, every rank gets the same number of samples: if it cannot be divided evenly,
    some samples are used twice. For validation, each sample is used exactly once. The last batch
    may be smaller.
    """

    size: int
    batch_size: int
    seed: int
    shuffled: bool
    drop_last: bool = False
    rank: int = 0
    world_size: int = 1
    even: bool | None = None  # give all shares the same number of samples; None: if shuffled
    shares: int | None = None  # processes that the batches are made for; None: world_size

    def __len__(self) -> int:
        """Return the number of batches of this rank."""
        if not self.is_dealt:
            return self._share_length(self.rank)
        return _part(self._share_length(0) * self._num_shares(), self.rank, self.world_size)

    def batches(self, epoch: int, start: int) -> Iterator[Indices]:
        """Yield the indices of each batch; starting late costs no more than one permutation."""
        order = self._order(epoch)
        by_share: dict[int, torch.Tensor] = {}
        for batch in range(start, len(self)):
            share, number = self.place(batch)
            if share not in by_share:
                by_share[share] = self._share(order, share)
            first = number * self.batch_size
            yield by_share[share][first : first + self.batch_size].tolist()

    def num_samples(self, epoch: int, batch: int) -> int:  # noqa: ARG002 -- alike in all epochs
        """Return the number of samples in a batch."""
        share, number = self.place(batch)
        return min(self.batch_size, self._share_size(share) - number * self.batch_size)

    def place(self, batch: int) -> tuple[int, int]:
        """Return the share that this rank's batch ``batch`` comes from, and its number there."""
        return _place(batch, self.rank, self.world_size, self._num_shares())

    def dealt(self, shares: int) -> SampleOrder:
        """Return this rank's part of the batches that are made for ``shares`` processes."""
        return replace(self, shares=shares)

    @property
    def is_dealt(self) -> bool:
        """Return True if the batches are made for another number of processes."""
        return self._num_shares() != self.world_size

    def _num_shares(self) -> int:
        return self.shares or self.world_size

    def _is_even(self) -> bool:
        return self.shuffled if self.even is None else self.even

    def _share_length(self, share: int) -> int:
        whole, rest = divmod(self._share_size(share), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def _share_size(self, share: int) -> int:
        up = self._num_shares() - 1 if self._is_even() else self._num_shares() - 1 - share
        return (self.size + up) // self._num_shares()

    def _order(self, epoch: int) -> torch.Tensor:
        if not self.shuffled:
            return torch.arange(self.size)
        generator = torch.Generator().manual_seed(seed_at("order", self.seed, epoch))
        return torch.randperm(self.size, generator=generator)

    def _share(self, order: torch.Tensor, share: int) -> torch.Tensor:
        if not self._is_even():
            return order[share :: self._num_shares()]
        own = torch.arange(self._share_size(share)) * self._num_shares() + share
        return order[own % max(len(order), 1)]


def _place(batch: int, rank: int, world_size: int, shares: int) -> tuple[int, int]:
    number, share = divmod(batch * world_size + rank, shares)
    return share, number


def _part(total: int, rank: int, world_size: int) -> int:
    """Return the number of batches of ``total`` that a rank gets if the ranks take turns."""
    return (total - rank + world_size - 1) // world_size


class CustomSamplerOrder:
    """The order of a user's own sampler, made repeatable by seeding its generators each epoch.

    Ranks take the sampler's batches in turn, unless it splits the data between ranks itself.

    Args:
        sampler: the batch sampler.
        seed: the training's seed.
        rank: the rank of this process.
        world_size: the number of ranks.
        even: give all ranks the same number of batches, using the first ones twice if needed;
            otherwise each batch is used once.

    Raises:
        MtfError: there are fewer batches than ranks.
    """

    def __init__(
        self, sampler: Any, seed: int, rank: int = 0, world_size: int = 1, *, even: bool = True
    ) -> None:
        self._sampler = sampler
        self._seed = seed
        self._made: tuple[int, list[Indices]] | None = None  # the epoch, and its batches
        self._splits_by_rank = any(hasattr(part, "num_replicas") for part in self._samplers())
        self._rank, self._world_size = (0, 1) if self._splits_by_rank else (rank, world_size)
        self._even, self._shares = even, self._world_size
        count = len(sampler)
        if count < self._world_size:
            raise MtfError(f"the sampler makes {count} batches, too few for {world_size} ranks")
        self._length = self._count()

    def _count(self) -> int:
        """Return the number of batches of this rank."""
        total = len(self._sampler)
        if self._even:  # the first batches are used twice if needed
            total = -(-total // self._shares) * self._shares
        return _part(total, self._rank, self._world_size)

    def _samplers(self) -> tuple[Any, Any]:
        return self._sampler, getattr(self._sampler, "sampler", None)

    def __len__(self) -> int:
        """Return the number of batches of this rank."""
        return self._length

    def batches(self, epoch: int, start: int) -> Iterator[Indices]:
        """Yield the indices of each batch; a late start runs the sampler from its beginning."""
        batches = self._batches_of(epoch)
        own = range(self._rank, self._length * self._world_size, self._world_size)
        return (batches[number % len(batches)] for number in own[start:])

    def num_samples(self, epoch: int, batch: int) -> int:
        """Return the number of samples in a batch."""
        batches = self._batches_of(epoch)
        return len(batches[(self._rank + batch * self._world_size) % len(batches)])

    def _batches_of(self, epoch: int) -> list[Indices]:
        """Return all batches that the sampler makes in an epoch; the newest ones are kept."""
        if self._made is not None and self._made[0] == epoch:
            return self._made[1]
        for sampler in self._samplers():
            if set_epoch := getattr(sampler, "set_epoch", None):
                set_epoch(epoch)
            if isinstance(generator := getattr(sampler, "generator", None), torch.Generator):
                generator.manual_seed(seed_at("order", self._seed, epoch))
        with temporarily_seeded(seed_at("order", self._seed, epoch)):
            batches = [list(indices) for indices in self._sampler]
        self._made = (epoch, batches)
        return batches

    @property
    def is_dealt(self) -> bool:
        """Return True if the batches are made for another number of processes."""
        return self._shares != self._world_size

    def place(self, batch: int) -> tuple[int, int]:
        """Return the share that this rank's batch ``batch`` comes from, and its number there."""
        return _place(batch, self._rank, self._world_size, self._shares)

    def dealt(self, shares: int) -> CustomSamplerOrder:
        """Return this rank's part of the batches that are made for ``shares`` processes.

        Raises:
            MtfError: the sampler itself splits the data between the ranks that there are.
        """
        if self._splits_by_rank:
            raise MtfError(
                f"its sampler ({_name_of(self._samplers())}) splits the samples between the"
                " processes that there are"
            )
        order = copy.copy(self)
        order._shares = shares  # noqa: SLF001 -- its own class
        order._length = order._count()  # noqa: SLF001
        return order


def _name_of(samplers: Iterable[Any]) -> str:
    return next(type(part).__name__ for part in samplers if hasattr(part, "num_replicas"))


def order_from_sampler(
    sampler: Any, seed: int, rank: int, world_size: int, *, even: bool
) -> BatchOrder:
    """Return the order of one of torch's batch samplers, or of a custom one.

    Args:
        sampler: the batch sampler.
        seed: the training's seed.
        rank: the rank of this process.
        world_size: the number of ranks.
        even: give all ranks the same number of batches, as a training needs.

    Raises:
        MtfError: there is too little data for that many ranks.
    """
    inner: Any = getattr(sampler, "sampler", None)
    shuffled = type(inner) is RandomSampler and not inner.replacement
    if type(sampler) is not BatchSampler or not (shuffled or type(inner) is SequentialSampler):
        return CustomSamplerOrder(sampler, seed, rank, world_size, even=even)
    size = len(inner.data_source)
    if len(inner) != size:  # RandomSampler(num_samples=...)
        return CustomSamplerOrder(sampler, seed, rank, world_size, even=even)
    if size < world_size and not even:
        raise MtfError(f"the loader has {size} samples, too few for {world_size} ranks")
    return SampleOrder(
        size,
        sampler.batch_size,
        seed,
        shuffled,
        sampler.drop_last,
        rank,
        world_size,
        even=even,
    )
