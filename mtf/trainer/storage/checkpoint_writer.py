"""Writes checkpoints in the background, one at a time, and says what could not be written."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtf.trainer.runtime.console import amount, say
from mtf.trainer.storage.checkpoint_store import GivenUpError, Saved, WriteProgress

if TYPE_CHECKING:
    from pathlib import Path

    from mtf.trainer.storage.checkpoint_store import CheckpointStore, Place, Writable
    from mtf.trainer.storage.journal import Journal


@dataclass(frozen=True)
class WriteRequest:
    """A checkpoint to be written.

    Attributes:
        write: writes it to a file; may be called in another thread.
        place: epochs and optimizer steps done.
        size: about how many bytes it has.
        best: places of the checkpoints to be kept as the best ones, the best one first.
    """

    write: Callable[[Writable], None]
    place: Place
    size: int
    best: tuple[Place, ...] = ()


@dataclass(frozen=True)
class FailedWrite:
    """A checkpoint that is not there, and why, for people."""

    place: Place
    reason: str
    was_given_up: bool = False


Outcome = Saved | FailedWrite
OnFailure = Callable[[FailedWrite | Exception], None]


class CheckpointWriter:
    """Writes one run's checkpoints and journals them when they are durable.

    ``settle`` hands an outcome over to the thread that has ordered it. An error that is no fault
    of the disk is raised there.
    """

    def __init__(
        self, store: CheckpointStore, journal: Journal, on_failure: OnFailure | None = None
    ) -> None:
        """``on_failure`` is called in the writing thread, before ``settle`` hands it over."""
        self._store, self._journal, self._on_failure = store, journal, on_failure
        self._thread: threading.Thread | None = None
        self._order: WriteRequest | None = None
        self._under_way = WriteProgress()
        self._started_s = 0.0
        self._outcome: Outcome | None = None
        self._error: Exception | None = None
        self._s_per_byte = 0.0  # not known
        self._failures = 0  # in a row

    @property
    def is_busy(self) -> bool:
        """Return whether a write is under way."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def order(self) -> WriteRequest | None:
        """Return what has been ordered and not settled."""
        return self._order

    def start(self, order: WriteRequest) -> None:
        """Begin to write in the background; what was ordered before must be settled."""
        self._prepare(order)
        self._thread = threading.Thread(target=self._in_background, name="checkpoint")
        self._thread.start()

    def now(self, order: WriteRequest) -> Outcome:
        """Write, and return when it is durable or has failed."""
        self._prepare(order)
        self._execute(order)
        outcome = self.settle()
        assert outcome is not None
        return outcome

    def give_up(self) -> None:
        """Make a write under way end without a checkpoint."""
        self._under_way.give_up = True

    def settle(self) -> Outcome | None:
        """Wait for the write under way; return its outcome, once, and None when there is none.

        Raises:
            Exception: it has failed, and not because of the disk.
        """
        if self._thread is not None:
            self._thread.join()
        outcome, error = self._outcome, self._error
        self._thread = self._order = self._outcome = self._error = None
        if error is not None:
            raise error
        return outcome

    def expected_s(self, size: int) -> float:
        """Return the time that writing so many bytes takes, in seconds, as far as is known."""
        if self.is_busy and self._under_way.bytes:
            return size * (time.monotonic() - self._started_s) / self._under_way.bytes
        return size * self._s_per_byte

    def left_s(self) -> float:
        """Return the expected time to the end of the write under way, in seconds."""
        assert self._order is not None
        return self.expected_s(max(0, self._order.size - self._under_way.bytes))

    def learn(self, size: int, spent_s: float) -> None:
        """Note how long the disk has taken for so many bytes."""
        self._s_per_byte = spent_s / size

    def _prepare(self, order: WriteRequest) -> None:
        assert self._order is None, "one write at a time"
        self._order, self._under_way = order, WriteProgress()
        self._started_s = time.monotonic()

    def _in_background(self) -> None:
        assert self._order is not None
        self._execute(self._order)
        failure = self._error or self._outcome
        if self._on_failure is not None and isinstance(failure, FailedWrite | Exception):
            self._on_failure(failure)

    def _execute(self, order: WriteRequest) -> None:
        epoch, step = order.place
        try:
            saved = self._store.save(
                order.write, epoch=epoch, step=step, best=order.best, under_way=self._under_way
            )
            self.learn(saved.bytes, time.monotonic() - self._started_s)
            self._journal.checkpoint(saved)
            self._outcome, self._failures = saved, 0
        except GivenUpError:
            self._outcome = FailedWrite(order.place, "given up for a newer one", was_given_up=True)
        except OSError as e:
            self._outcome = self.failed(order, e)
        except Exception as e:  # noqa: BLE001 -- raised by settle in the thread that has ordered
            self._error = e

    def failed(self, order: WriteRequest, error: OSError) -> FailedWrite:
        """Say and journal that a checkpoint could not be written; of many, ever fewer are said."""
        epoch, step = order.place
        reason = why(error, self._store.folder, order.size)
        self._failures += 1
        if self._failures.bit_count() == 1:
            again = f" ({self._failures} in a row)" if self._failures > 1 else ""
            say(f"the checkpoint of epoch {epoch}, step {step} is not saved: {reason}{again}")
        self._journal.unsaved(epoch, step, reason)
        return FailedWrite(order.place, reason)


def why(error: OSError, folder: Path, size: int) -> str:
    """Return what an error of the disk means: where, how much is needed and how much is free."""
    free = _free(folder)
    room = f", {amount(free)} free there" if free is not None else ""
    what = error.strerror or str(error) or type(error).__name__
    return f"{what}: {folder} ({amount(size)} needed{room})"


def _free(folder: Path) -> int | None:
    """Return the free bytes of the disk that a folder is, or was, on; None: not known."""
    for place in (folder, folder.parent):
        try:
            found = os.statvfs(place)
        except OSError:
            continue
        return found.f_bavail * found.f_frsize
    return None
