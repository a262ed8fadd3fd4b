"""An epoch of batches: how many it has, and the iteration over those that are left."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any

from mtf.errors import MtfError
from mtf.trainer.data.streams import ReplayedBatches
from mtf.trainer.runtime.console import say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mtf.trainer.data.batches import Batches

_END = object()
_REPORTED: set[int] = set()  # ids of data that was found to give more batches than it says


def num_batches_in(batches: Batches, epoch: int) -> int | None:
    """Return the number of batches in an epoch, None if only its end tells it.

    Data whose epochs differ says it by the optional method ``num_batches(epoch)``.
    """
    num_batches: Callable[[int], int | None] | None = getattr(batches, "num_batches", None)
    return num_batches(epoch) if callable(num_batches) else len(batches)


def num_steps_in(batches: Batches, accumulated: int, epochs: int) -> int:
    """Return the optimizer steps in some epochs, of ``accumulated`` batches each.

    Data whose epochs differ says how many batches they have by the optional method
    ``expected_batches(epochs)``.
    """
    expected: Any = getattr(batches, "expected_batches", None)
    numbers = expected(epochs) if callable(expected) else [len(batches)] * epochs
    return sum(-(-number // accumulated) for number in numbers)


class OpenEpoch:
    """Iterates over the batches of an epoch that are left.

    Args:
        batches: the data.
        epoch: the epoch.
        start: the first batch that is left.
        length: the number of batches in the epoch, None if only its end tells it.
        ahead: if so, the number of batches to make ahead, so that the end is seen before it comes.
        is_cut: the epoch is cut short: that the data gives more is no mistake.

    Attributes:
        length: the number of batches in the epoch, None while its end is not in sight.
        take: returns the next batch, like ``next``; a call less for each step.
    """

    def __init__(
        self,
        batches: Batches,
        epoch: int,
        start: int,
        *,
        length: int | None,
        ahead: int = 1,
        is_cut: bool = False,
    ) -> None:
        self.length = length
        self._left = batches.batches(epoch, start)
        self._number = start
        self._is_cut = is_cut
        self._note: Callable[[int], None] | None = getattr(batches, "note_read", None)
        if length is not None:
            self._next = self._counted(batches, epoch, start, length).__next__
        else:
            self._next = self._made_ahead(epoch, start, ahead).__next__
        self.take = self._next if self._note is None else self._take_noted

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self.take()

    def _take_noted(self) -> Any:
        batch = self._next()
        assert self._note is not None
        self._note(self._number)
        self._number += 1
        return batch

    def _counted(self, batches: Batches, epoch: int, start: int, length: int) -> Iterator[Any]:
        """Yield exactly ``length - start`` batches.

        Raises:
            MtfError: there are fewer.
        """
        for number in range(start, length):
            batch = next(self._left, _END)
            if batch is _END:
                raise MtfError(
                    f"epoch {epoch + 1} of the data has {number} batches, and its __len__ says"
                    f" {length}: return from __len__ the number of batches in an epoch"
                )
            is_last = number == length - 1 and not self._is_cut
            if is_last and getattr(batches, "may_give_more", True):
                self._report_more(batches, length)
            yield batch

    def _report_more(self, batches: Batches, length: int) -> None:
        """Read on behind the last batch, and say if there are more than an epoch has."""
        more = sum(1 for _ in islice(self._left, length + 1))
        if more and id(batches) not in _REPORTED and not isinstance(batches, ReplayedBatches):
            _REPORTED.add(id(batches))
            say(
                f"the data gives {length + more} batches or more, and its __len__ says {length}:"
                f" only {length} are used in each epoch. Return from __len__ as many as it gives"
            )

    def _made_ahead(self, epoch: int, start: int, ahead: int) -> Iterator[Any]:
        made: deque[Any] = deque()
        number = start
        while True:
            made.extend(islice(self._left, ahead + 1 - len(made)))
            if len(made) <= ahead:
                self.length = number + len(made)
            if not made:
                raise MtfError(
                    f"the data gave {number} batches in epoch {epoch + 1}, too few: it is empty, or"
                    " drop_last leaves nothing"
                )
            yield made.popleft()
            number += 1


def open_epoch(batches: Batches, epoch: int, start: int) -> Iterator[Any]:
    """Yield the batches of an epoch from batch ``start`` on, exactly as many as it has.

    Raises:
        MtfError: the data gives fewer.
    """
    opened = OpenEpoch(batches, epoch, start, length=num_batches_in(batches, epoch))
    number = start
    while opened.length is None or number < opened.length:
        yield next(opened)
        number += 1
