"""Batches as pure functions of (seed, epoch, batch): which samples, and all that is random in them.

No loader and no worker holds state. A resume opens the epoch at its next batch, whatever number of
workers made the batches before.
"""

from __future__ import annotations

import itertools
import signal
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
    get_worker_info,
)

from mtf.errors import MtfError
from mtf.trainer.preemption import SIGNALS
from mtf.trainer.rng import apart, seed_at, seed_cpu

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Indices = list[int]


class Batches(Protocol):
    """What the loop trains on."""

    def __len__(self) -> int:
        """Return the number of batches of an epoch, at least 1."""
        ...

    def batches(self, epoch: int, start: int) -> Iterator[Any]:
        """Yield the batches of an epoch from number ``start`` on."""
        ...


class Order(Protocol):
    """Which samples make which batch."""

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        ...

    def batches(self, epoch: int, start: int) -> Iterator[Indices]:
        """Yield the batches of an epoch from number ``start`` on, as sample indices."""
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

    def __len__(self) -> int:
        """Return the number of batches of this rank."""
        whole, rest = divmod(self._share(), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def batches(self, epoch: int, start: int) -> Iterator[Indices]:
        """Yield lists of sample indices; a late start costs one permutation, no more."""
        order = self._order(epoch)
        for batch in range(start, len(self)):
            yield order[batch * self.batch_size : (batch + 1) * self.batch_size].tolist()

    def _share(self) -> int:
        up = self.world_size - 1 if self.shuffled else self.world_size - 1 - self.rank
        return (self.size + up) // self.world_size

    def _order(self, epoch: int) -> torch.Tensor:
        if not self.shuffled:
            return torch.arange(self.rank, self.size, self.world_size)
        generator = torch.Generator().manual_seed(seed_at("order", self.seed, epoch))
        order = torch.randperm(self.size, generator=generator)
        dealt = torch.arange(self.rank, self._share() * self.world_size, self.world_size)
        return order[dealt % self.size]


class SampledOrder:
    """The order of a user's own sampler, made repeatable: it draws from generators of the epoch."""

    def __init__(self, sampler: Any, seed: int) -> None:
        self._sampler = sampler
        self._seed = seed

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self._sampler)

    def batches(self, epoch: int, start: int) -> Iterator[Indices]:
        """Yield lists of indices; a late start asks the sampler for the earlier ones again."""
        for sampler in (self._sampler, getattr(self._sampler, "sampler", None)):
            if set_epoch := getattr(sampler, "set_epoch", None):
                set_epoch(epoch)
            if isinstance(generator := getattr(sampler, "generator", None), torch.Generator):
                generator.manual_seed(seed_at("order", self._seed, epoch))
        with apart(seed_at("order", self._seed, epoch)):
            batches = list(self._sampler)
        return iter(batches[start:])


class TensorBatches:
    """Batches of data that lies in memory: cut out at once, without workers."""

    def __init__(self, tensors: Sequence[torch.Tensor], order: Order) -> None:
        self._tensors = tensors
        self._order = order

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return len(self._order)

    def batches(self, epoch: int, start: int) -> Iterator[tuple[torch.Tensor, ...]]:
        """Yield tuples of tensors whose first dimension is the batch."""
        for indices in self._order.batches(epoch, start):
            chosen = torch.tensor(indices)
            yield tuple(tensor[chosen] for tensor in self._tensors)


class LoadedBatches:
    """Batches of a map-style data set through torch's DataLoader and its workers."""

    def __init__(
        self, dataset: Any, order: Order, *, seed: int, stream: Stream, **options: Any
    ) -> None:
        self._places = _Places(order, stream)
        self._loader: DataLoader[Any] = DataLoader(
            _Seeded(dataset, seed), batch_sampler=self._places, **options
        )

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return len(self._places)

    def batches(self, epoch: int, start: int) -> Iterator[Any]:
        """Yield what the data set's samples collate to."""
        self._places.epoch, self._places.start = epoch, start
        return _iter_unseen(self._loader)


class ReplayedBatches:
    """Batches of a loader that cannot be sought, such as of an iterable data set.

    The epoch's generators are seeded at its start and earlier batches are made once more.
    """

    def __init__(self, loader: DataLoader[Any], seed: int) -> None:
        self._loader = loader
        self._seed = seed

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return len(self._loader)

    def batches(self, epoch: int, start: int) -> Iterator[Any]:
        """Yield the loader's batches after the first ``start``."""
        if hasattr(self._loader.dataset, "set_epoch"):
            self._loader.dataset.set_epoch(epoch)
        with apart(seed_at("loader", self._seed, epoch)):
            batches = iter(self._loader)
        for batch in itertools.count():
            with apart(seed_at("data", self._seed, epoch, batch)):
                made = next(batches, _END)
            if made is _END:
                return
            if batch >= start:
                yield made


_END = object()


