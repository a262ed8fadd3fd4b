"""Training batches: their samples and random numbers depend on (seed, epoch, batch) alone.

No loader and no worker holds state. A resume opens the epoch at its next batch, with any number of
data workers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    Subset,
    TensorDataset,
    default_collate,
)

from mtf.errors import MtfError
from mtf.trainer.data.order import order_from_sampler
from mtf.trainer.data.sample_counts import CountedBatches
from mtf.trainer.data.seeded_dataset import Position, SeededBatchDataset
from mtf.trainer.data.streams import ReplayedBatches
from mtf.trainer.data.worker_errors import WorkerInit
from mtf.trainer.runtime.process_end import starting_data_workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mtf.trainer.data.order import BatchOrder, Indices
    from mtf.trainer.data.seeded_dataset import PositionedIndices


class Batches(Protocol):
    """The data that the loop trains or validates on.

    Data that knows how many samples a batch has says so by the optional method
    ``num_samples(epoch, batch)``, see ``data.sample_counts``. Data whose epochs differ says how
    many batches one has by ``num_batches(epoch)``, see ``data.epochs``.
    """

    def __len__(self) -> int:
        """Return the number of batches in an epoch, at least 1; asked anew in each epoch."""
        ...

    def batches(self, epoch: int, start: int) -> Iterator[Any]:
        """Yield the batches of an epoch, from batch ``start`` on."""
        ...


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

    is_alike = True  # every epoch has the same numbers of batches and samples
    may_give_more = False

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
        self.present = 0  # the epoch that has begun
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
        self._data = SeededBatchDataset(
            dataset,
            seed,
            collate_fn,
            is_batched=is_batched,
            draws_nothing=tensors_of(dataset) is not None and collate_fn is default_collate,
            reported=stream.rank == 0,
        )
        init = WorkerInit(options.pop("worker_init_fn", None))
        self._loader: DataLoader[Any] = DataLoader(
            self._data, collate_fn=_identity, worker_init_fn=init, **batching, **options
        )

        self._is_direct = not self._loader.num_workers and not self._loader.pin_memory

    def __len__(self) -> int:
        """Return the number of batches in the newest epoch."""
        return len(self._order)

    def num_batches(self, epoch: int) -> int:
        """Return the number of batches in an epoch; data set and sampler are told the epoch."""
        self.present = epoch
        self._data.set_epoch(epoch)
        self._order = self._sampler.order = self._order.begun(epoch, self._seeded_as(epoch))
        return len(self._order)

    @property
    def is_alike(self) -> bool:
        """Return True if every epoch has the same numbers of batches and samples."""
        return self._counted is None and not self._data.has_set_epoch and self._order.is_alike

    def expected_batches(self, epochs: int) -> list[int]:
        """Return the number of batches in each of the first epochs."""
        numbers = self._order.expected(
            epochs, self._data.set_epoch if self._data.has_set_epoch else None
        )
        self._data.forget_epoch()
        return numbers

    def batches(self, epoch: int, start: int) -> Iterator[Any]:
        """Yield the collated batches of an epoch, from batch ``start`` on."""
        self.num_batches(epoch)
        sampler = self._sampler
        sampler.data_epoch, sampler.epoch, sampler.start = epoch, self._seeded_as(epoch), start
        if self._is_direct:  # the loader would do the same, and take 12 µs a batch for it
            batches: Iterator[Any] = map(self._data.__getitem__, sampler)
        else:
            batches = _open_without_side_effects(self._loader)
        return batches if self._counted is None else self._counted.opened(batches, epoch, start)

    def num_samples(self, epoch: int, batch: int) -> int | None:
        """Return the number of samples in a batch.

        Where each item of the data set is a whole batch, only the newest one's is known.
        """
        if self._counted is None:
            return self._order.num_samples(self._seeded_as(epoch), batch)
        return self._counted.of(epoch, batch)

    def samples(self, epoch: int, batch: int) -> Indices:
        """Return the indices of the samples of a batch."""
        return next(self._order.batches(self._seeded_as(epoch), batch))

    def _seeded_as(self, epoch: int) -> int:
        """Return the epoch whose seeds an epoch gets: validation draws the same in all of them."""
        return epoch if self._sampler.stream.is_train else 0

    def dealt(self, shares: int, world_size: int) -> LoadedBatches:  # noqa: ARG002 -- see data.mixing.deal
        """Return this rank's part of the batches that are made for ``shares`` processes.

        Their samples draw the same random numbers as before.
        """
        return self._copy(self._order.dealt(shares), stream=self._sampler.stream)


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
    changed = any(hasattr(kind, name) for name in ("__getitems__", "set_epoch"))
    return kind.__getitem__ is TensorDataset.__getitem__ and not changed


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
    _require_batches(loader)
    if isinstance(loader.dataset, IterableDataset) or type(loader).__iter__ is not _ITER:
        return ReplayedBatches(
            loader, seed, stream.name, stream.rank, is_bounded=stream.is_train and world_size > 1
        )
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


_ITER = DataLoader.__iter__  # a class that iterates in its own way is iterated as it is


def _require_batches(loader: DataLoader[Any]) -> None:
    try:
        length = len(loader)
    except TypeError:
        part: Any = loader.dataset
        unit = "samples"
        if not isinstance(part, IterableDataset):
            part = loader.batch_sampler or loader.sampler
            unit = "samples" if loader.batch_sampler is None else "batches"
        raise MtfError(
            f"the loader has no length: give {type(part).__name__} a __len__ that returns the"
            f" number of {unit} in an epoch, also of data that does not end"
        ) from None
    if length == 0:
        raise MtfError(
            "the loader has no batch: the data set is empty, or drop_last leaves nothing"
        )


def _options_of(loader: DataLoader[Any]) -> dict[str, Any]:
    names = ["num_workers", "collate_fn", "pin_memory", "timeout", "worker_init_fn"]
    if loader.num_workers:
        names += ["prefetch_factor", "persistent_workers", "multiprocessing_context"]
    return {name: getattr(loader, name) for name in names}


class _PositionedBatches:
    """The sampler that a DataLoader gets: yields the position and the indices of each batch."""

    def __init__(self, order: BatchOrder, stream: Stream) -> None:
        self.order = order
        self.stream = stream
        self.data_epoch = self.epoch = self.start = 0

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[PositionedIndices]:
        epoch, start, data_epoch = self.epoch, self.start, self.data_epoch
        for batch, indices in enumerate(self.order.batches(epoch, start), start):
            rank, number = self.stream.rank, batch
            if self.order.is_dealt:
                rank, number = self.order.place(batch)
            yield Position(self.stream.name, data_epoch, epoch, number, rank), indices


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
