"""From a grid to its members: every combination, conditions and exclusions applied."""

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

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mtf.core.vocabulary.experiments import Experiment
    from mtf.errors import Problem
    from mtf.spec.grid.definition import Axis, Condition, GridDefinition, Match
    from mtf.spec.resolve import Base, Combination, Resolver
    from mtf.spec.schema.specs import GridSpec
    from mtf.spec.yaml.positions import Loc, Position, Positions

_LOOKED_AT = 1000  # members of a grid that is too large


def expand(
    spec: GridSpec, parts: GridDefinition, resolver: Resolver, stamp: str
) -> tuple[Experiment, ...]:
    """Return a grid's members in the order in which its values are written.

    Raises:
        SpecError: every mistake that was found, each at the value that causes it.
    """
    positions = resolver.positions
    multiplied = _Members(spec, resolver)
    members = multiplied.members(parts)
    sections = [resolver.sections(member) for member in members]
    if multiplied.problems or resolver.problems:
        raise SpecError([*multiplied.problems, *resolver.problems])
    common = _common(spec, resolver.base)
    experiments, problems = [], []
    for i, (member, resolved) in enumerate(zip(members, sections, strict=True)):
        parameters = {setting.key: setting.value for setting in member}
        try:
            name = experiment_name(spec.naming, parameters, i, len(members), stamp)
        except NameTooLongError as e:
            problems.append(positions.problem(positions.value(member[-1].loc), str(e)))
            continue
        experiments.append(experiment(name, spec.name, resolved, common, parameters))
    problems = problems or _repeated(experiments, members, positions)
    if problems:
        raise SpecError(problems)
    return tuple(experiments)


def _common(spec: GridSpec, base: Base) -> dict[str, Any]:
    """Return what goes for all members; a grid that says nothing takes it from its base."""
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


class _Members:
    """Multiplies the axes of one grid, never beyond ``max_runs``."""

    def __init__(self, spec: GridSpec, resolver: Resolver) -> None:
        self._spec = spec
        self._positions = resolver.positions
        self._resolver = resolver
        self.problems: list[Problem] = []

    def members(self, parts: GridDefinition) -> list[Combination]:
        """Return the settings of each member; of far too many some, that mistakes are found in."""
        if not self._is_within(math.prod(map(len, parts.axes)), ()):
            return [] if parts.conditions else _some(parts.axes)
        members = _product([()], parts.axes)
        for i, condition in enumerate(parts.conditions):
            members = self._conditional(members, condition, ("conditional", i))
        return self._without(members, parts.excluded) if members else []

    def _conditional(
        self, members: list[Combination], condition: Condition, loc: Loc
    ) -> list[Combination]:
        matches = [self._has(member, condition.when) for member in members]
        factor = math.prod(map(len, condition.axes))
        if not self._is_within(len(members) + sum(matches) * (factor - 1), loc):
            return []
        out: list[Combination] = []
        for member, match in zip(members, matches, strict=True):
            if match and self._clashes(member, condition, loc):
                return []
            if match:
                out += _product([member], condition.axes)
            else:
                out.append(member)
        return out

    def _clashes(self, member: Combination, condition: Condition, loc: Loc) -> bool:
        here = {axis[0][0].key for axis in condition.axes}
        both = next((setting for setting in member if setting.key in here), None)
        if both:
            other = f"conditional[{both.loc[1]}]"
            self._add(loc, f"{both.key} is set by {other} as well, and a member matches both")
        return both is not None

    def _without(self, members: list[Combination], excluded: list[Match]) -> list[Combination]:
        for i, match in enumerate(excluded):
            kept = [member for member in members if not self._has(member, match)]
            if len(kept) == len(members):
                text = ", ".join(f"{'.'.join(k)}={shown(v)}" for k, v in match.items())
                self._add(("exclude", i), f"no member has {text}: nothing is left out")
            members = kept
            if not members:
                self._add(("exclude",), "the grid is empty: every member is excluded")
                break
        return members

    def _has(self, member: Combination, match: Match) -> bool:
        return all(self._has_value(member, path, value) for path, value in match.items())

    def _has_value(self, member: Combination, path: tuple[str, ...], value: Any) -> bool:
        """Return whether a member has a value: as the grid writes it, or else as resolved."""
        for setting in member:
            if setting.path == path:
                return _same(setting.value, value)
        section = self._resolver.section(path[0], member)
        return _same(find(section, path[1:]), value)

    def _is_within(self, count: int, loc: Loc) -> bool:
        most = self._spec.max_runs
        if count > most:
            self._add(loc, f"the grid has {count:,} members, more than max_runs, {most:,}")
        return count <= most

    def _add(self, loc: Loc, message: str) -> None:
        self.problems.append(self._positions.problem(self._positions.value(loc), message))


def _product(members: Iterable[Combination], axes: list[Axis]) -> list[Combination]:
    options = list(itertools.product(*axes))
    flat = [tuple(itertools.chain.from_iterable(chosen)) for chosen in options]
    return [member + more for member in members for more in flat]


def _some(axes: list[Axis]) -> list[Combination]:
    """Return members that have, together, each of the first values of each axis."""
    number = min(max(map(len, axes)), _LOOKED_AT)
    return [
        tuple(itertools.chain.from_iterable(axis[i % len(axis)] for axis in axes))
        for i in range(number)
    ]


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _repeated(
    experiments: list[Experiment], members: list[Combination], positions: Positions
) -> list[Problem]:
    """Return a problem at each value that makes a second run of one there is."""
    seen: dict[str, Combination] = {}
    problems: dict[Position, Problem] = {}
    for one, member in zip(experiments, members, strict=True):
        first = seen.setdefault(run_key(one, dict.fromkeys(one.rerun_on, "")), member)
        if first is not member:
            problem = _repetition(first, member, positions)
            problems.setdefault((problem.line, problem.column), problem)
    return list(problems.values())


def _repetition(first: Combination, second: Combination, positions: Positions) -> Problem:
    here = [setting for setting in second if setting not in first]
    there = [setting for setting in first if setting not in second]
    told = here or there or list(second)
    position = positions.value(told[0].loc)
    if all(setting.path[0] in EXECUTION for setting in here + there):
        keys = ", ".join(setting.key for setting in told)
        message = (
            f"members that differ only in {keys} are the same experiment: that says how a run is "
            "executed or watched, not what it computes"
        )
    else:
        line, column = positions.value((there or told)[0].loc)
        values = ", ".join(f"{setting.key}={shown(setting.value)}" for setting in told)
        message = f"the same experiment twice: {values} gives what line {line}:{column} gives"
    return positions.problem(position, message)
