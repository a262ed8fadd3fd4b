"""The order of samples: which indices make which batch, from (seed, epoch, batch, rank, ranks)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler

from mtf.errors import MtfError
from mtf.trainer.compute.rng import seed_at, temporarily_seeded

if TYPE_CHECKING:
    from collections.abc import Iterator

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

    def samples_used(self, batches: int, world_size: int) -> int:
        """Return the number of samples in the first ``batches`` batches of all ranks together."""
        ...

    def after_samples(self, offset: int) -> BatchOrder:
        """Return the order of an epoch without its first ``offset`` samples, over all ranks.

        Raises:
            MtfError: the order cannot be continued from there.
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
    offset: int = 0  # samples left out at the start of the epoch
    even: bool | None = None  # give all ranks the same number of samples; None: if shuffled

    def __len__(self) -> int:
        """Return the number of batches of this rank."""
        whole, rest = divmod(self._num_samples(), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def batches(self, epoch: int, start: int) -> Iterator[Indices]:
        """Yield the indices of each batch; starting late costs no more than one permutation."""
        indices = self._indices(epoch)
        for batch in range(start, len(self)):
            yield indices[batch * self.batch_size : (batch + 1) * self.batch_size].tolist()

    def num_samples(self, epoch: int, batch: int) -> int:  # noqa: ARG002 -- alike in all epochs
        """Return the number of samples in a batch."""
        return min(self.batch_size, self._num_samples() - batch * self.batch_size)

    def samples_used(self, batches: int, world_size: int) -> int:
        """Return the number of samples in the first ``batches`` batches of all ranks together."""
        return min(self.size, self.offset + batches * self.batch_size * world_size)

    def after_samples(self, offset: int) -> SampleOrder:
        """Return the order of an epoch without its first ``offset`` samples.

        Ranks take samples in turn. So for any number of ranks, the samples that are left are the
        end of the same order.
        """
        return replace(self, offset=offset)

    def _is_even(self) -> bool:
        return self.shuffled if self.even is None else self.even

    def _num_samples(self) -> int:
        up = self.world_size - 1 if self._is_even() else self.world_size - 1 - self.rank
        return (self.size - self.offset + up) // self.world_size

    def _indices(self, epoch: int) -> torch.Tensor:
        if self.shuffled:
            generator = torch.Generator().manual_seed(seed_at("order", self.seed, epoch))
            order = torch.randperm(self.size, generator=generator)[self.offset :]
        else:
            order = torch.arange(self.offset, self.size)
        if not self._is_even():
            return order[self.rank :: self.world_size]
        own = torch.arange(self._num_samples()) * self.world_size + self.rank
        return order[own % max(len(order), 1)]


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
        splits_by_rank = any(hasattr(part, "num_replicas") for part in self._samplers())
        self._rank, self._world_size = (0, 1) if splits_by_rank else (rank, world_size)
        count = len(sampler)
        if count < self._world_size:
            raise MtfError(f"the sampler makes {count} batches, too few for {world_size} ranks")
        up = self._world_size - 1 if even else self._world_size - 1 - self._rank
        self._length = (count + up) // self._world_size

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

    def samples_used(self, batches: int, world_size: int) -> int:
        """Return 0 at the beginning of an epoch.

        Raises:
            MtfError: the epoch has begun: a sampler does not say which samples other ranks got.
        """
        if batches == 0:
            return 0
        raise MtfError(
            f"a custom sampler cannot resume an epoch with a different number of processes: it was"
            f" begun by {world_size}. Set slurm.nodes and slurm.ntasks_per_node as they were"
        )

    def after_samples(self, offset: int) -> CustomSamplerOrder:
        """Return this order, since no sample has been used."""
        assert offset == 0
        return self


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
