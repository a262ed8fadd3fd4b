"""The configurations that a defaults list names, checked and merged to one tree of values."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from mtf.errors import SpecError
from mtf.spec.compose.defaults_list import MAX_PACKAGE, entry_problems, package_problem
from mtf.spec.compose.hydra_source import PRIMARY, Part, expand_list
from mtf.spec.compose.interpolations import OPENING, interpolations, refused
from mtf.spec.compose.references import MISSING, TreeError, resolved
from mtf.spec.schema.dotted_keys import put
from mtf.spec.yaml.positions import PositionInFile, Positions
from mtf.spec.yaml.reader import MAX_NODES
from mtf.spec.yaml.sizes import size_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mtf.errors import Problem
    from mtf.spec.compose.config_groups import Groups
    from mtf.spec.yaml.positions import Loc, Position

KEY = "defaults"
Choice = tuple[str, str]  # a group and its chosen option


class Parts:
    """The configurations of one spec: itself and its groups, each checked when first read."""

    def __init__(
        self, value: Mapping[str, Any], positions: Positions, prefix: Loc, groups: Groups
    ) -> None:
        """Take the spec's value, its positions (``prefix``: its place in the file), the groups."""
        self.positions, self.prefix = positions, prefix
        self._primary = value
        self._groups = groups
        self._checked: dict[str, Mapping[str, Any]] = {}
        self._sizes: dict[str, int] = {}

    def value(self, name: str) -> Mapping[str, Any]:
        """Return the content of a configuration.

        Raises:
            SpecError: with every interpolation and entry of its list that is not allowed.
        """
        if name not in self._checked:
            value = self._primary if name == PRIMARY else self._groups.value(name)
            content = {key: item for key, item in value.items() if key != KEY}
            problems = [self._problem(name, loc, text) for loc, text in refused(content)]
            for loc, text in entry_problems(value.get(KEY, [])):
                problems.append(self._problem(name, (KEY, *loc), f"{KEY}: {text}"))
            if problems:
                raise SpecError(problems)
            self._checked[name] = value
        return self._checked[name]

    def _problem(self, name: str, loc: Loc, message: str) -> Problem:
        if name == PRIMARY:
            return self.positions.problem_at((*self.prefix, *loc), message)
        return self._groups.positions(name).problem_at(loc, message)

    def is_group(self, name: str) -> bool:
        """Return True if there is a configuration below ``name``."""
        return self._groups.is_group(name)

    def is_option(self, name: str) -> bool:
        """Return True if the configuration exists."""
        return self._groups.is_option(name)

    def options(self, group: str) -> list[str]:
        """Return the options of a group."""
        return self._groups.options(group)

    def defaults(self, name: str) -> list[Any]:
        """Return the defaults list of a configuration."""
        found: list[Any] = self.value(name).get(KEY, [])
        return found

    def package(self, name: str) -> str | None:
        """Return the package that a configuration's file asks for in its first lines."""
        package = None if name == PRIMARY else self._groups.header(name)["package"]
        if package is not None and (problem := package_problem(package)):
            message = f"# @package: {problem}"
            raise SpecError([self._groups.positions(name).problem((1, 1), message)])
        return package

    def size(self, name: str) -> int:
        """Return the number of values in a configuration."""
        if name not in self._sizes:
            self._sizes[name] = size_of(dict(self.value(name))).nodes
        return self._sizes[name]

    def merged_positions(self, parts: Sequence[Part]) -> Positions:
        """Return the position of each value, in the spec or in a group's file."""
        return Positions.merged(self.positions.path, lambda: self._all_positions(parts))

    def _all_positions(
        self, parts: Sequence[Part]
    ) -> tuple[dict[Loc, Position], dict[Loc, Position]]:
        own = self.positions
        values, keys = dict(own.values), dict(own.keys)
        for name, package in parts:
            if name == PRIMARY:
                values.update({k: v for k, v in own.values.items() if k})
                keys.update(own.keys)
                continue
            group, into = self._groups.positions(name), (*self.prefix, *package)
            for all_, added in ((values, group.values), (keys, group.keys)):
                found = {(*into, *loc): PositionInFile(at, group.path) for loc, at in added.items()}
                all_.update({loc: at for loc, at in found.items() if loc != self.prefix})
        return values, keys


