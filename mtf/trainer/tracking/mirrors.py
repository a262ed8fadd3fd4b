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
    from collections.abc import Callable, Iterable, Mapping, Sequence


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


@dataclass(frozen=True)
class RowValues:
    """The values of a row as mirrors show them, by name."""

    numbers: Mapping[str, float]
    histograms: Mapping[str, Mapping[str, Any]]
    images: Mapping[str, str]  # paths of PNG files, relative to the run folder


def row_values(row: Mapping[str, Any]) -> RowValues:
    """Return the values of a row.

    Rows of steps (with a learning rate) and of epochs both have metrics such as ``train_loss``,
    over different spans but possibly at the same step. So that of an epoch is called
    ``train_loss_epoch`` here.
    """
    numbers: dict[str, float] = {}
    histograms: dict[str, Mapping[str, Any]] = {}
    is_epoch = "lr" not in row
    for name, value in row.items():
        if isinstance(value, dict):
            histograms |= {f"{name}/{part}": histogram for part, histogram in value.items()}
            numbers |= {f"{name}/{part}/norm": found["norm"] for part, found in value.items()}
        elif isinstance(value, int | float) and name != "step":
            is_of_both = is_epoch and name.startswith("train_")
            numbers[f"{name}_epoch" if is_of_both else name] = value
    images = {name: value for name, value in row.items() if isinstance(value, str)}
    nonempty = {name: found for name, found in histograms.items() if found["counts"]}
    return RowValues(numbers, nonempty, images)


def bin_edges(histogram: Mapping[str, Any]) -> Sequence[float]:
    """Return the edges of a histogram's bins of equal width: one more than there are bins."""
    low, high, bins = histogram["low"], histogram["high"], len(histogram["counts"])
    return [low + (high - low) * i / bins for i in range(bins)] + [high]
