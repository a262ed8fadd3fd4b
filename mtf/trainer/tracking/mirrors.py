"""Mirrors of a run's rows: they are shown elsewhere too, and no mirror can fail a training.

A mirror is rebuilt from the rows of before at each start: what a preemption cut off is not there
twice, and what a killed process had not yet written is not missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from mtf.errors import MtfError
from mtf.trainer.runtime.console import say
from mtf.trainer.storage.scalars import SCALARS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence


@dataclass(frozen=True)
class End:
    """How a training has ended: complete, asked to stop (and to be continued), or failed."""

    complete: bool
    stopped: bool = False


class Mirror(Protocol):
    """Where rows are shown. Any exception ends it, and only it."""

    name: str

    def open(self) -> None:
        """Begin anew: all rows follow."""

    def show(self, number: int, row: Mapping[str, Any]) -> None:
        """Show a row; ``number`` counts the run's rows from 0."""

    def close(self, end: End) -> None:
        """Finish what is begun, in bounded time."""


class Mirrors:
    """All mirrors of a run (perhaps none)."""

    def __init__(self, mirrors: Iterable[Mirror] = ()) -> None:
        self._closed, self._open = list(mirrors), list[Mirror]()
        self._number = 0

    def follow(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Open them and show the rows of before, which nobody reads where there is no mirror."""
        self._open, self._closed = self._closed, []
        for mirror in list(self._open):
            self._dare(mirror, mirror.open)
        if self._open:
            for row in rows:
                self.show(row)

    def show(self, row: Mapping[str, Any]) -> None:
        """Show the next row."""
        for mirror in list(self._open):
            self._dare(mirror, partial(mirror.show, self._number, row))
        self._number += 1

    def close(self, end: End) -> None:
        """End those that are open."""
        for mirror in list(self._open):
            self._dare(mirror, partial(mirror.close, end))
        self._open = []

    def _dare(self, mirror: Mirror, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as e:  # noqa: BLE001 -- a training never fails because tracking does
            self._open.remove(mirror)
            why = str(e) if isinstance(e, MtfError) else f"{type(e).__name__}: {e}"
            say(f"{mirror.name}: {why}. The training goes on; {SCALARS} has it all")


@dataclass(frozen=True)
class Shown:
    """A row as mirrors show it, by name."""

    numbers: Mapping[str, float]
    histograms: Mapping[str, Mapping[str, Any]]
    images: Mapping[str, str]  # paths of PNG files, relative to the run folder


def shown(row: Mapping[str, Any]) -> Shown:
    """Return what a row shows.

    Rows of steps (with a learning rate) and of epochs both have a ``train_loss``, over different
    spans, and perhaps the same step: an epoch's goes by ``train_loss_epoch`` here.
    """
    numbers: dict[str, float] = {}
    histograms: dict[str, Mapping[str, Any]] = {}
    is_epoch = "lr" not in row
    for name, value in row.items():
        if isinstance(value, dict):
            histograms |= {f"{name}/{part}": histogram for part, histogram in value.items()}
            numbers |= {f"{name}/{part}/norm": found["norm"] for part, found in value.items()}
        elif isinstance(value, int | float) and name != "step":
            numbers["train_loss_epoch" if is_epoch and name == "train_loss" else name] = value
    images = {name: value for name, value in row.items() if isinstance(value, str)}
    drawn = {name: found for name, found in histograms.items() if found["counts"]}
    return Shown(numbers, drawn, images)


def edges(histogram: Mapping[str, Any]) -> Sequence[float]:
    """Return the borders of a histogram's bins, which are equally wide: one more than bins."""
    low, high, bins = histogram["low"], histogram["high"], len(histogram["counts"])
    return [low + (high - low) * i / bins for i in range(bins)] + [high]
