"""Rows of ``scalars.jsonl`` as values by name, as mirrors and programs show them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


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
