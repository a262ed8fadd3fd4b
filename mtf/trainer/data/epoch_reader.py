"""Reads the batches of a training or a validation, epoch by epoch."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Protocol

from mtf.trainer.data.epochs import OpenEpoch, num_batches_in
from mtf.trainer.data.sample_counts import count_samples

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mtf.trainer.compute.rank_sync import RankSync
    from mtf.trainer.data.batches import Batches

ENDLESS = sys.maxsize  # stands for a number of batches while the end is not in sight


class Place(Protocol):
    """A place in an epoch.

    Attributes:
        batch: number of batches that are done.
        seen_end: number of batches in the epoch if only its end tells it and is in sight, else 0.
    """

    batch: int
    seen_end: int


class EpochReader:
    """Reads the batches of the present epoch, and learns how many there are.

    Of data that only tells it by ending, some batches are read ahead, so that the end is in sight
    before an accumulation window begins that it cuts short.

    Args:
        batches: the data; an empty list if there is none.
        rank_sync: connects the ranks.
        ahead: number of batches to read ahead, where needed.
        is_even: whether all ranks must have equally many batches.
        most: number of batches of an epoch to read; None: all.

    Attributes:
        num_batches: in the present epoch; ``ENDLESS`` while its end is not in sight.
        is_open_ended: whether only the end of the data tells it.
        common: a number of batches that all ranks have.
    """

    def __init__(
        self,
        batches: Batches | Sequence[Any],
        rank_sync: RankSync,
        *,
        ahead: int = 1,
        is_even: bool = False,
        most: int | None = None,
    ) -> None:
        self._batches: Any = batches
        self._known: Callable[[int, int], int | None] | None = getattr(batches, "num_samples", None)
        self._sync, self._ahead, self._is_even = rank_sync, ahead, is_even
        self._most = most or ENDLESS
        self._opened: OpenEpoch | None = None
        self.num_batches = self.common = 0
        self.is_open_ended = False

    def begin(self, epoch: int, place: Place) -> None:
        """Learn the number of batches in an epoch. All ranks call it.

        Args:
            epoch: the epoch.
            place: the place in it, perhaps a checkpoint's.

        Raises:
            MtfError: the ranks must have equally many, and have not.
        """
        self._opened = None
        number = num_batches_in(self._batches, epoch)
        self.is_open_ended = number is None
        self.num_batches = min(
            (place.seen_end or ENDLESS) if number is None else number, self._most
        )
        if self._is_even:
            self._sync.require_same(self.num_batches, "the number of batches")
        # of open-ended data, its ``least_batches`` at least
        least = getattr(self._batches, "least_batches", self.expected)
        self.common = self._sync.minimum(min(least, self._most))

    @property
    def is_open(self) -> bool:
        """Return True if batches are being read."""
        return self._opened is not None

    @property
    def expected(self) -> int:
        """Return the number of batches, as the data expects it until its end is in sight."""
        is_known = self.num_batches < ENDLESS
        return self.num_batches if is_known else len(self._batches)

    def read(self, epoch: int, place: Place) -> tuple[Any, int | None]:
        """Return the batch at a place in the epoch that has begun, and its number of samples.

        Args:
            epoch: the epoch.
            place: the batch after the one that was read last, unless it is the first. It is told
                the end of the epoch when it is in sight.
        """
        if self._opened is None:
            length = None if self.is_open_ended else self.num_batches
            self._opened = OpenEpoch(
                self._batches,
                epoch,
                place.batch,
                length=length,
                ahead=self._ahead,
                is_cut=self.num_batches == self._most,
            )
        content = self._opened.take()
        if self.is_open_ended:
            place.seen_end = self._opened.length or 0
            self.num_batches = min(place.seen_end or ENDLESS, self._most)
        if place.batch + 1 == self.num_batches:
            self._opened = None  # its data workers end
        number = None if self._known is None else self._known(epoch, place.batch)
        return content, count_samples(content) if number is None else number
