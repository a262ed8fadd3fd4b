"""Compares what two runs of one experiment have left, and finds the first difference. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mtf.core.vocabulary.ids import RunId


@dataclass(frozen=True)
class Evidence:
    """What a run has left that can be compared."""

    run: RunId
    rows: Sequence[Mapping[str, Any]] | None  # of its scalars; None: they are gone
    weights: Mapping[str, str] | None  # digest of each tensor of the final weights, by its name
    weights_sha256: str | None = None  # over all of them
    why_no_weights: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)  # packages, hardware, threads


@dataclass(frozen=True)
class FirstDifference:
    """The first value of the metrics that differs."""

    row: int  # from 0
    step: int | None
    epoch: int | None
    metric: str
    first: Any  # None: it has no such value
    second: Any

    @property
    def by(self) -> float | None:
        """Return the distance of two numbers, None for anything else."""
        if isinstance(self.first, int | float) and isinstance(self.second, int | float):
            return abs(self.first - self.second)
        return None


@dataclass(frozen=True)
class Verdict:
    """The comparison of a run with its reproduction."""

    first: Evidence
    second: Evidence
    rows: int | None  # that were compared; None: the metrics of one are gone
    difference: FirstDifference | None
    tensors: int | None  # of the final weights that were compared; None: those of one are gone
    differing: tuple[str, ...]  # names of the tensors that differ
    environment: tuple[tuple[str, str | None, str | None], ...]  # what differs, with both values

    @property
    def is_compared(self) -> bool:
        """Return True if anything could be compared."""
        return bool(self.rows) or self.tensors is not None

    @property
    def is_same(self) -> bool:
        """Return True if all that could be compared is the same, bit for bit."""
        return self.is_compared and self.difference is None and not self.differing


def compare_evidence(first: Evidence, second: Evidence) -> Verdict:
    """Return the comparison of what two runs have left."""
    rows, difference = None, None
    if first.rows is not None and second.rows is not None:
        rows = min(len(first.rows), len(second.rows))
        difference = next(_differences(first.rows, second.rows), None)
    tensors: int | None = None
    differing: tuple[str, ...] = ()
    if first.weights is not None and second.weights is not None:
        names = list(dict.fromkeys([*first.weights, *second.weights]))
        tensors = len(names)
        differing = tuple(n for n in names if first.weights.get(n) != second.weights.get(n))
    return Verdict(
        first,
        second,
        rows,
        difference,
        tensors,
        differing,
        tuple(_changed(first.environment, second.environment)),
    )


def _changed(
    first: Mapping[str, str], second: Mapping[str, str]
) -> Iterator[tuple[str, str | None, str | None]]:
    """Yield the facts that differ. A fact that one run did not record is unknown, not different.

    That a package is not among the recorded ones is a fact.
    """
    have_packages = all(any(map(_is_package, facts)) for facts in (first, second))
    for name in sorted({*first, *second}):
        a, b = first.get(name), second.get(name)
        is_known = have_packages if _is_package(name) else None not in (a, b)
        if is_known and a != b:
            yield name, a, b


def _is_package(name: str) -> bool:
    return name.startswith("package ")


def _differences(
    first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]
) -> Iterator[FirstDifference]:
    """Yield the values that differ, row by row; a row that one run lacks differs as a whole."""
    for number in range(max(len(first), len(second))):
        a = first[number] if number < len(first) else {}
        b = second[number] if number < len(second) else {}
        step, epoch = (a or b).get("step"), (a or b).get("epoch")
        for name in dict.fromkeys([*a, *b]):
            if not _is_equal(a.get(name), b.get(name)):
                yield FirstDifference(number, step, epoch, name, a.get(name), b.get(name))


def _is_equal(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        # signs of zero are bits, too
        same = a == b and math.copysign(1, a) == math.copysign(1, b)
        return same or (math.isnan(a) and math.isnan(b))
    return type(a) is type(b) and bool(a == b)
