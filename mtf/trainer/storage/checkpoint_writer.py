"""Writes checkpoints in the background, one at a time, and reports those that failed."""

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
    """A checkpoint to write.

    Attributes:
        write: writes the content to a file; may be called in another thread.
        place: epochs and optimizer steps done.
        size: approximate size in bytes.
        best: places of the best checkpoints, the best first, which are kept.
        check: called in the same thread with the written file, before it counts.
    """

    write: Callable[[Writable], None]
    place: Place
    size: int
    best: tuple[Place, ...] = ()
    check: Callable[[Path], None] | None = None


@dataclass(frozen=True)
class FailedWrite:
    """A checkpoint that was not written, and the reason in words."""

    place: Place
    reason: str
    was_given_up: bool = False


Outcome = Saved | FailedWrite
OnFailure = Callable[[FailedWrite | Exception], None]


class CheckpointWriter:
    """Writes one run's checkpoints and journals them when they are durable.

    ``settle`` returns the outcome of a write to the thread that requested it, and raises an error
    there that is not the disk's.

    Args:
        store: the run's checkpoints.
        journal: where they are recorded.
        on_failure: called in the writing thread, before ``settle`` returns or raises.
    """

    def __init__(
        self, store: CheckpointStore, journal: Journal, on_failure: OnFailure | None = None
    ) -> None:
        self._store, self._journal, self._on_failure = store, journal, on_failure
        self._thread: threading.Thread | None = None
        self._request: WriteRequest | None = None
        self._progress = WriteProgress()
        self._started_s = 0.0
        self._outcome: Outcome | None = None
        self._error: Exception | None = None
        self._s_per_byte = 0.0  # 0: unknown
        self._failures = 0  # in a row

    @property
    def is_busy(self) -> bool:
        """Return True while a write is under way."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def request(self) -> WriteRequest | None:
        """Return the request that is not settled yet."""
        return self._request

    def start(self, request: WriteRequest) -> None:
        """Begin to write in the background; an earlier request must be settled."""
        self._prepare(request)
        self._thread = threading.Thread(target=self._in_background, name="checkpoint")
        self._thread.start()

    def write_now(self, request: WriteRequest) -> Outcome:
        """Write, and return when the checkpoint is durable or has failed."""
        self._prepare(request)
        self._execute(request)
        outcome = self.settle()
        assert outcome is not None
        return outcome

    def give_up(self) -> None:
        """Stop the write under way; it leaves no checkpoint."""
        self._progress.give_up = True

    def settle(self) -> Outcome | None:
        """Wait for the write under way and return its outcome, None where there is no write.

        Raises:
            Exception: the write has failed, and not because of the disk.
        """
        if self._thread is not None:
            self._thread.join()
        outcome, error = self._outcome, self._error
        self._thread = self._request = self._outcome = self._error = None
        if error is not None:
            raise error
        return outcome

    def expected_s(self, size: int) -> float:
        """Return the expected time of writing so many bytes, in seconds; 0 while unknown."""
        if self.is_busy and self._progress.bytes:
            return size * (time.monotonic() - self._started_s) / self._progress.bytes
        return size * self._s_per_byte

    def left_s(self) -> float:
        """Return the expected time until the write under way ends, in seconds."""
        assert self._request is not None
        return self.expected_s(max(0, self._request.size - self._progress.bytes))

    def learn(self, size: int, spent_s: float) -> None:
        """Note the time in seconds that the disk took for so many bytes."""
        self._s_per_byte = spent_s / size

    def _prepare(self, request: WriteRequest) -> None:
        assert self._request is None, "one write at a time"
        self._request, self._progress = request, WriteProgress()
        self._started_s = time.monotonic()

    def _in_background(self) -> None:
        assert self._request is not None
        self._execute(self._request)
        failure = self._error or self._outcome
        if self._on_failure is not None and isinstance(failure, FailedWrite | Exception):
            self._on_failure(failure)

    def _execute(self, request: WriteRequest) -> None:
        try:
            self._outcome = self._written(request)
        except Exception as e:  # noqa: BLE001 -- raised by settle in the thread that requested it
            self._error = e

    def _written(self, request: WriteRequest) -> Outcome:
        epoch, step = request.place
        try:
            saved = self._store.save(
                request.write,
                epoch=epoch,
                step=step,
                best=request.best,
                progress=self._progress,
                check=request.check,
            )
            self.learn(saved.bytes, time.monotonic() - self._started_s)
            self._journal.checkpoint(saved)
        except GivenUpError:
            return FailedWrite(request.place, "given up for a newer one", was_given_up=True)
        except OSError as e:
            return self.report_failure(request, e)
        self._failures = 0
        return saved

    def report_failure(self, request: WriteRequest, error: OSError) -> FailedWrite:
        """Log and journal a checkpoint that was not written.

        Of failures in a row, only the 1st, 2nd, 4th, 8th and so on are logged.
        """
        epoch, step = request.place
        reason = describe_disk_error(error, self._store.folder, request.size)
        self._failures += 1
        if self._failures.bit_count() == 1:
            again = f" ({self._failures} in a row)" if self._failures > 1 else ""
            say(f"could not save the checkpoint of epoch {epoch}, step {step}: {reason}{again}")
        self._journal.unsaved(epoch, step, reason)
        return FailedWrite(request.place, reason)


def describe_disk_error(error: OSError, folder: Path, size: int) -> str:
    """Return a disk error in words: the error, the folder, the bytes needed and the bytes free."""
    free = _free(folder)
    room = f", {amount(free)} free there" if free is not None else ""
    what = error.strerror or str(error) or type(error).__name__
    return f"{what}: {folder} ({amount(size)} needed{room})"


def _free(folder: Path) -> int | None:
    """Return the free bytes of the disk that a folder is, or was, on; None: unknown."""
    for place in (folder, folder.parent):
        try:
            found = os.statvfs(place)
        except OSError:
            continue
        return found.f_bavail * found.f_frsize
    return None
