"""The definition of a grid: its parameters, linked groups, draws and conditions, checked."""

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

Axis = list[Combination]  # the alternatives of one factor; each member has one of them
MAX_DRAWN = 2_000_000  # values of one grid
Match = dict[tuple[str, ...], Any]  # values that a member must have
# True if a key with this value chooses an option of a config group
ChoosesOption: TypeAlias = "Callable[[tuple[str, ...], object], bool]"


@dataclass(frozen=True)
class Condition:
    """Axes that multiply only the members that match."""

    when: Match
    axes: list[Axis]


@dataclass(frozen=True)
class GridDefinition:
    """The axes that multiply all members, the conditions and exclusions, and their problems."""

    axes: list[Axis]
    conditions: list[Condition]
    excluded: list[Match]
    problems: list[Problem]

    def settings(self) -> Iterator[Setting]:
        """Yield each key with each of its values."""
        for axis in itertools.chain(self.axes, *(c.axes for c in self.conditions)):
            yield from itertools.chain.from_iterable(axis)


def chooses_nothing(_path: tuple[str, ...], _value: object) -> bool:
    """Return False: without a defaults list in its base, a grid chooses no options of groups."""
    return False


def read_grid(
    spec: GridSpec, positions: Positions, chooses_option: ChoosesOption = chooses_nothing
) -> GridDefinition:
    """Return the definition of a grid, with the contradictions in it as problems.

    If a key chooses an option of a group, other keys of that section may be set as well.
    """
    reader = _DefinitionReader(spec, positions, chooses_option)
    return GridDefinition(reader.axes(), reader.conditions(), reader.excluded(), reader.problems)


class _DefinitionReader:
    """Reads the definition of one grid and collects the problems in it."""

    def __init__(self, spec: GridSpec, positions: Positions, chooses_option: ChoosesOption) -> None:
        self._spec = spec
        self._positions = positions
        self._chooses_option = chooses_option
        self._set: dict[tuple[str, ...], str] = {}  # path -> the part of the grid that sets it
        self._parents: dict[tuple[str, ...], str] = {}  # the same for the paths above those
        self.problems: list[Problem] = []

    def axes(self) -> list[Axis]:
        """Return the axes of all members: parameters, linked groups, draws."""
        spec = self._spec
        axes = [
            self._values(("parameters", key), v, "parameters") for key, v in spec.parameters.items()
        ]
        axes += [self._group(("linked", i), group) for i, group in enumerate(spec.linked)]
        if spec.sample:
            axes.append(self._draws())
        if not axes:
            self._add((), "the grid has no members. Add a key to parameters, linked or sample")
        return axes

    def conditions(self) -> list[Condition]:
        """Return the conditions in the order of the file."""
        return [self._condition(i, given) for i, given in enumerate(self._spec.conditional)]

    def excluded(self) -> list[Match]:
        """Return the combinations to leave out."""
        return [_match(values) for values in self._spec.exclude]

    def _add(self, loc: Loc, message: str, *, at_key: bool = False) -> None:
        position = self._positions.key(loc) if at_key else self._positions.value(loc)
        self.problems.append(self._positions.problem(position, message))

    def _set_key(self, loc: Loc, part: str, values: Iterable[Any] = ()) -> tuple[str, ...]:
        """Return the path of a key that is set here; a key may be set in one place only."""
        path = path_of(str(loc[-1]))
        # the choice of an option has a slot of its own: the section's keys may be set as well
        chooses = any(self._chooses_option(path, value) for value in values)
        slot = (*path, "") if chooses else path
        other = self._other_setter(slot, part)
        if other:
            key = ".".join(path)
            self._add(loc, f"{key}: already set in {other}. Set it in one place", at_key=True)
        self._set.setdefault(slot, part)
        self._parents.update({slot[:i]: part for i in range(1, len(slot))})
        return path

    def _other_setter(self, path: tuple[str, ...], part: str) -> str | None:
        """Return the other part of the grid that sets this path, one above or one below it."""
        other = self._set.get(path)
        if other and other != part and {other[:4], part[:4]} == {"cond"}:
            return None  # two conditions may set the same key if no member matches both
        above = (self._set.get(path[:i]) for i in range(1, len(path)))
        return other or self._parents.get(path) or next(filter(None, above), None)

    def _values(self, loc: Loc, values: list[Any], part: str) -> Axis:
        path = self._set_key(loc, part, values)
        key = ".".join(path)
        return [(Setting(key, path, value, (*loc, i)),) for i, value in enumerate(values)]

    def _group(self, loc: Loc, group: list[dict[str, Any]]) -> Axis:
        part = dotted(loc)
        first = [
            self._set_key((*loc, 0, key), part, [entry.get(key) for entry in group])
            for key in group[0]
        ]
        axis = []
        for i, entry in enumerate(group):
            paths = [path_of(key) for key in entry]
            if sorted(paths) != sorted(first):
                keys = ", ".join(map(".".join, first))
                self._add(
                    (*loc, i), f"every entry of a linked group must set the same keys: {keys}"
                )
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
            key: self._set_key(("sample", key), "sample", given.values or ())
            for key, given in sample.items()
        }
        n = self._number_of_draws()
        if n is None:
            return []
        draws = draw({".".join(paths[key]): given for key, given in sample.items()}, n)
        if len(draws) < n:
            message = f"n: only {len(draws)} different draws exist, got {n}. Lower n"
            self._add(("sample",), message)
        return [
            tuple(
                Setting(".".join(paths[key]), paths[key], value, ("sample", key))
                for key, value in zip(sample, values, strict=True)
            )
            for values in draws
        ]

    def _number_of_draws(self) -> int | None:
        given = {key: s.n for key, s in self._spec.sample.items() if s.n is not None}
        if not given:
            first = next(iter(self._spec.sample))
            self._add(("sample", first), "n (the number of draws) is missing", at_key=True)
            return None
        n = next(iter(given.values()))
        for key, other in given.items():
            if other != n:
                message = f"n: all keys are drawn together. Write n: {n} at one of them"
                self._add(("sample", key, "n"), message)
        most = min(self._spec.max_runs, MAX_DRAWN // len(self._spec.sample))
        if n > most and n <= self._spec.max_runs:
            message = f"n: {n:,} draws of {len(self._spec.sample):,} keys. Draw {most:,} at most"
            self._add(("sample", next(iter(given)), "n"), message)
            return None
        if n > most:
            key = next(iter(given))
            message = f"n: expected at most {most:,} (max_runs), got {n:,}"
            self._add(("sample", key, "n"), message)
            return None
        return n

    def _condition(self, i: int, condition: Conditional) -> Condition:
        loc, part = ("conditional", i), f"conditional[{i}]"
        axes = [self._values((*loc, "set", key), v, part) for key, v in condition.set.items()]
        return Condition(_match(condition.when), axes)


def _match(values: Mapping[str, Any]) -> Match:
    return {path_of(key): value for key, value in values.items()}


def key_problems(grid: Mapping[str, Any], positions: Positions) -> list[Problem]:
    """Return the problems of a grid's dotted keys, whatever other errors it has."""
    problems = []
    for loc, mapping in _dotted_mappings(grid):
        for key in mapping:
            problem = key_problem(path_of(key))
            if problem:
                problems.append(positions.problem_at_key((*loc, key), problem))
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
