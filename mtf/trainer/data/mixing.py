"""Mixing several training sets: each batch is a dict from the name of a set to its batch."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Literal

from mtf.errors import MtfError
from mtf.trainer.data.epochs import OpenEpoch, num_batches_in
from mtf.trainer.data.sample_counts import known_samples
from mtf.trainer.data.streams import ReplayedBatches

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from mtf.trainer.data.batches import Batches

MixingMode = Literal["cycle", "shortest", "in_turn"]


class ParallelBatches:
    """Takes one batch of every set at a time.

    With ``cycled``, an epoch ends with the longest set and shorter sets are repeated, each time in
    a new order; otherwise it ends with the shortest set.
    """

    def __init__(self, sets: Mapping[str, Batches], *, cycled: bool) -> None:
        self._sets, self._cycled = _bounded(sets), cycled
        self.fixed = _fixed_settings(sets)
        lengths = {name: len(batches) for name, batches in sets.items()}
        self._length = self._of(lengths.values())
        self._passes = {name: -(-self._length // length) for name, length in lengths.items()}

    def _of(self, lengths: Iterable[int]) -> int:
        return max(lengths) if self._cycled else min(lengths)

    def __len__(self) -> int:
        """Return the number of batches in an epoch, as the sets say it."""
        return self._length

    def num_batches(self, epoch: int) -> int:
        """Return the number of batches in an epoch."""
        return self._of(
            length_in(batches, epoch * self._passes[name]) for name, batches in self._sets.items()
        )

    def batches(self, epoch: int, start: int) -> Iterator[dict[str, Any]]:
        """Yield dicts from the name of each set to its batch."""
        length = self.num_batches(epoch)
        iterators = {name: self._repeated(name, epoch, start) for name in self._sets}
        for _ in range(start, length):
            yield {name: next(iterator) for name, iterator in iterators.items()}

    def num_samples(self, epoch: int, batch: int) -> int | None:
        """Return the number of samples in a batch, of all sets together."""
        numbers = []
        for name, batches in self._sets.items():
            number, first = divmod(batch, len(batches))  # of passes that are alike, or the only one
            numbers.append(_known_samples(batches, epoch * self._passes[name] + number, first))
        return None if None in numbers else sum(filter(None, numbers))

    def dealt(self, shares: int, world_size: int) -> ParallelBatches:
        """Return this rank's part of the batches that are made for ``shares`` processes.

        Raises:
            MtfError: a set cannot be dealt to so many processes.
        """
        dealt = _dealt_sets(self._sets, shares, world_size)
        return ParallelBatches(dealt, cycled=self._cycled)

    def _repeated(self, name: str, epoch: int, start: int) -> Iterator[Any]:
        """Yield the batches of one set, from batch ``start`` of the mixed epoch on, without end.

        Each pass over the set is an epoch of its own for the set, so that its order is new.
        """
        batches, first = self._sets[name], start
        for number in itertools.count(epoch * self._passes[name]):
            length = length_in(batches, number)
            if first < length:
                opened = OpenEpoch(batches, number, first, length=length)
                yield from itertools.islice(opened, length - first)
            first = max(first - length, 0)


class AlternatingBatches:
    """Takes one batch of one set at a time: the first of each set, then the second of each, ...

    Args:
        sets: the batches of each set, by name.
        at_once: number of batches of a set before it is another one's turn.
    """

    def __init__(self, sets: Mapping[str, Batches], *, at_once: int = 1) -> None:
        self._sets, self._at_once = _bounded(sets), at_once
        self.fixed = _fixed_settings(sets)
        self._set_order({name: len(batches) for name, batches in sets.items()})

    def _set_order(self, lengths: Mapping[str, int]) -> None:
        firsts = range(0, max(lengths.values()), self._at_once)
        self._order = [
            (name, batch)
            for first in firsts
            for name, length in lengths.items()
            for batch in range(first, min(first + self._at_once, length))
        ]

    def __len__(self) -> int:
        """Return the number of batches in the newest epoch."""
        return len(self._order)

    def num_batches(self, epoch: int) -> int:
        """Return the number of batches in an epoch."""
        self._set_order({name: length_in(part, epoch) for name, part in self._sets.items()})
        return len(self._order)

    def dealt(self, shares: int, world_size: int) -> AlternatingBatches:
        """Return this rank's part of the batches that are made for ``shares`` processes.

        Raises:
            MtfError: a set cannot be dealt to so many processes.
        """
        dealt = _dealt_sets(self._sets, shares, world_size)
        return AlternatingBatches(dealt, at_once=shares // world_size)

    def batches(self, epoch: int, start: int) -> Iterator[dict[str, Any]]:
        """Yield dicts from the name of one set to its batch."""
        self.num_batches(epoch)
        iterators: dict[str, Iterator[Any]] = {}
        for name, batch in self._order[start:]:
            if name not in iterators:
                part = self._sets[name]
                length = length_in(part, epoch)
                iterators[name] = OpenEpoch(part, epoch, batch, length=length)
            yield {name: next(iterators[name])}

    def num_samples(self, epoch: int, batch: int) -> int | None:
        """Return the number of samples in a batch, which is of one set."""
        name, number = self._order[batch]
        return _known_samples(self._sets[name], epoch, number)


def length_in(batches: Batches, epoch: int) -> int:
    """Return the number of batches that a mix takes of a set in one of its epochs."""
    number = num_batches_in(batches, epoch)
    return len(batches) if number is None else number


def _bounded(sets: Mapping[str, Batches]) -> Mapping[str, Batches]:
    """Return sets of which each has as many batches as it says: a mix is made by these numbers."""
    for batches in sets.values():
        if isinstance(batches, ReplayedBatches):
            batches.is_bounded = True
    return sets


def _known_samples(batches: Batches, epoch: int, batch: int) -> int | None:
    """Return the number of samples in a batch; None if a later epoch must be drawn to know it."""
    is_known = getattr(batches, "is_alike", False) or getattr(batches, "present", None) == epoch
    return known_samples(batches, epoch, batch) if is_known else None


def deal(batches: Any, shares: int, world_size: int) -> Any:
    """Return a rank's part of the batches that are made for ``shares`` processes.

    Args:
        batches: those of a training on ``world_size`` processes.
        shares: see ``data.order``.
        world_size: the number of processes.

    Raises:
        MtfError: these batches cannot be dealt to another number of processes.
    """
    if shares == world_size:
        return batches
    if not hasattr(batches, "dealt"):
        raise MtfError("it is an iterable data set or a class of your own")
    return batches.dealt(shares, world_size)


def _dealt_sets(sets: Mapping[str, Batches], shares: int, world_size: int) -> dict[str, Batches]:
    if shares % world_size:  # at one batch of the mix, ranks would be at other places of a set
        raise MtfError(f"several training sets need a number of processes that divides {shares}")
    return {name: deal(part, shares, world_size) for name, part in sets.items()}


def mixed(sets: Mapping[str, Batches], mode: MixingMode | None) -> Batches:
    """Return several training sets as one.

    Args:
        sets: the batches of each set, by name.
        mode: ``cycle`` (also for None) and ``shortest`` take a batch of every set at a time and
            end with the longest or the shortest set; ``in_turn`` takes one batch at a time.

    Raises:
        MtfError: there is no set.
    """
    if not sets:
        raise MtfError("data: the dict of training sets is empty: return at least one set")
    return (
        AlternatingBatches(sets)
        if mode == "in_turn"
        else ParallelBatches(sets, cycled=mode != "shortest")
    )


def _fixed_settings(sets: Mapping[str, Batches]) -> dict[str, Any]:
    """Return the settings that a resume may not change, see ``ReplayedBatches.fixed``."""
    return {key: v for part in sets.values() for key, v in getattr(part, "fixed", {}).items()}
