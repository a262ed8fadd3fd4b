"""The order of samples: which indices make which batch, from (seed, epoch, batch, rank, ranks).

A training's batches are made in shares, one for each process that it began with. If another number
of processes resumes it, ``dealt`` deals the same batches to these in turn: with W processes, rank r
takes as its batch i the batch number i * W + r, counted over all shares, which are served in turn.
"""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler

from mtf.errors import MtfError
from mtf.trainer.compute.rng import seed_at
from mtf.trainer.data.sampler_passes import SamplerPasses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Indices = list[int]


class BatchOrder(Protocol):
    """Which samples make which batch of an epoch."""

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        ...

    def begun(self, epoch: int, seeded_as: int) -> BatchOrder:
        """Return the order with the length that an epoch has.

        Args:
            epoch: that the data has been told, and the sampler is told.
            seeded_as: the epoch whose seeds it gets.
        """
        ...

    def expected(self, epochs: int, set_epoch: Callable[[int], None] | None) -> list[int]:
        """Return the number of batches in each of the first epochs.

        Args:
            epochs: their number.
            set_epoch: tells the data the epoch; None: the data is the same in all epochs.
        """
        ...

    def batches(self, epoch: int, start: int) -> Iterator[Indices]:
        """Yield the sample indices of each batch of an epoch, from batch ``start`` on."""
        ...

    def num_samples(self, epoch: int, batch: int) -> int:
        """Return the number of samples in a batch."""
        ...

    @property
    def is_alike(self) -> bool:
        """Return True if every epoch has the same numbers of batches and samples."""
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
    # data whose length is the size, and may be another in each epoch
    source: Any = field(default=None, compare=False)

    def __len__(self) -> int:
        """Return the number of batches of this rank."""
        if not self.is_dealt:
            return self._share_length(self.rank)
        return _part(self._share_length(0) * self._num_shares(), self.rank, self.world_size)

    is_alike = True

    def begun(self, epoch: int, seeded_as: int) -> SampleOrder:  # noqa: ARG002 -- needs no seeds
        """Return the order with the size that the data has now.

        Raises:
            MtfError: a rank would get nothing.
        """
        size = self.size if self.source is None else len(self.source)
        if size < self.world_size:
            raise MtfError(
                f"epoch {epoch + 1} of the data has {size} samples, too few for {self.world_size}"
                f" {'ranks' if self.world_size > 1 else 'process'}"
            )
        return self if size == self.size else replace(self, size=size)

    def expected(self, epochs: int, set_epoch: Callable[[int], None] | None) -> list[int]:
        """Return the number of batches in each of the first epochs.

        Data is told each of them only if it grows or shrinks: telling it may be slow.
        """

        def count(epoch: int) -> int:
            if set_epoch is not None:
                set_epoch(epoch)
            return len(self.begun(epoch, epoch))

        if set_epoch is None or len({count(e) for e in (0, 1, epochs // 2, epochs - 1)}) == 1:
            return [count(0)] * epochs
        return [count(epoch) for epoch in range(epochs)]

    def batches(self, epoch: int, start: int) -> Iterator[Indices]:
        """Yield the indices of each batch; starting late costs no more than one permutation."""
        order = self._order(epoch)
        if not self.is_dealt:
            own, size = self._share(order, self.rank), self.batch_size
            for first in range(start * size, len(self) * size, size):
                yield own[first : first + size].tolist()
            return
        by_share: dict[int, torch.Tensor] = {}
        for batch in range(start, len(self)):
            share, number = self.place(batch)
            if share not in by_share:
                by_share[share] = self._share(order, share)
            first = number * self.batch_size
            yield by_share[share][first : first + self.batch_size].tolist()

    def num_samples(self, epoch: int, batch: int) -> int:  # noqa: ARG002 -- alike in all epochs
        """Return the number of samples in a batch."""
        if not self.is_dealt:
            return min(self.batch_size, self._own_size - batch * self.batch_size)
        share, number = self.place(batch)
        return min(self.batch_size, self._share_size(share) - number * self.batch_size)

    def place(self, batch: int) -> tuple[int, int]:
        """Return the share that this rank's batch ``batch`` comes from, and its number there."""
        return _place(batch, self.rank, self.world_size, self._num_shares())

    def dealt(self, shares: int) -> SampleOrder:
        """Return this rank's part of the batches that are made for ``shares`` processes."""
        return replace(self, shares=shares)

    @functools.cached_property
    def is_dealt(self) -> bool:
        """Return True if the batches are made for another number of processes."""
        return self._num_shares() != self.world_size

    @functools.cached_property
    def _own_size(self) -> int:
        return self._share_size(self.rank)

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
        self._passes = SamplerPasses(sampler, seed, reported=rank == 0)
        samplers = (sampler, getattr(sampler, "sampler", None))
        splitting = [type(part).__name__ for part in samplers if hasattr(part, "num_replicas")]
        self._splits_by_rank = splitting[0] if splitting else None
        self._rank, self._world_size = (0, 1) if splitting else (rank, world_size)
        self._even, self._shares = even, self._world_size
        self._total = len(sampler)
        if self._total < self._world_size:
            raise MtfError(
                f"the sampler makes {self._total} batches, too few for {world_size} ranks"
            )

    def __len__(self) -> int:
        """Return the number of batches of this rank, in the newest epoch."""
        return self._part_of(self._total)

    def _part_of(self, total: int) -> int:
        if self._even:  # the first batches are used twice if needed
            total = -(-total // self._shares) * self._shares
        return _part(total, self._rank, self._world_size)

    @property
    def is_alike(self) -> bool:
        """Return True if the sampler is of torch; only another one itself knows."""
        return self._passes.is_plain

    def begun(self, epoch: int, seeded_as: int) -> CustomSamplerOrder:
        """Return this order, which has drawn the batches of an epoch."""
        self._total = len(self._passes.batches(epoch, seeded_as))
        return self

    def expected(self, epochs: int, set_epoch: Callable[[int], None] | None) -> list[int]:
        """Return the number of batches in each of the first epochs."""
        if set_epoch is not None:
            set_epoch(0)
        return [self._part_of(total) for total in self._passes.expected_counts(epochs)]

    def batches(self, epoch: int, start: int) -> Iterator[Indices]:
        """Yield the indices of each batch; a late start runs the sampler from its beginning."""
        batches = self._passes.newest(epoch)
        own = range(self._rank, len(self) * self._world_size, self._world_size)
        return (batches[number % len(batches)] for number in own[start:])

    def num_samples(self, epoch: int, batch: int) -> int:
        """Return the number of samples in a batch."""
        batches = self._passes.newest(epoch)
        return len(batches[(self._rank + batch * self._world_size) % len(batches)])

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
                f"its sampler ({self._splits_by_rank}) splits the samples between the"
                " processes that there are"
            )
        order = copy.copy(self)
        order._shares = shares  # noqa: SLF001 -- its own class
        return order


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
        source=inner.data_source,
    )
