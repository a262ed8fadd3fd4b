"""Which samples make which batch: pure functions of (seed, epoch, batch, rank, number of ranks)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler

from mtf.errors import MtfError
from mtf.trainer.compute.rng import apart, seed_at

if TYPE_CHECKING:
    from collections.abc import Iterator

Indices = list[int]


class Order(Protocol):
    """Which samples make which batch."""

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        ...

    def batches(self, epoch: int, start: int) -> Iterator[Indices]:
        """Yield the batches of an epoch from number ``start`` on, as sample indices."""
        ...

    def taken(self, batches: int, world_size: int) -> int:
        """Return how many samples of an epoch that many batches on each of the ranks have taken."""
        ...

    def rest(self, offset: int) -> Order:
        """Return the order of an epoch's samples after the first ``offset`` of all ranks.

        Raises:
            MtfError: it cannot be told.
        """
        ...


@dataclass(frozen=True)
class Plan:
    """All samples once an epoch, in a fixed or a shuffled order, one rank's share of them.

    A shuffled order is dealt out evenly: some samples come twice where the ranks do not divide
    them. A fixed one (validation) holds each sample once. The last batch may be smaller.
    """

    size: int
    batch_size: int
    seed: int
    shuffled: bool
    drop_last: bool = False
    rank: int = 0
    world_size: int = 1
    offset: int = 0  # samples of the epoch that are left out at its beginning

    def __len__(self) -> int:
        """Return the number of batches of this rank."""
        whole, rest = divmod(self._share(), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def batches(self, epoch: int, start: int) -> Iterator[Indices]:
        """Yield lists of sample indices; a late start costs one permutation, no more."""
        order = self._order(epoch)
        for batch in range(start, len(self)):
            yield order[batch * self.batch_size : (batch + 1) * self.batch_size].tolist()

    def taken(self, batches: int, world_size: int) -> int:
        """Return how many samples that many batches on each of the ranks have taken."""
        return min(self.size, self.offset + batches * self.batch_size * world_size)

    def rest(self, offset: int) -> Plan:
        """Return the plan of what comes after the first ``offset`` samples of an epoch.

        Samples are dealt out in turn, so whatever the number of ranks was, what is left is the end
        of the same order.
        """
        return replace(self, offset=offset)

    def _share(self) -> int:
        up = self.world_size - 1 if self.shuffled else self.world_size - 1 - self.rank
        return (self.size - self.offset + up) // self.world_size

    def _order(self, epoch: int) -> torch.Tensor:
        if not self.shuffled:
            return torch.arange(self.rank + self.offset, self.size, self.world_size)
        generator = torch.Generator().manual_seed(seed_at("order", self.seed, epoch))
        order = torch.randperm(self.size, generator=generator)[self.offset :]
        dealt = torch.arange(self.rank, self._share() * self.world_size, self.world_size)
        return order[dealt % max(len(order), 1)]


class SampledOrder:
    """The order of a user's own sampler, made repeatable: it draws from generators of the epoch.

    Its batches are dealt out to the ranks in turn, unless it is made for ranks itself.

    Args:
        sampler: of batches.
        seed: of the training.
        rank: this one.
        world_size: the number of ranks.
        even: whether all ranks get the same number of batches, the first ones coming twice if need
            be; else each batch comes once.

    Raises:
        MtfError: there are fewer batches than ranks.
    """

    def __init__(
        self, sampler: Any, seed: int, rank: int = 0, world_size: int = 1, *, even: bool = True
    ) -> None:
        self._sampler = sampler
        self._seed = seed
        deals = any(hasattr(one, "num_replicas") for one in self._samplers())
        self._rank, self._world_size = (0, 1) if deals else (rank, world_size)
        count = len(sampler)
        if count < self._world_size:
            raise MtfError(f"{count} batches of a sampler are too few for {world_size} ranks")
        up = self._world_size - 1 if even else self._world_size - 1 - self._rank
        self._length = (count + up) // self._world_size

    def _samplers(self) -> tuple[Any, Any]:
        return self._sampler, getattr(self._sampler, "sampler", None)

    def __len__(self) -> int:
        """Return the number of batches of this rank."""
        return self._length

    def batches(self, epoch: int, start: int) -> Iterator[Indices]:
        """Yield lists of indices; a late start asks the sampler for the earlier ones again."""
        for sampler in self._samplers():
            if set_epoch := getattr(sampler, "set_epoch", None):
                set_epoch(epoch)
            if isinstance(generator := getattr(sampler, "generator", None), torch.Generator):
                generator.manual_seed(seed_at("order", self._seed, epoch))
        with apart(seed_at("order", self._seed, epoch)):
            batches = list(self._sampler)
        mine = range(self._rank, self._length * self._world_size, self._world_size)
        return (batches[number % len(batches)] for number in mine[start:])

    def taken(self, batches: int, world_size: int) -> int:
        """Return 0 at an epoch's beginning.

        Raises:
            MtfError: it is not at its beginning: which samples a sampler has dealt out to ranks
                that are no more cannot be told.
        """
        if batches == 0:
            return 0
        raise MtfError(
            f"an epoch that {world_size} processes have begun with a sampler of one's own"
            " cannot be continued by another number: give slurm.nodes and slurm.ntasks_per_node"
            " as they were"
        )

    def rest(self, offset: int) -> SampledOrder:
        """Return itself: nothing was taken."""
        assert offset == 0
        return self


def order_of(sampler: Any, seed: int, rank: int, world_size: int, *, even: bool) -> Order:
    """Return the order of a batch sampler of torch, or of the user's own, see ``SampledOrder``."""
    inner: Any = getattr(sampler, "sampler", None)
    shuffled = type(inner) is RandomSampler and not inner.replacement
    if type(sampler) is not BatchSampler or not (shuffled or type(inner) is SequentialSampler):
        return SampledOrder(sampler, seed, rank, world_size, even=even)
    size = len(inner.data_source)
    if len(inner) != size:  # RandomSampler(num_samples=...)
        return SampledOrder(sampler, seed, rank, world_size, even=even)
    return Plan(size, sampler.batch_size, seed, shuffled, sampler.drop_last, rank, world_size)