@dataclass(frozen=True)
class Stream:
    """Tells the random numbers of one rank's training batches from all others."""

    name: str  # "train" or "validation"
    rank: int = 0


def in_memory(dataset: object) -> Sequence[torch.Tensor] | None:
    """Return the tensors of a data set that is nothing else, and so draws no random numbers."""
    if isinstance(dataset, TensorDataset) and _is_plain(type(dataset)):
        return dataset.tensors
    if type(dataset) is Subset and (tensors := in_memory(dataset.dataset)):
        return [tensor[torch.as_tensor(dataset.indices)] for tensor in tensors]
    return None


def _is_plain(kind: type[TensorDataset]) -> bool:
    return kind.__getitem__ is TensorDataset.__getitem__ and not hasattr(kind, "__getitems__")


def of_loader(loader: Any, *, seed: int, stream: Stream, world_size: int) -> Batches:
    """Return a user's DataLoader as exact batches: same data, sizes and workers.

    Raises:
        MtfError: it has no length.
    """
    if not isinstance(loader, DataLoader):
        if hasattr(loader, "batches") and hasattr(loader, "__len__"):
            return loader  # type: ignore[no-any-return]  # the protocol, by its methods
        raise MtfError(f"a {type(loader).__name__} is not a torch DataLoader: wrap the data in one")
    try:
        length = len(loader)
    except TypeError:
        raise MtfError(
            "the loader has no length: give its data set a __len__ that says how many samples an"
            " epoch has"
        ) from None
    if length == 0:
        raise MtfError("the loader has no batch: the data set is empty, or drop_last drops it all")
    if loader.batch_sampler is None or isinstance(loader.dataset, IterableDataset):
        return ReplayedBatches(loader, seed)
    order = _order_of(loader.batch_sampler, seed, stream.rank, world_size)
    return LoadedBatches(loader.dataset, order, seed=seed, stream=stream, **_options_of(loader))


def _order_of(sampler: Any, seed: int, rank: int, world_size: int) -> Order:
    inner: Any = getattr(sampler, "sampler", None)
    shuffled = type(inner) is RandomSampler and not inner.replacement
    if type(sampler) is not BatchSampler or not (shuffled or type(inner) is SequentialSampler):
        return SampledOrder(sampler, seed)
    size = len(inner.data_source)
    if len(inner) != size:  # RandomSampler(num_samples=...)
        return SampledOrder(sampler, seed)
    return Plan(size, sampler.batch_size, seed, shuffled, sampler.drop_last, rank, world_size)


def _options_of(loader: DataLoader[Any]) -> dict[str, Any]:
    names = ["num_workers", "collate_fn", "pin_memory", "timeout", "worker_init_fn"]
    if loader.num_workers:
        names += ["prefetch_factor", "persistent_workers", "multiprocessing_context"]
    return {name: getattr(loader, name) for name in names}


@dataclass(frozen=True)
class _Place:
    """Where a batch stands; it travels to the worker as the first of its indices."""

    stream: str
    epoch: int
    batch: int
    rank: int


class _Places:
    """Puts its place before each batch's indices."""

    def __init__(self, order: Order, stream: Stream) -> None:
        self._order = order
        self._stream = stream
        self.epoch = self.start = 0

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[list[Any]]:
        epoch, start = self.epoch, self.start
        for batch, indices in enumerate(self._order.batches(epoch, start), start):
            yield [_Place(self._stream.name, epoch, batch, self._stream.rank), *indices]


class _Seeded(Dataset[Any]):
    """Seeds python, numpy and torch for each batch from its place, in whatever process."""

    def __init__(self, dataset: Any, seed: int) -> None:
        self._dataset = dataset
        self._seed = seed
        self._pure = in_memory(dataset) is not None

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Any:
        return self._dataset[index]

    def __getitems__(self, placed: list[Any]) -> Any:
        place, *indices = placed
        if self._pure:
            return self._fetch(indices)
        seed = seed_at("data", self._seed, place.stream, place.epoch, place.batch, place.rank)
        if get_worker_info() is None:
            with apart(seed):
                return self._fetch(indices)
        seed_cpu(seed)
        return self._fetch(indices)

    def _fetch(self, indices: Indices) -> Any:
        whole: Callable[[Indices], Any] | None = getattr(self._dataset, "__getitems__", None)
        return whole(indices) if whole else [self._dataset[index] for index in indices]


def _iter_unseen(loader: DataLoader[Any]) -> Iterator[Any]:
    """Open a loader so that neither the generators nor a signal notice it.

    ``iter`` draws the workers' base seed from the global generator, shuffled or not: a second one
    after a resume would shift every dropout that follows. And a worker that dies of the TERM that
    SLURM sends to every process would fail the training before it can save.
    """
    before = torch.get_rng_state()
    try:
        with _signals_held():
            return iter(loader)
    finally:
        torch.set_rng_state(before)


@contextmanager
def _signals_held() -> Iterator[None]:
    """Hold our signals back; processes that start meanwhile never get them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
