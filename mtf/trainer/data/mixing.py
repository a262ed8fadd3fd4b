"""Several training sets as one: each batch a dict, by the names of the sets it was taken from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from mtf.errors import MtfError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mtf.trainer.data.batches import Batches

Way = Literal["cycle", "shortest", "in_turn"]


class SideBySide:
    """One batch of each set at a time.

    An epoch ends with the longest set, the others coming around again with an order of their next
    round; or with the shortest.
    """

    def __init__(self, parts: Mapping[str, Batches], *, cycled: bool) -> None:
        self._parts = parts
        self.fixed = _fixed(parts)
        lengths = [len(part) for part in parts.values()]
        self._length = max(lengths) if cycled else min(lengths)

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return self._length

    def batches(self, epoch: int, start: int) -> Iterator[dict[str, Any]]:
        """Yield dicts of batches by name."""
        streams = {name: self._around(part, epoch, start) for name, part in self._parts.items()}
        for _ in range(start, self._length):
            yield {name: next(stream) for name, stream in streams.items()}

    def _around(self, part: Batches, epoch: int, start: int) -> Iterator[Any]:
        """Yield the batches of a set from number ``start`` of an epoch of ours on, without end."""
        rounds = -(-self._length // len(part))
        whole, first = divmod(start, len(part))
        for turn in range(whole, rounds):
            yield from part.batches(epoch * rounds + turn, first)
            first = 0


class InTurn:
    """One batch of one set at a time: each set's first one, each one's second; all of them once."""

    def __init__(self, parts: Mapping[str, Batches]) -> None:
        self._parts = parts
        self.fixed = _fixed(parts)
        rounds = range(max(len(part) for part in parts.values()))
        self._order = [
            (name, batch) for batch in rounds for name, part in parts.items() if batch < len(part)
        ]

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return len(self._order)

    def batches(self, epoch: int, start: int) -> Iterator[dict[str, Any]]:
        """Yield dicts of one batch by its set's name."""
        streams: dict[str, Iterator[Any]] = {}
        for name, batch in self._order[start:]:
            if name not in streams:
                streams[name] = self._parts[name].batches(epoch, batch)
            yield {name: next(streams[name])}


def combined(parts: Mapping[str, Batches], way: Way | None) -> Batches:
    """Return sets as one.

    Args:
        parts: at least one.
        way: ``cycle`` and ``shortest`` take a batch of each at a time and end with the longest or
            the shortest, ``in_turn`` takes one batch at a time; None: ``cycle``.

    Raises:
        MtfError: there is none.
    """
    if not parts:
        raise MtfError("data: an empty dict of data sets to train on")
    return InTurn(parts) if way == "in_turn" else SideBySide(parts, cycled=way != "shortest")


def _fixed(parts: Mapping[str, Batches]) -> dict[str, Any]:
    """Return what must stay as it is at a resume, see ``ReplayedBatches``."""
    return {key: v for part in parts.values() for key, v in getattr(part, "fixed", {}).items()}
