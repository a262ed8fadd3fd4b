"""Expands a grid to its members: all combinations, with conditions and exclusions."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

from mtf.core.vocabulary.experiments import EXECUTION, run_key
from mtf.errors import SpecError
from mtf.spec.grid.naming import NameTooLongError, experiment_name
from mtf.spec.resolve import experiment
from mtf.spec.schema.dotted_keys import find
from mtf.spec.schema.error_messages import shown
from mtf.spec.yaml.sizes import size_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mtf.core.vocabulary.experiments import Experiment
    from mtf.errors import Problem
    from mtf.spec.grid.definition import Axis, Condition, GridDefinition, Match
    from mtf.spec.resolve import Base, Combination, Resolver
    from mtf.spec.schema.specs import GridSpec
    from mtf.spec.yaml.positions import Loc, Position, Positions

_MAX_CHECKED = 1000  # members of a grid that is too large
# What the members of a grid may hold in all, in characters. A key counts for more than its text,
# and so does each condition that a member is compared with. A billion takes some seconds.
_MAX_WORK = 1_000_000_000
_KEY = 100
_MAX_CHECKED_WORK = 20_000_000  # ... and those of a grid that is too large


def expand(
    spec: GridSpec, definition: GridDefinition, resolver: Resolver, stamp: str
) -> tuple[Experiment, ...]:
    """Return a grid's members in the order of the values in its file.

    Raises:
        SpecError: with every error found, each at the value that causes it.
    """
    positions = resolver.positions
    builder = _MemberBuilder(spec, resolver)
    members = builder.members(definition)
    sections = [resolver.sections(member) for member in members]
    if builder.problems or resolver.errors:
        raise SpecError([*builder.problems, *resolver.problems])
    common = _common(spec, resolver.base)
    experiments, problems = [], []
    for i, (member, resolved) in enumerate(zip(members, sections, strict=True)):
        parameters = {setting.key: setting.value for setting in member}
        try:
            name = experiment_name(spec.naming, parameters, i, len(members), stamp)
        except NameTooLongError as e:
            problems.append(positions.problem_at(member[-1].loc, str(e)))
            continue
        experiments.append(experiment(name, spec.name, resolved, common, parameters))
    problems = problems or _duplicates(experiments, members, positions)
    if problems:
        raise SpecError(problems)
    return tuple(experiments)


def _common(spec: GridSpec, base: Base) -> dict[str, Any]:
    """Return the keys that all members share; what the grid leaves out comes from its base."""
    inherited = {
        key: base.value.get(key) if getattr(spec, key) is None else getattr(spec, key)
        for key in ("description", "owner")
    }
    return {
        **inherited,
        "entrypoint": base.value.get("entrypoint"),
        "generation": spec.generation,
        "rerun_on": spec.rerun_on or base.value.get("rerun_on") or [],
    }


class _MemberBuilder:
    """Combines the axes of one grid to members, never more than ``max_runs``."""

    def __init__(self, spec: GridSpec, resolver: Resolver) -> None:
        self._spec = spec
        self._positions = resolver.positions
        self._resolver = resolver
        self._weight = 0  # of one member
        self.problems: list[Problem] = []

    def members(self, definition: GridDefinition) -> list[Combination]:
        """Return the settings of each member; if there are too many, of some to find errors in."""
        self._weight = _weight(definition, self._resolver.base)
        if not self._is_within(math.prod(map(len, definition.axes)), ()):
            most = min(_MAX_CHECKED, _MAX_CHECKED_WORK // self._weight)
            return [] if definition.conditions else _some_members(definition.axes, most)
        members = _product([()], definition.axes)
        for i, condition in enumerate(definition.conditions):
            members = self._conditional(members, condition, ("conditional", i))
        return self._without(members, definition.excluded) if members else []

    def _conditional(
        self, members: list[Combination], condition: Condition, loc: Loc
    ) -> list[Combination]:
        matches = [self._has(member, condition.when) for member in members]
        factor = math.prod(map(len, condition.axes))
        if not self._is_within(len(members) + sum(matches) * (factor - 1), loc):
            return []
        out: list[Combination] = []
        for member, match in zip(members, matches, strict=True):
            if match and self._is_set_twice(member, condition, loc):
                return []
            if match:
                out += _product([member], condition.axes)
            else:
                out.append(member)
        return out

    def _is_set_twice(self, member: Combination, condition: Condition, loc: Loc) -> bool:
        keys = {axis[0][0].key for axis in condition.axes}
        twice = next((setting for setting in member if setting.key in keys), None)
        if twice:
            message = (
                f"{twice.key}: also set by conditional[{twice.loc[1]}], and a member matches both."
                " Make the conditions exclude each other"
            )
            self._add(loc, message)
        return twice is not None

    def _without(self, members: list[Combination], excluded: list[Match]) -> list[Combination]:
        for i, match in enumerate(excluded):
            kept = [member for member in members if not self._has(member, match)]
            if len(kept) == len(members):
                text = ", ".join(f"{'.'.join(k)}={shown(v)}" for k, v in match.items())
                self._add(("exclude", i), f"no member has {text}. Correct or remove this entry")
            members = kept
            if not members:
                self._add(("exclude",), "every member is excluded. Remove an entry")
                break
        return members

    def _has(self, member: Combination, match: Match) -> bool:
        return all(self._has_value(member, path, value) for path, value in match.items())

    def _has_value(self, member: Combination, path: tuple[str, ...], value: Any) -> bool:
        """Return True if a member has this value, as written in the grid or as resolved."""
        for setting in member:
            if setting.path == path:
                return _same(setting.value, value)
        section = self._resolver.section(path[0], member)
        return _same(find(section, path[1:]), value)

    def _is_within(self, count: int, loc: Loc) -> bool:
        most = self._spec.max_runs
        if count > most:
            message = f"the grid has {count:,} members, max_runs allows {most:,}. Remove values"
            self._add(loc, message)
        elif count * self._weight > _MAX_WORK:
            message = (
                f"{count:,} members of up to {self._weight:,} characters are too many. Use fewer"
                " members, fewer conditions, or shorter values"
            )
            self._add(loc, message)
        return count <= most and count * self._weight <= _MAX_WORK

    def _add(self, loc: Loc, message: str) -> None:
        self.problems.append(self._positions.problem_at(loc, message))


def _weight(definition: GridDefinition, base: Base) -> int:
    """Return the greatest number of characters that a member holds, see ``_MAX_WORK``."""
    conditions = definition.conditions
    axes = [*definition.axes, *itertools.chain.from_iterable(c.axes for c in conditions)]
    longest = (
        max(
            (sum(_KEY + size_of(setting.value).text for setting in option) for option in axis),
            default=0,
        )
        for axis in axes
    )
    compared = _KEY * (len(conditions) + len(definition.excluded))
    return size_of(dict(base.value)).text + compared + sum(longest)


def _product(members: Iterable[Combination], axes: list[Axis]) -> list[Combination]:
    options = list(itertools.product(*axes))
    flat = [tuple(itertools.chain.from_iterable(chosen)) for chosen in options]
    return [member + settings for member in members for settings in flat]


def example_members(definition: GridDefinition) -> list[Combination]:
    """Return members of a grid without conditions that together contain most of its values."""
    if not definition.axes or not all(definition.axes):
        return [()]
    members = _some_members(definition.axes, _MAX_CHECKED)
    excluded = [list(match.items()) for match in definition.excluded]
    return [m for m in members if not any(_sets_one_of(m, each) for each in excluded)]


def _sets_one_of(member: Combination, match: list[tuple[tuple[str, ...], Any]]) -> bool:
    return any(s.path == path and _same(s.value, value) for s in member for path, value in match)


def _some_members(axes: list[Axis], most: int) -> list[Combination]:
    """Return at most ``most`` members that together contain the first values of each axis."""
    number = min(max(map(len, axes)), most)
    return [
        tuple(itertools.chain.from_iterable(axis[i % len(axis)] for axis in axes))
        for i in range(number)
    ]


def _same(a: Any, b: Any) -> bool:
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


def _duplicates(
    experiments: list[Experiment], members: list[Combination], positions: Positions
) -> list[Problem]:
    """Return a problem at each value that repeats another member's experiment."""
    seen: dict[str, Combination] = {}
    problems: dict[Position, Problem] = {}
    for each, member in zip(experiments, members, strict=True):
        first = seen.setdefault(run_key(each, dict.fromkeys(each.rerun_on, "")), member)
        if first is not member:
            problem = _duplicate(first, member, positions)
            problems.setdefault((problem.line, problem.column), problem)
    return list(problems.values())


def _duplicate(first: Combination, second: Combination, positions: Positions) -> Problem:
    only_second = [setting for setting in second if setting not in first]
    only_first = [setting for setting in first if setting not in second]
    causes = only_second or only_first or list(second)
    if all(setting.path[0] in EXECUTION for setting in only_second + only_first):
        keys = ", ".join(setting.key for setting in causes)
        message = (
            f"members that differ only in {keys} are the same experiment: {keys} decides how a run"
            " is executed, not what it computes. Vary another key"
        )
    else:
        line, column = positions.value((only_first or causes)[0].loc)
        values = ", ".join(f"{setting.key}={shown(setting.value)}" for setting in causes)
        message = (
            f"duplicate experiment: {values} gives the same as line {line}:{column}. Remove one"
        )
    return positions.problem_at(causes[0].loc, message)
