"""Training batches: their samples and random numbers depend on (seed, epoch, batch) alone.

No loader and no worker holds state. A resume opens the epoch at its next batch, with any number of
data workers.
"""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass
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
from mtf.trainer.compute.rng import seed_at, seed_cpu, temporarily_seeded
from mtf.trainer.data.order import order_from_sampler
from mtf.trainer.data.sample_counts import CountedBatches, CountingCollate, count_samples
from mtf.trainer.data.worker_errors import WorkerInit
from mtf.trainer.runtime.process_end import starting_data_workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mtf.trainer.data.order import BatchOrder, Indices


class Batches(Protocol):
    """The data that the loop trains or validates on.

    Data that knows how many samples a batch has says so by the optional method
    ``num_samples(epoch, batch)``, see ``data.sample_counts``.
    """

    def __len__(self) -> int:
        """Return the number of batches in an epoch, at least 1."""
        ...

    def batches(self, epoch: int, start: int) -> Iterator[Any]:
        """Yield the batches of an epoch, from batch ``start`` on."""
        ...


def open_epoch(batches: Batches, epoch: int, start: int) -> Iterator[Any]:
    """Yield the batches of an epoch from batch ``start`` on, exactly as many as its length says.

    Raises:
        RuntimeError: there are fewer.
    """
    count, remaining = len(batches), batches.batches(epoch, start)
    for done in range(start, count):
        try:
            batch = next(remaining)
        except StopIteration:
            raise RuntimeError(
                f"the loader's __len__ promised {count} batches, but it gave {done}: fix __len__"
            ) from None
        yield batch


class TensorBatches:
    """Batches of tensors in memory: each is one index operation, without data workers."""

    def __init__(self, tensors: Sequence[torch.Tensor], order: BatchOrder) -> None:
        self._tensors = tensors
        self._order = order

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self._order)

    def batches(self, epoch: int, start: int) -> Iterator[tuple[torch.Tensor, ...]]:
        """Yield tuples of tensors whose first dimension is the batch."""
        for indices in self._order.batches(epoch, start):
            chosen = torch.tensor(indices)
            yield tuple(tensor[chosen] for tensor in self._tensors)

    def num_samples(self, epoch: int, batch: int) -> int:
        """Return the number of samples in a batch."""
        return self._order.num_samples(epoch, batch)

    def samples(self, epoch: int, batch: int) -> Indices:
        """Return the indices of the samples of a batch."""
        return next(self._order.batches(epoch, batch))

    def dealt(self, shares: int, world_size: int) -> TensorBatches:  # noqa: ARG002 -- see data.mixing.deal
        """Return this rank's part of the batches that are made for ``shares`` processes."""
        return TensorBatches(self._tensors, self._order.dealt(shares))


class LoadedBatches:
    """Batches of a map-style data set, made by torch's DataLoader and its workers.

    Args:
        dataset: the data set.
        order: which of its samples make which batch.
        seed: the training's seed.
        stream: separates the random numbers of these batches from others.
        collate_fn: turns a list of samples into a batch; without batching, it gets each item.
        is_batched: False where each item of the data set is a whole batch.
        options: further options of torch's DataLoader.
    """

    def __init__(
        self,
        dataset: Any,
        order: BatchOrder,
        *,
        seed: int,
        stream: Stream,
        collate_fn: Callable[[Any], Any] = default_collate,
        is_batched: bool = True,
        **options: Any,
    ) -> None:
        self._sampler = _PositionedBatches(order, stream)
        self._order = order
        self._counted = None if is_batched else CountedBatches()
        self._copy: Callable[..., LoadedBatches] = partial(
            LoadedBatches,
            dataset,
            seed=seed,
            collate_fn=collate_fn,
            is_batched=is_batched,
            **options,
        )
        batching: Any = {"batch_sampler": self._sampler}
        if not is_batched:
            batching = {"batch_size": None, "sampler": self._sampler}
        seeded = _SeededBatchDataset(dataset, seed, collate_fn, is_batched=is_batched)
        init = WorkerInit(options.pop("worker_init_fn", None))
        self._loader: DataLoader[Any] = DataLoader(
            seeded, collate_fn=_identity, worker_init_fn=init, **batching, **options
        )

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self._sampler)

    def batches(self, epoch: int, start: int) -> Iterator[Any]:
        """Yield the collated batches of an epoch, from batch ``start`` on."""
        self._sampler.epoch, self._sampler.start = epoch, start
        batches = _open_without_side_effects(self._loader)
        return batches if self._counted is None else self._counted.opened(batches, epoch, start)

    def num_samples(self, epoch: int, batch: int) -> int | None:
        """Return the number of samples in a batch.

        Where each item of the data set is a whole batch, only the newest one's is known.
        """
        if self._counted is None:
            return self._order.num_samples(epoch, batch)
        return self._counted.of(epoch, batch)

    def samples(self, epoch: int, batch: int) -> Indices:
        """Return the indices of the samples of a batch."""
        return next(self._order.batches(epoch, batch))

    def dealt(self, shares: int, world_size: int) -> LoadedBatches:  # noqa: ARG002 -- see data.mixing.deal
        """Return this rank's part of the batches that are made for ``shares`` processes.

        Their samples draw the same random numbers as before.
        """
        return self._copy(self._order.dealt(shares), stream=self._sampler.stream)


