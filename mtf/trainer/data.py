"""Batches as pure functions of (seed, epoch, batch): which samples, and all that is random in them.

No loader and no worker holds state. A resume opens the epoch at its next batch, whatever number of
workers made the batches before.
"""

from __future__ import annotations

import itertools
import signal
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    get_worker_info,
)

from mtf.errors import MtfError
from mtf.trainer.order import order_of
from mtf.trainer.preemption import SIGNALS
from mtf.trainer.rng import apart, seed_at, seed_cpu

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mtf.trainer.order import Indices, Order


class Batches(Protocol):
    """What the loop trains on."""

    def __len__(self) -> int:
        """Return the number of batches of an epoch, at least 1."""
        ...

    def batches(self, epoch: int, start: int) -> Iterator[Any]:
        """Yield the batches of an epoch from number ``start`` on."""
        ...


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

    def samples(self, epoch: int, batch: int) -> Indices:
        """Return the indices of a batch's samples."""
        return next(self._order.batches(epoch, batch))

    def taken(self, batches: int, world_size: int) -> int:
        """Return how many samples that many batches on each of the ranks have taken."""
        return self._order.taken(batches, world_size)

    def rest(self, offset: int) -> TensorBatches:
        """Return the batches after the first ``offset`` samples of an epoch."""
        return TensorBatches(self._tensors, self._order.rest(offset))


class LoadedBatches:
    """Batches of a map-style data set through torch's DataLoader and its workers."""

    def __init__(
        self, dataset: Any, order: Order, *, seed: int, stream: Stream, **options: Any
    ) -> None:
        self._places = _Places(order, stream)
        self._made_of = (dataset, order, seed, stream, options)
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

    def samples(self, epoch: int, batch: int) -> Indices:
        """Return the indices of a batch's samples."""
        return next(self._made_of[1].batches(epoch, batch))

    def taken(self, batches: int, world_size: int) -> int:
        """Return how many samples that many batches on each of the ranks have taken."""
        return self._made_of[1].taken(batches, world_size)

    def rest(self, offset: int) -> LoadedBatches:
        """Return the batches after the first ``offset`` samples of an epoch."""
        dataset, order, seed, stream, options = self._made_of
        stream = replace(stream, name=f"{stream.name}+{offset}")  # other batches, other numbers
        return LoadedBatches(dataset, order.rest(offset), seed=seed, stream=stream, **options)


class ReplayedBatches:
    """Batches of a loader that cannot be sought, such as of an iterable data set.

    The epoch's generators are seeded at its start and earlier batches are made once more. Which
    worker makes which sample is part of the order, so the number of workers must stay.

    Attributes:
        fixed: what must be at a resume as it was, by its key in the configuration.
    """

    def __init__(self, loader: DataLoader[Any], seed: int) -> None:
        self._loader = loader
        self._seed = seed
        self.fixed = {"data.num_workers": loader.num_workers}

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return len(self._loader)

    def batches(self, epoch: int, start: int) -> Iterator[Any]:
        """Yield the loader's batches after the first ``start``."""
        if hasattr(self._loader.dataset, "set_epoch"):
            self._loader.dataset.set_epoch(epoch)
        with apart(seed_at("loader", self._seed, epoch)), _signals_held():
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

    name: str  # "validation", "train", or "train/" and the name of one of several sets
    rank: int = 0

    @property
    def is_train(self) -> bool:
        """Return whether it is trained on."""
        return self.name != "validation"


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
    order = order_of(loader.batch_sampler, seed, stream.rank, world_size)
    return LoadedBatches(loader.dataset, order, seed=seed, stream=stream, **_options_of(loader))


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
