"""Mirrors show a run's rows of scalars elsewhere too; a failing mirror never fails a training.

At each start a mirror is rebuilt from the rows so far. So rows that a resume cuts off and writes
again are not shown twice, and rows that a killed process had not yet sent are not lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from mtf.errors import MtfError
from mtf.trainer.runtime.console import say
from mtf.trainer.runtime.start_claim import ShutOutError
from mtf.trainer.storage.scalars import SCALARS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


@dataclass(frozen=True)
class TrainingEnd:
    """How a training ended: complete, stopped (and to be resumed), or failed."""

    complete: bool
    stopped: bool = False


class Mirror(Protocol):
    """A place where rows are shown; it gets no more of them after it has raised an exception."""

    name: str

    def open(self) -> None:
        """Start from nothing: all rows so far will follow."""

    def show(self, number: int, row: Mapping[str, Any]) -> None:
        """Show a row; ``number`` counts the rows of the run from 0."""

    def close(self, end: TrainingEnd) -> None:
        """Write or send the last rows, in bounded time."""


class Mirrors:
    """All mirrors of a run, which may be none."""

    def __init__(self, mirrors: Iterable[Mirror] = ()) -> None:
        self._not_opened, self._open = list(mirrors), list[Mirror]()
        self._number = 0

    def open(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Open the mirrors and show the rows so far, which are not read if there is no mirror."""
        self._open, self._not_opened = self._not_opened, []
        for mirror in list(self._open):
            self._guarded(mirror, mirror.open)
        if self._open:
            for row in rows:
                self.show(row)

    def show(self, row: Mapping[str, Any]) -> None:
        """Show the next row."""
        for mirror in list(self._open):
            self._guarded(mirror, partial(mirror.show, self._number, row))
        self._number += 1

    def close(self, end: TrainingEnd) -> None:
        """Close the open mirrors."""
        for mirror in list(self._open):
            self._guarded(mirror, partial(mirror.close, end))
        self._open = []

    def _guarded(self, mirror: Mirror, action: Callable[[], None]) -> None:
        try:
            action()
        except ShutOutError:  # the journal's next event ends this process, with the reason
            self._open.remove(mirror)
        except Exception as e:  # noqa: BLE001 -- tracking must not fail the training
            self._open.remove(mirror)
            reason = str(e) if isinstance(e, MtfError) else f"{type(e).__name__}: {e}"
            say(f"{mirror.name}: {reason}. Training continues; {SCALARS} has all rows")
