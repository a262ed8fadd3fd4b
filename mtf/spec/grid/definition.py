"""What a grid multiplies: its parameters, linked groups, draws and conditions, checked."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from mtf.spec.grid.sample import draw
from mtf.spec.resolve import Combination, Setting
from mtf.spec.schema.dotted_keys import key_problem, path_of
from mtf.spec.schema.error_messages import dotted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from mtf.errors import Problem
    from mtf.spec.schema.specs import Conditional, GridSpec
    from mtf.spec.yaml.positions import Loc, Positions

Axis = list[Combination]  # settings that are made together, one of them for each member
Match = dict[tuple[str, ...], Any]  # what a member must have
# whether a key with a value stands for an option of a config group
Chooses: TypeAlias = "Callable[[tuple[str, ...], object], bool]"


@dataclass(frozen=True)
class Condition:
    """Axes that only the members that match are multiplied by."""

    when: Match
    axes: list[Axis]


@dataclass(frozen=True)
class GridDefinition:
    """All that a grid is made of; ``axes`` make every member."""

    axes: list[Axis]
    conditions: list[Condition]
    excluded: list[Match]
    problems: list[Problem]

    def settings(self) -> Iterator[Setting]:
        """Yield every key with each of its values."""
        for axis in itertools.chain(self.axes, *(one.axes for one in self.conditions)):
            yield from itertools.chain.from_iterable(axis)


def chooses_nothing(_path: tuple[str, ...], _value: object) -> bool:
    """Return that a grid without a defaults list in its base chooses nothing from groups."""
    return False


def read_grid(
    spec: GridSpec, positions: Positions, chooses: Chooses = chooses_nothing
) -> GridDefinition:
    """Return the parts of a grid, with what they do to each other that cannot be.

    Where a key chooses an option of a group, other keys of that section may be set as well.
    """
    reader = _Reader(spec, positions, chooses)
    return GridDefinition(reader.axes(), reader.conditions(), reader.excluded(), reader.problems)


class _Reader:
    """Reads the parts of one grid and collects what is wrong where it stands."""

    def __init__(self, spec: GridSpec, positions: Positions, chooses: Chooses) -> None:
        self._spec = spec
        self._positions = positions
        self._chooses = chooses
        self._set: dict[tuple[str, ...], str] = {}  # path -> the part of the grid that sets it
        self._above: dict[tuple[str, ...], str] = {}  # paths that lead to those
        self.problems: list[Problem] = []

    def axes(self) -> list[Axis]:
        """Return the axes that all members are made of: parameters, linked groups, draws."""
        spec = self._spec
        axes = [
            self._values(("parameters", key), v, "parameters") for key, v in spec.parameters.items()
        ]
        axes += [self._group(("linked", i), group) for i, group in enumerate(spec.linked)]
        if spec.sample:
            axes.append(self._draws())
        if not axes:
            self._add(
                (), "the grid is empty: write parameters, linked or sample with at least one key"
            )
        return axes

    def conditions(self) -> list[Condition]:
        """Return the conditions in the order they are written."""
        return [self._condition(i, one) for i, one in enumerate(self._spec.conditional)]

    def excluded(self) -> list[Match]:
        """Return the combinations that are left out."""
        return [_match(one) for one in self._spec.exclude]

    def _add(self, loc: Loc, message: str, *, at_key: bool = False) -> None:
        position = self._positions.key(loc) if at_key else self._positions.value(loc)
        self.problems.append(self._positions.problem(position, message))

    def _claim(self, loc: Loc, part: str, values: Iterable[Any] = ()) -> tuple[str, ...]:
        """Return the path of a key that is set here; a key stands in one place only."""
        path = path_of(str(loc[-1]))
        # an option of a group goes under the section's keys, which may be set as well
        spot = (*path, "") if any(self._chooses(path, value) for value in values) else path
        clash = self._clash(spot, part)
        if clash:
            self._add(loc, f"{'.'.join(path)} is set in {clash} already", at_key=True)
        self._set.setdefault(spot, part)
        self._above.update({spot[:i]: part for i in range(1, len(spot))})
        return path

    def _clash(self, path: tuple[str, ...], part: str) -> str | None:
        other = self._set.get(path)
        if other and other != part and {other[:4], part[:4]} == {"cond"}:
            return None  # two conditions may give a key values, if they exclude each other
        above = (self._set.get(path[:i]) for i in range(1, len(path)))
        return other or self._above.get(path) or next(filter(None, above), None)

    def _values(self, loc: Loc, values: list[Any], part: str) -> Axis:
        path = self._claim(loc, part, values)
        key = ".".join(path)
        return [(Setting(key, path, value, (*loc, i)),) for i, value in enumerate(values)]

    def _group(self, loc: Loc, group: list[dict[str, Any]]) -> Axis:
        part = dotted(loc)
        first = [
            self._claim((*loc, 0, key), part, [entry.get(key) for entry in group])
            for key in group[0]
        ]
        axis = []
        for i, entry in enumerate(group):
            paths = [path_of(key) for key in entry]
            if sorted(paths) != sorted(first):
                keys = ", ".join(map(".".join, first))
                self._add((*loc, i), f"every entry of a linked group sets the same keys: {keys}")
            axis.append(
                tuple(
                    Setting(".".join(path), path, value, (*loc, i, key))
                    for path, (key, value) in zip(paths, entry.items(), strict=True)
                )
            )
        return axis

    def _draws(self) -> Axis:
        sample = self._spec.sample
        paths = {
            key: self._claim(("sample", key), "sample", one.values or ())
            for key, one in sample.items()
        }
        n = self._number_of_draws()
        if n is None:
            return []
        draws = draw({".".join(paths[key]): one for key, one in sample.items()}, n)
        if len(draws) < n:
            self._add(("sample",), f"n: {n} different draws are wanted, there are {len(draws)}")
        return [
            tuple(
                Setting(".".join(paths[key]), paths[key], value, ("sample", key))
                for key, value in zip(sample, values, strict=True)
            )
            for values in draws
        ]

    def _number_of_draws(self) -> int | None:
        given = {key: one.n for key, one in self._spec.sample.items() if one.n is not None}
        if not given:
            first = next(iter(self._spec.sample))
            self._add(("sample", first), "n, the number of draws, is missing", at_key=True)
            return None
        n = next(iter(given.values()))
        for key, other in given.items():
            if other != n:
                self._add(("sample", key, "n"), f"all keys are drawn together: write n: {n} once")
        most = self._spec.max_runs
        if n > most:
            key = next(iter(given))
            self._add(("sample", key, "n"), f"{n:,} draws are more than max_runs, {most:,}")
            return None
        return n

    def _condition(self, i: int, condition: Conditional) -> Condition:
        loc, part = ("conditional", i), f"conditional[{i}]"
        axes = [self._values((*loc, "set", key), v, part) for key, v in condition.set.items()]
        return Condition(_match(condition.when), axes)


def _match(values: Mapping[str, Any]) -> Match:
    return {path_of(key): value for key, value in values.items()}


def key_problems(grid: Mapping[str, Any], positions: Positions) -> list[Problem]:
    """Return what is wrong with the dotted keys of a grid, whatever else is wrong with it."""
    problems = []
    for loc, mapping in _dotted_mappings(grid):
        for key in mapping:
            problem = key_problem(path_of(key))
            if problem:
                problems.append(positions.problem(positions.key((*loc, key)), problem))
    return problems


def _dotted_mappings(grid: Mapping[str, Any]) -> Iterator[tuple[Loc, dict[str, Any]]]:
    for part in ("parameters", "linked", "sample", "exclude"):
        yield from _mappings(grid.get(part), (part,))
    for loc, condition in _mappings(grid.get("conditional"), ("conditional",)):
        for part in ("set", "when"):
            yield from _mappings(condition.get(part), (*loc, part))


def _mappings(value: Any, loc: Loc) -> Iterator[tuple[Loc, dict[str, Any]]]:
    if isinstance(value, dict):
        yield loc, value
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _mappings(item, (*loc, i))