class Tree:
    """A composed configuration. Its references are resolved when its values are asked for.

    ``groups``: those that have an option in the defaults list. ``nodes``: the number of values.
    """

    def __init__(self, parts: Parts, choices: Sequence[Choice]) -> None:
        """Compose the tree.

        Raises:
            ListError: the defaults list cannot be expanded.
            SpecError: with every other error found.
        """
        expanded = expand_list(parts, choices)
        self.groups = expanded.groups
        self.positions = parts.merged_positions(expanded.parts)
        self._prefix = parts.prefix
        self.nodes = sum(parts.size(part.name) for part in expanded.parts)
        if self.nodes > MAX_NODES or any(len(p.package) > MAX_PACKAGE for p in expanded.parts):
            message = f"{KEY}: composes more than {MAX_NODES:,} values, or nests them too deeply"
            raise self._error((KEY,), f"{message}. Name fewer configurations")
        self._raw: dict[str, Any] = {}
        for part in expanded.parts:
            content = {key: item for key, item in parts.value(part.name).items() if key != KEY}
            try:
                self._raw = merged(self._raw, _below(part.package, content))
            except TreeError as e:
                raise self._error(e.loc, str(e)) from None
        self.has_interpolations = any(interpolations(self._raw))

    def resolved(self, settings: Sequence[tuple[tuple[str, ...], Any]] = ()) -> dict[str, Any]:
        """Return the values, with these settings by their paths, without those that are missing.

        Raises:
            SpecError: a reference has no value, or the result contains an interpolation.
        """
        tree = self._raw
        for path, value in settings:
            try:
                tree = put(tree, path, value)
            except ValueError as e:
                raise self._error(path, f"{'.'.join(path)}: {e}") from None
        try:
            value = resolved(tree)
        except TreeError as e:
            raise self._error(e.loc, f"{'.'.join(map(str, e.loc))}: {e}") from None
        made = _without_missing(value)
        for loc, text in interpolations(made) if self.has_interpolations else ():
            message = f"{text[:40]!r}: composed to a text with {OPENING}, which is not allowed"
            raise self._error(loc, f"{message}. Write the value")
        result: dict[str, Any] = made
        return result

    @cached_property
    def missing(self) -> tuple[Loc, ...]:
        """Return the places of the values that are missing (``???``)."""
        return tuple(_missing(self._raw, ()))

    def problem_of_missing(self, loc: Loc) -> Problem:
        """Return the problem that nobody gives a value that is missing."""
        message = f"{'.'.join(map(str, loc))} is missing (???). Give it a value"
        return self.positions.problem_at((*self._prefix, *loc), message)

    def _error(self, loc: Loc, message: str) -> SpecError:
        return SpecError([self.positions.problem_at((*self._prefix, *loc), message)])


def merged(under: dict[str, Any], over: dict[str, Any], loc: Loc = ()) -> dict[str, Any]:
    """Return one mapping over another, as Hydra does: mappings are merged, other values replaced.

    Raises:
        TreeError: a mapping would be merged into a list, or into what a reference refers to.
    """
    out = dict(under)
    for key, value in over.items():
        old = out.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            out[key] = merged(old, value, (*loc, key))
        elif _are_at_odds(old, value):
            kinds = f"{_kind(value)} here, {_kind(old)} in another file"
            raise TreeError((*loc, key), f"{key}: {kinds}. Keep one of them")
        elif value != MISSING or key not in out:
            out[key] = value
    return out


def _are_at_odds(old: Any, new: Any) -> bool:
    """Return True if neither value can be put over the other without losing what was meant."""
    if isinstance(old, str):
        return OPENING in old and isinstance(new, dict)
    kinds = (dict, list)
    return any(isinstance(old, a) and isinstance(new, b) for a in kinds for b in kinds if a != b)


def _kind(value: Any) -> str:
    kind = "a mapping" if isinstance(value, dict) else "a list"
    return value[:40] if isinstance(value, str) else kind


def _below(package: tuple[str, ...], value: dict[str, Any]) -> dict[str, Any]:
    for key in reversed(package):
        value = {key: value}
    return value


def _missing(value: Any, loc: Loc) -> Iterator[Loc]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _missing(item, (*loc, key))
    elif value == MISSING:
        yield loc


def _without_missing(value: Any) -> Any:
    """Return a tree without missing values; the same object if none is missing."""
    if not isinstance(value, dict):
        return value
    kept = {k: _without_missing(item) for k, item in value.items() if item != MISSING}
    is_same = len(kept) == len(value) and all(kept[k] is value[k] for k in kept)
    return value if is_same else kept
