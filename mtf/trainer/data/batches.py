"""Batches as pure functions of (seed, epoch, batch): which samples, and all that is random in them.

No loader and no worker holds state. A resume opens the epoch at its next batch, whatever number of
workers made the batches before.
"""

from __future__ import annotations

import copy
import itertools
import signal
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    default_collate,
    get_worker_info,
)

from mtf.errors import MtfError
from mtf.trainer.compute.rng import apart, seed_at, seed_cpu
from mtf.trainer.data.order import order_of
from mtf.trainer.runtime.signals import SIGNALS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mtf.trainer.data.order import Indices, Order


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
    """Batches of a map-style data set through torch's DataLoader and its workers.

    Args:
        dataset: the data set.
        order: which of its samples make which batch.
        seed: of the training.
        stream: tells these batches' random numbers from others.
        collate_fn: makes a batch of samples; where the loader does not batch, of what is one.
        is_batched: whether a batch is made of samples; False: each one of the order's is a batch.
        options: further ones of torch's DataLoader.
    """

    def __init__(
        self, dataset: Any, order: Order, *, seed: int, stream: Stream,
        collate_fn: Callable[[Any], Any] = default_collate, is_batched: bool = True, **options: Any,
    ) -> None:  # fmt: skip
        self._places = _Places(order, stream)
        self._order = order
        self._anew: Callable[..., LoadedBatches] = partial(
            LoadedBatches, dataset, seed=seed, collate_fn=collate_fn, is_batched=is_batched,
            **options,
        )  # fmt: skip
        how: Any = {"batch_sampler": self._places}
        if not is_batched:
            how = {"batch_size": None, "sampler": self._places}
        made = _Seeded(dataset, seed, collate_fn, is_batched=is_batched)
        self._loader: DataLoader[Any] = DataLoader(made, collate_fn=_as_it_is, **how, **options)

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return len(self._places)

    def batches(self, epoch: int, start: int) -> Iterator[Any]:
        """Yield what the data set's samples collate to."""
        self._places.epoch, self._places.start = epoch, start
        return _iter_unseen(self._loader)

    def samples(self, epoch: int, batch: int) -> Indices:
        """Return the indices of a batch's samples."""
        return next(self._order.batches(epoch, batch))

    def taken(self, batches: int, world_size: int) -> int:
        """Return how many samples that many batches on each of the ranks have taken."""
        return self._order.taken(batches, world_size)

    def rest(self, offset: int) -> LoadedBatches:
        """Return the batches after the first ``offset`` samples of an epoch."""
        stream = self._places.stream
        stream = replace(stream, name=f"{stream.name}+{offset}")  # other batches, other numbers
        return self._anew(self._order.rest(offset), stream=stream)


class ReplayedBatches:
    """Batches of a loader that cannot be sought, such as of an iterable data set.

    The epoch's generators are seeded at its start and earlier batches are made once more. Which
    worker makes which sample is part of the order, so the number of workers must stay; each epoch
    has new ones, since persistent ones would draw on from the epoch before.

    Attributes:
        fixed: what must be at a resume as it was, by its key in the configuration.
    """

    def __init__(self, loader: DataLoader[Any], seed: int, stream: Stream) -> None:
        self._loader = copy.copy(loader)
        vars(self._loader)["persistent_workers"] = False
        self._place = (seed, stream.name, stream.rank)
        self.fixed = {"data.num_workers": loader.num_workers}

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return len(self._loader)

    def batches(self, epoch: int, start: int) -> Iterator[Any]:
        """Yield the loader's batches after the first ``start``."""
        if hasattr(self._loader.dataset, "set_epoch"):
            self._loader.dataset.set_epoch(epoch)
        with apart(seed_at("loader", *self._place, epoch)), _signals_held():
            batches = iter(self._loader)
        for batch in itertools.count():
            with apart(seed_at("data", *self._place, epoch, batch)):
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
    if isinstance(loader.dataset, IterableDataset):
        return ReplayedBatches(loader, seed, stream)
    is_batched = loader.batch_sampler is not None
    sampler = (
        loader.batch_sampler if is_batched else BatchSampler(loader.sampler, 1, drop_last=False)
    )
    order = order_of(sampler, seed, stream.rank, world_size, even=stream.is_train)
    return LoadedBatches(
        loader.dataset, order, seed=seed, stream=stream, is_batched=is_batched,
        **_options_of(loader),
    )  # fmt: skip


def _options_of(loader: DataLoader[Any]) -> dict[str, Any]:
    names = ["num_workers", "collate_fn", "pin_memory", "timeout", "worker_init_fn"]
    if loader.num_workers:
        names += ["prefetch_factor", "persistent_workers", "multiprocessing_context"]
    return {name: getattr(loader, name) for name in names}


@dataclass(frozen=True)
class _Place:
    """Where a batch stands; it travels to the worker beside its indices."""

    stream: str
    epoch: int
    batch: int
    rank: int


class _Places:
    """Puts its place before each batch's indices."""

    def __init__(self, order: Order, stream: Stream) -> None:
        self._order = order
        self.stream = stream
        self.epoch = self.start = 0

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[_Placed]:
        epoch, start = self.epoch, self.start
        for batch, indices in enumerate(self._order.batches(epoch, start), start):
            yield _Place(self.stream.name, epoch, batch, self.stream.rank), indices


_Placed = tuple[_Place, "Indices"]


class _Seeded(Dataset[Any]):
    """Makes whole batches, in whatever process: its generators are seeded from the batch's place.

    Collating is part of it, for that may draw random numbers too, as mixing samples does.
    """

    def __init__(
        self, dataset: Any, seed: int, collate: Callable[[Any], Any], *, is_batched: bool
    ) -> None:
        self._dataset = dataset
        self._seed = seed
        self._collate = collate
        self._is_batched = is_batched
        self._pure = in_memory(dataset) is not None and collate is default_collate

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, placed: _Placed) -> Any:
        place, indices = placed
        if self._pure:
            return self._made(indices)
        seed = seed_at("data", self._seed, place.stream, place.epoch, place.batch, place.rank)
        if get_worker_info() is None:
            with apart(seed):
                return self._made(indices)
        seed_cpu(seed)
        return self._made(indices)

    __getitems__ = __getitem__  # what torch asks a data set for where a loader makes batches

    def _made(self, indices: Indices) -> Any:
        if not self._is_batched:
            return self._collate(self._dataset[indices[0]])
        whole: Callable[[Indices], Any] | None = getattr(self._dataset, "__getitems__", None)
        samples = whole(indices) if whole else [self._dataset[index] for index in indices]
        return self._collate(samples)


def _as_it_is(batch: Any) -> Any:
    return batch


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
