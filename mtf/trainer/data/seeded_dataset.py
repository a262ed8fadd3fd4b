"""The data set that data workers get: makes whole batches, with generators seeded by position."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from torch.utils.data import Dataset, get_worker_info

from mtf.trainer.compute.rng import TemporarilySeeded, seed_at, seed_cpu
from mtf.trainer.data.own_generators import OwnGenerators
from mtf.trainer.data.sample_counts import count_samples
from mtf.trainer.data.user_parts import epoch_setters

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtf.trainer.data.order import Indices


class Position(NamedTuple):
    """The position of a batch; the data worker gets it together with the indices.

    Attributes:
        data_epoch: the epoch that the ``set_epoch`` of data sets gets.
        epoch: the epoch as seeds are made of it.
    """

    stream: str
    data_epoch: int
    epoch: int
    batch: int
    rank: int


PositionedIndices = tuple[Position, "Indices"]


class SeededBatchDataset(Dataset[Any]):
    """Makes whole batches, in any process, with generators seeded from the batch's position.

    It collates too, because a collate function may draw random numbers, for example to mix samples.
    In each process it tells the data set every epoch, since workers may outlive an epoch.
    """

    def __init__(
        self,
        dataset: Any,
        seed: int,
        collate: Callable[[Any], Any],
        *,
        is_batched: bool,
        draws_nothing: bool,
        reported: bool,
    ) -> None:
        self._dataset = dataset
        self._seed = seed
        self._collate = collate
        self._is_batched = is_batched
        self._draws_nothing = draws_nothing
        self._data_epoch: int | None = None
        self._find(reported=reported)

    def _find(self, *, reported: bool) -> None:
        self._setters = epoch_setters(self._dataset)
        self._own = OwnGenerators(self._dataset, self._collate, reported=reported)

    def __getstate__(self) -> dict[str, Any]:  # for workers that are not forked
        return {**vars(self), "_setters": None, "_own": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._find(reported=False)

    @property
    def has_set_epoch(self) -> bool:
        """Return True if the data set has a ``set_epoch``."""
        return bool(self._setters)

    def set_epoch(self, epoch: int) -> None:
        """Tell the data set the epoch, unless it knows."""
        if epoch != self._data_epoch:
            self._data_epoch = epoch
            for set_epoch in self._setters:
                set_epoch(epoch)

    def forget_epoch(self) -> None:
        """Tell the data set the next epoch in any case."""
        self._data_epoch = None

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, positioned: PositionedIndices) -> Any:
        position, indices = positioned
        if position.data_epoch != self._data_epoch:
            self.set_epoch(position.data_epoch)
        if self._draws_nothing:
            return self._make(indices)
        place = ("data", self._seed, position.stream, position.epoch, position.batch, position.rank)
        if self._own:
            self._own.seed(*place)
        seed = seed_at(*place)
        if get_worker_info() is None:
            with TemporarilySeeded(seed):
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