class ReplayedBatches:
    """Batches of a non-seekable loader, such as one of an IterableDataset.

    The generators are seeded at the start of the epoch, and a resume makes the earlier batches
    again. The order depends on which worker makes which sample, so a resume needs the same number
    of workers. Each epoch starts new workers: persistent ones would go on with the generator
    states of the epoch before.

    Attributes:
        fixed: settings that a resume may not change, from configuration key to value.
    """

    def __init__(self, loader: DataLoader[Any], seed: int, stream: Stream) -> None:
        self._loader = copy.copy(loader)
        vars(self._loader)["persistent_workers"] = False
        vars(self._loader)["worker_init_fn"] = WorkerInit(loader.worker_init_fn)
        self._counted: CountedBatches | None = None
        if type(loader).__iter__ is DataLoader.__iter__:  # else it may expect its own batches
            self._counted = CountedBatches()
            is_batched = loader.batch_sampler is not None
            vars(self._loader)["collate_fn"] = CountingCollate(
                loader.collate_fn, is_batched=is_batched
            )
        self._seed_parts = (seed, stream.name, stream.rank)
        self.fixed = {"data.num_workers": loader.num_workers}

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self._loader)

    def batches(self, epoch: int, start: int) -> Iterator[Any]:
        """Yield the loader's batches after the first ``start``."""
        if hasattr(self._loader.dataset, "set_epoch"):
            self._loader.dataset.set_epoch(epoch)
        seed = seed_at("loader", *self._seed_parts, epoch)
        with temporarily_seeded(seed), starting_data_workers():
            batches: Iterator[Any] = iter(self._loader)
        if self._counted is not None:
            batches = self._counted.opened(batches, epoch, 0)
        for batch in itertools.count():
            with temporarily_seeded(seed_at("data", *self._seed_parts, epoch, batch)):
                content = next(batches, _END)
            if content is _END:
                return
            if batch >= start:
                yield content

    def num_samples(self, epoch: int, batch: int) -> int | None:
        """Return the number of samples in the newest batch, None for any other."""
        return None if self._counted is None else self._counted.of(epoch, batch)


_END = object()


@dataclass(frozen=True)
class Stream:
    """Name of a sequence of batches; its random numbers are independent of other streams'."""

    name: str  # "validation", "train", or "train/" and the name of one of several sets
    rank: int = 0

    @property
    def is_train(self) -> bool:
        """Return True if these batches are trained on, not validated on."""
        return self.name != "validation"


def tensors_of(dataset: object) -> Sequence[torch.Tensor] | None:
    """Return the tensors of a data set that only indexes them and draws no numbers, else None."""
    if isinstance(dataset, TensorDataset) and _is_plain(type(dataset)):
        return dataset.tensors
    if type(dataset) is Subset and (tensors := tensors_of(dataset.dataset)):
        return [tensor[torch.as_tensor(dataset.indices)] for tensor in tensors]
    return None


def _is_plain(kind: type[TensorDataset]) -> bool:
    return kind.__getitem__ is TensorDataset.__getitem__ and not hasattr(kind, "__getitems__")


