"""Compares two runs, two specs, or groups of them. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mtf.core.review.changed_runs import Difference, differences
from mtf.core.vocabulary import json_text
from mtf.errors import MtfError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mtf.core.vocabulary.ids import CommitId
    from mtf.core.vocabulary.records import RunRecord


@dataclass(frozen=True)
class Subject:
    """One run or experiment: its label, its resolved configuration and its record."""

    label: str
    config: Mapping[str, Any]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    record: RunRecord | None = None


@dataclass(frozen=True)
class Environment:
    """The packages installed where a run ran, as far as they are known."""

    packages: Mapping[str, str] | None = None  # None: the journal cannot be read here
    sha256: str | None = None
    python: str | None = None


@dataclass(frozen=True)
class Side:
    """One of the two sides of a comparison."""

    title: str
    commit: CommitId
    subjects: tuple[Subject, ...]
    environment: Environment = Environment()


@dataclass(frozen=True)
class Tally:
    """One difference of the configurations, and the number of pairs that have it."""

    change: Difference
    pairs: int


@dataclass(frozen=True)
class Comparison:
    """The differences between two sides, except those of the code."""

    a: Side
    b: Side
    pairs: tuple[tuple[Subject, Subject], ...]
    only_a: tuple[Subject, ...]
    only_b: tuple[Subject, ...]
    configuration: tuple[Tally, ...]

    @property
    def same_environment(self) -> bool | None:
        """Return True if both ran with the same packages, None if that is unknown."""
        a, b = self.a.environment.sha256, self.b.environment.sha256
        return None if a is None or b is None else a == b

    @property
    def packages(self) -> tuple[Difference, ...]:
        """Return the packages with different versions, if those of both sides are known."""
        a, b = self.a.environment, self.b.environment
        if a.packages is None or b.packages is None:
            return ()
        names = sorted({*a.packages, *b.packages}, key=str.lower)
        versions = [(n, a.packages.get(n), b.packages.get(n)) for n in names]
        if a.python and b.python:
            versions.insert(0, ("python", a.python, b.python))
        return tuple(Difference(n, old, new) for n, old, new in versions if old != new)


def compare(a: Side, b: Side) -> Comparison:
    """Return the differences between two sides; runs are paired by the values that their grid set.

    Raises:
        MtfError: no run of one side has a counterpart on the other.
    """
    if len(a.subjects) == len(b.subjects) == 1:
        pairs = [(a.subjects[0], b.subjects[0])]
        only_a: tuple[Subject, ...] = ()
        only_b: tuple[Subject, ...] = ()
    else:
        others = {_values(s): s for s in b.subjects}
        pairs = [(s, others[_values(s)]) for s in a.subjects if _values(s) in others]
        paired = {_values(s) for s, _ in pairs}
        only_a = tuple(s for s in a.subjects if _values(s) not in paired)
        only_b = tuple(s for s in b.subjects if _values(s) not in paired)
    if not pairs and 1 in (len(a.subjects), len(b.subjects)):
        larger = max(a, b, key=lambda side: len(side.subjects))
        raise MtfError(
            f"{larger.title} has {len(larger.subjects)} runs, and none of them has the parameters"
            f" of the other side. Name one of them, like {larger.subjects[0].label}"
        )
    counts = Counter(d for pair in pairs for d in _all(*pair))
    order = sorted(counts.items(), key=lambda item: (not item[0].reruns, -item[1]))
    tallies = tuple(Tally(difference, number) for difference, number in order)
    return Comparison(a, b, tuple(pairs), only_a, only_b, tallies)


def _all(a: Subject, b: Subject) -> Iterator[Difference]:
    return differences(dict(a.config), dict(b.config))


def _values(subject: Subject) -> str:
    return json_text.dumps(subject.parameters, sort_keys=True)
