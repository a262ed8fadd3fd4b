"""Conditions on runs: `where` turns the text of `--where` into a predicate on records.

A key is a field of a run (``FIELDS``), a metric, or a parameter of its grid. A field or a parameter
is compared with patterns or numbers, a metric with numbers. A run without a value meets no
comparison with it, except ``!=``.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NoReturn

from mtf.core.selection.where_syntax import (
    Both,
    Comparison,
    Either,
    Not,
    Value,
    WhereError,
    parse_where,
)
from mtf.core.vocabulary import json_text
from mtf.core.vocabulary.causes import Cause
from mtf.core.vocabulary.spelling import did_you_mean, nearest
from mtf.core.vocabulary.states import RunState, Sync

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from mtf.core.selection.where_syntax import Term
    from mtf.core.vocabulary.records import RunRecord


def names_of(record: RunRecord) -> tuple[str, ...]:
    """Return all names of a run."""
    grid = (record.grid, f"{record.grid}/{record.experiment}") if record.grid else ()
    jobs = tuple(a.job_id for a in record.attempts if a.job_id)
    return (record.run, record.experiment, record.label, *grid, *jobs)


_CHOICES: Mapping[str, tuple[str, ...]] = {
    "state": tuple(state.value for state in RunState),
    "cause": tuple(cause.value for cause in Cause),
    "sync": tuple(sync.value for sync in Sync),
}
# Fields whose values may hold commas: there, a comma does not separate values.
_NAMES: Mapping[str, Callable[[RunRecord], Collection[str]]] = {
    "name": names_of,
    "run": lambda r: (r.run,),
    "experiment": lambda r: (r.experiment,),
    "grid": lambda r: (r.grid or "",),
}
_TEXTS: Mapping[str, Callable[[RunRecord], Collection[str]]] = {
    "state": lambda r: (r.state,),
    "cause": lambda r: (r.cause or "",),
    "sync": lambda r: (r.sync,),
    "submission": lambda r: (r.submission,),
    "commit": lambda r: (r.commit, r.commit[:8]),
    "branch": lambda r: (r.branch,),
    "spec": lambda r: (r.spec,),
    "executor": lambda r: (r.executor,),
    "cluster": lambda r: (r.cluster,),
    "job": lambda r: [a.job_id for a in r.attempts if a.job_id],
}
_NUMBERS: Mapping[str, Callable[[RunRecord], float | None]] = {
    "epoch": lambda r: r.epoch,
    "step": lambda r: r.step,
    "attempts": lambda r: len(r.attempts),
    "generation": lambda r: r.generation,
    "best": lambda r: r.best.value if r.best else None,
}
FIELDS = (*_NAMES, *_TEXTS, *_NUMBERS)
_METRIC, _PARAMETER = "metrics.", "parameters."  # prefixes for keys that are also fields


def where(text: str, records: Iterable[RunRecord]) -> Callable[[RunRecord], bool]:
    """Return the predicate of a condition.

    Args:
        text: such as ``state=failed and not val_accuracy>0.9``.
        records: of all runs: keys that are no fields must be metrics or parameters of one of them.

    Raises:
        WhereError: it is not a condition, no run has one of its keys, or a value does not fit.
    """
    return _Binder(text, records).bind(parse_where(text))


class _Binder:
    """Turns the terms of one text into predicates."""

    def __init__(self, text: str, records: Iterable[RunRecord]) -> None:
        self._text = text
        self._metrics: set[str] = set()
        self._parameters: set[str] = set()
        for record in records:
            self._metrics.update(record.metrics)
            self._parameters.update(record.parameters)

    def bind(self, term: Term) -> Callable[[RunRecord], bool]:
        match term:
            case Comparison():
                return self._comparison(term)
            case Not():
                inner = self.bind(term.term)
                return lambda record: not inner(record)
            case Both():
                terms = [self.bind(t) for t in term.terms]
                return lambda record: all(holds(record) for holds in terms)
            case Either():
                terms = [self.bind(t) for t in term.terms]
                return lambda record: any(holds(record) for holds in terms)

    def _comparison(self, term: Comparison) -> Callable[[RunRecord], bool]:
        key = term.key
        if key in _NAMES:
            return self._texts(term, _NAMES[key], term.values)
        if key in _TEXTS:
            values = self._separate(term.values)
            if key in _CHOICES:
                self._check_choices(key, values)
            return self._texts(term, _TEXTS[key], values)
        if key in _NUMBERS:
            return self._numbers(term, _NUMBERS[key])
        if (name := key.removeprefix(_METRIC)) in self._metrics:
            return self._numbers(term, lambda record: record.metrics.get(name))
        path = self._parameter(term)
        return self._values(term, lambda record: record.parameters.get(path))

    def _parameter(self, term: Comparison) -> str:
        """Return the path of the parameter that a key names: whole, or its last part."""
        key = term.key.removeprefix(_PARAMETER)
        if key in self._parameters:
            return key
        found = sorted(p for p in self._parameters if p.endswith(f".{key}"))
        if len(found) > 1:
            self._fail(term.at, f"{key!r} names several parameters: {', '.join(found)}")
        if not found:
            known = {*FIELDS, *self._metrics, *self._parameters}
            near = nearest(term.key, known)
            others = ", ".join([*FIELDS, *self._own()])
            cure = f"Did you mean {near!r}?" if near else f"Known: {others}"
            self._fail(term.at, f"no run has a metric or parameter {term.key!r}. {cure}")
        return found[0]

    def _own(self) -> list[str]:
        """Return some of the metrics and parameters, for a message."""
        return sorted(self._metrics | self._parameters)[:20]

    def _texts(
        self,
        term: Comparison,
        find: Callable[[RunRecord], Collection[str]],
        values: Iterable[Value],
    ) -> Callable[[RunRecord], bool]:
        """Return the comparison of texts with patterns."""
        if term.operator not in ("=", "!="):
            self._fail(term.at, f"{term.key} is text: compare it with = or !=")
        patterns = [value.text for value in values]
        wanted = term.operator == "="
        return lambda record: (
            any(fnmatchcase(text, p) for text in find(record) for p in patterns) is wanted
        )

    def _numbers(
        self, term: Comparison, find: Callable[[RunRecord], float | None]
    ) -> Callable[[RunRecord], bool]:
        """Return the comparison of a number, which some runs may not have."""
        limits = [self._number(value) for value in self._separate(term.values)]
        return self._compared(term, limits, find)

    def _values(
        self, term: Comparison, find: Callable[[RunRecord], Any]
    ) -> Callable[[RunRecord], bool]:
        """Return the comparison of a parameter: as a number where both are, else as text."""
        if term.operator not in ("=", "!="):
            return self._numbers(term, lambda record: _as_number(find(record)))
        values = self._separate(term.values)
        wanted = term.operator == "="
        return lambda record: any(_is_value(find(record), v.text) for v in values) is wanted

    def _compared(
        self,
        term: Comparison,
        limits: list[float],
        find: Callable[[RunRecord], float | None],
    ) -> Callable[[RunRecord], bool]:
        operator, limit = term.operator, limits[0]
        if len(limits) > 1 and operator not in ("=", "!="):
            self._fail(term.values[-1].at, f"{operator} takes one number")

        def holds(record: RunRecord) -> bool:
            number = find(record)
            if operator in ("=", "!="):
                is_one = number is not None and any(_same(number, one) for one in limits)
                return is_one is (operator == "=")
            if number is None:
                return False
            match operator:
                case "<":
                    return number < limit
                case "<=":
                    return number <= limit
                case ">":
                    return number > limit
                case _:
                    return number >= limit

        return holds

    def _number(self, value: Value) -> float:
        try:
            return float(value.text)
        except ValueError:
            self._fail(value.at, f"expected a number, got {value.text!r}")

    def _separate(self, values: Iterable[Value]) -> list[Value]:
        """Return the values, those without quotes separated at commas."""
        found = []
        for value in values:
            at = value.at
            for part in [value.text] if value.is_quoted else value.text.split(","):
                if not part and not value.is_quoted:
                    self._fail(at, "a value is missing here")
                found.append(Value(part, at, value.is_quoted))
                at += len(part) + 1
        return found

    def _check_choices(self, key: str, values: Iterable[Value]) -> None:
        """Refuse a value that the field never has."""
        known = _CHOICES[key]
        for value in values:
            if not any(fnmatchcase(choice, value.text) for choice in known):
                near = did_you_mean(value.text, known)
                self._fail(value.at, f"no {key} {value.text!r}. {near}")

    def _fail(self, at: int, problem: str) -> NoReturn:
        raise WhereError(self._text, at, problem)


def _as_number(value: object) -> float | None:
    """Return a number, or the number that a text is; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _same(a: float, b: float) -> bool:
    return a == b or (a != a and b != b)  # noqa: PLR0124 -- NaN


def _is_value(value: object, pattern: str) -> bool:
    """Return True if a parameter's value is that of a pattern; a run without it has none."""
    if value is None:
        return pattern == "null"
    number, wanted = _as_number(value), _as_number(pattern)
    if number is not None and wanted is not None:
        return _same(number, wanted)
    text = value if isinstance(value, str) else json_text.dumps(value)
    return fnmatchcase(text, pattern)