def batches_from_loader(loader: Any, *, seed: int, stream: Stream, world_size: int) -> Batches:
    """Return the batches of a user's DataLoader, made repeatable: same data, sizes and workers.

    Raises:
        MtfError: it is not a DataLoader, has no length, or has no batch.
    """
    if not isinstance(loader, DataLoader):
        if hasattr(loader, "batches") and hasattr(loader, "__len__"):
            batches: Batches = loader  # a user's own, with the methods of the protocol
            return batches
        raise MtfError(f"a {type(loader).__name__} is not a torch DataLoader: wrap the data in one")
    try:
        length = len(loader)
    except TypeError:
        raise MtfError(
            "the loader has no length: give its data set a __len__ that returns the number of"
            " samples in an epoch"
        ) from None
    if length == 0:
        raise MtfError(
            "the loader has no batch: the data set is empty, or drop_last leaves nothing"
        )
    if isinstance(loader.dataset, IterableDataset):
        return ReplayedBatches(loader, seed, stream)
    is_batched = loader.batch_sampler is not None
    sampler = (
        loader.batch_sampler if is_batched else BatchSampler(loader.sampler, 1, drop_last=False)
    )
    order = order_from_sampler(sampler, seed, stream.rank, world_size, even=stream.is_train)
    return LoadedBatches(
        loader.dataset,
        order,
        seed=seed,
        stream=stream,
        is_batched=is_batched,
        **_options_of(loader),
    )


def _options_of(loader: DataLoader[Any]) -> dict[str, Any]:
    names = ["num_workers", "collate_fn", "pin_memory", "timeout", "worker_init_fn"]
    if loader.num_workers:
        names += ["prefetch_factor", "persistent_workers", "multiprocessing_context"]
    return {name: getattr(loader, name) for name in names}


@dataclass(frozen=True)
class _Position:
    """The position of a batch; the data worker gets it together with the indices."""

    stream: str
    epoch: int
    batch: int
    rank: int


class _PositionedBatches:
    """The sampler that a DataLoader gets: yields the position and the indices of each batch."""

    def __init__(self, order: BatchOrder, stream: Stream) -> None:
        self._order = order
        self.stream = stream
        self.epoch = self.start = 0

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[_PositionedIndices]:
        epoch, start = self.epoch, self.start
        for batch, indices in enumerate(self._order.batches(epoch, start), start):
            rank, number = self.stream.rank, batch
            if self._order.is_dealt:
                rank, number = self._order.place(batch)
            yield _Position(self.stream.name, epoch, number, rank), indices


_PositionedIndices = tuple[_Position, "Indices"]


class _SeededBatchDataset(Dataset[Any]):
    """Makes whole batches, in any process, with generators seeded from the batch's position.

    It collates too, because a collate function may draw random numbers, for example to mix samples.
    """

    def __init__(
        self, dataset: Any, seed: int, collate: Callable[[Any], Any], *, is_batched: bool
    ) -> None:
        self._dataset = dataset
        self._seed = seed
        self._collate = collate
        self._is_batched = is_batched
        self._draws_nothing = tensors_of(dataset) is not None and collate is default_collate

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, positioned: _PositionedIndices) -> Any:
        position, indices = positioned
        if self._draws_nothing:
            return self._make(indices)
        seed = seed_at(
            "data", self._seed, position.stream, position.epoch, position.batch, position.rank
        )
        if get_worker_info() is None:
            with temporarily_seeded(seed):
                return self._make(indices)
        seed_cpu(seed)
        return self._make(indices)

    __getitems__ = __getitem__  # torch calls it where a loader makes batches

    def _make(self, indices: Indices) -> Any:
        if not self._is_batched:
            item = self._dataset[indices[0]]
            return count_samples(item), self._collate(item)
        get_all: Callable[[Indices], Any] | None = getattr(self._dataset, "__getitems__", None)
        samples = get_all(indices) if get_all else [self._dataset[index] for index in indices]
        return self._collate(samples)


def _identity(batch: Any) -> Any:
    return batch


def _open_without_side_effects(loader: DataLoader[Any]) -> Iterator[Any]:
    """Open a loader without changing any generator, and with workers that ignore our signals.

    ``iter`` always draws the workers' base seed from the global generator. A resume opens the
    loader once more, which would shift every dropout mask that follows.
    """
    before = torch.get_rng_state()
    try:
        with starting_data_workers():
            return iter(loader)
    finally:
        torch.set_rng_state(before)
