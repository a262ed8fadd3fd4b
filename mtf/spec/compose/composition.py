"""Specs with a ``defaults`` list, composed by hydra-core, with the position of every value."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from mtf.core.vocabulary.spelling import did_you_mean
from mtf.distribution import pip_install
from mtf.errors import SpecError
from mtf.spec.yaml.positions import PositionInFile, Positions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from mtf.spec.compose.config_groups import Groups
    from mtf.spec.compose.hydra_source import Tree
    from mtf.spec.yaml.positions import Loc

KEY = "defaults"
MISSING = "???"  # in Hydra: a value that another configuration must give
_RESOLVER = re.compile(r"\$\{\s*([A-Za-z_][\w.]*)\s*:")
_ALLOWED_RESOLVERS = {
    "oc.select",
    "oc.decode",
    "oc.create",
    "oc.deprecated",
    "oc.dict.keys",
    "oc.dict.values",
}

Choice = tuple[str, str]  # a group and its chosen option


@dataclass(frozen=True, eq=False)
class Composed:
    """Composed sections and the position of each value."""

    value: dict[str, Any]
    positions: Positions


class Composition:
    """A mapping with a ``defaults`` list, composed for the choices of each member of a grid."""

    def __init__(
        self, value: Mapping[str, Any], positions: Positions, prefix: Loc, groups: Groups
    ) -> None:
        """Take the mapping, its positions (``prefix``: its place in the file) and the groups."""
        self._value = value
        self._positions = positions
        self._prefix = prefix
        self._groups = groups
        self._trees: dict[tuple[Choice, ...], tuple[Tree, Composed, bool]] = {}

    def chooses_option(self, path: tuple[str, ...], value: object) -> bool:
        """Return True if a grid that sets ``path`` to ``value`` chooses an option of a group."""
        return (
            len(path) == 1
            and isinstance(value, str)
            and "/" not in value
            and self._groups.is_option(f"{path[0]}/{value}")
        )

    def composed(
        self, choices: tuple[Choice, ...] = (), settings: Sequence[tuple[str, Any]] = ()
    ) -> Composed:
        """Return the mapping composed for these choices, without values that are missing (``???``).

        ``settings`` are values by dotted keys that the caller sets on top: interpolations see them.

        Raises:
            SpecError: with every error found.
        """
        if interpolated := [key for key, value in settings if any(_interpolations(value, ()))]:
            self._fail(
                f"a grid sets {interpolated[0]} to an interpolation ${{...}}. Write the value"
            )
        tree, plain, has_interpolations = self._tree(choices)
        if not (settings and has_interpolations):
            return plain
        return Composed(self._resolved(tree, plain.positions, settings), plain.positions)

    def _tree(self, choices: tuple[Choice, ...]) -> tuple[Tree, Composed, bool]:
        if choices not in self._trees:
            tree = self._new_tree(choices)
            positions = self._merged_positions(tree)
            interpolations = list(_interpolations(tree.raw(), ()))
            _check_resolvers(interpolations, positions, self._prefix)
            plain = Composed(self._resolved(tree, positions, ()), positions)
            self._trees[choices] = tree, plain, bool(interpolations)
        return self._trees[choices]

    def _new_tree(self, choices: tuple[Choice, ...]) -> Tree:
        try:
            from mtf.spec.compose.hydra_source import Tree
        except ImportError:
            self._fail(f"requires hydra-core. Run {pip_install('hydra')}")
        in_list = self._tree(())[0].chosen if choices else frozenset()
        asked = [(g if g in in_list else f"+{g}", option) for g, option in choices]
        made: Tree = self._reporting(lambda: Tree(self._groups, self._value, asked))
        return made

    def _resolved(
        self, tree: Tree, positions: Positions, settings: Sequence[tuple[str, Any]]
    ) -> dict[str, Any]:
        value: dict[str, Any] = _without_missing(
            self._reporting(lambda: tree.resolved(settings), positions)
        )
        return value

    def _reporting(self, compose: Callable[[], Any], positions: Positions | None = None) -> Any:
        """Call ``compose`` and return its result; Hydra's errors become problems at their cause."""
        from hydra.errors import HydraException, MissingConfigException
        from omegaconf.errors import OmegaConfBaseException

        try:
            return compose()
        except MissingConfigException as e:
            self._fail_at_missing(str(e.missing_cfg_file or "").strip("/"))
        except OmegaConfBaseException as e:
            key = getattr(e, "full_key", None) or ""
            loc = (*self._prefix, *str(key).split("."))
            text = str(e).splitlines()[0]
            problem = (positions or self._positions).problem_at(loc, f"{key}: {text}")
            raise SpecError([problem]) from None
        except (HydraException, ValueError) as e:
            text = " ".join(str(e).split()).replace("'(the spec)'", "this file")
            self._fail(text)

    def _fail(self, message: str) -> NoReturn:
        raise SpecError([self._positions.problem_at_key((*self._prefix, KEY), f"{KEY}: {message}")])

    def _fail_at_missing(self, name: str) -> NoReturn:
        """Report the configuration that does not exist, at the entry of the list that names it."""
        group, _, option = name.rpartition("/")
        options = self._groups.options(group)
        hint = f". {did_you_mean(option, options)}"
        if not options:
            hint = f", nor does the folder {self._groups.folder}/{group}"
        message = f"{KEY}: {self._groups.path(name)} does not exist{hint}"
        loc = (*self._prefix, KEY)
        for i, entry in enumerate(self._value[KEY]):
            if isinstance(entry, dict) and option in entry.values():
                loc = (*loc, i, *(key for key, value in entry.items() if value == option))
            elif entry == name:
                loc = (*loc, i)
        raise SpecError([self._positions.problem_at(loc, message)])

    def _merged_positions(self, tree: Tree) -> Positions:
        """Return the position of each value, in the spec or in a group's file."""
        from mtf.spec.compose.hydra_source import PRIMARY

        merged = Positions.merged(
            self._positions.path, dict(self._positions.values), dict(self._positions.keys)
        )
        for name, package in tree.parts:
            if name == PRIMARY:
                merged.values.update({k: v for k, v in self._positions.values.items() if k})
                merged.keys.update(self._positions.keys)
                continue
            group, into = self._groups.positions(name), (*self._prefix, *package)
            for all_, added in ((merged.values, group.values), (merged.keys, group.keys)):
                found = {(*into, *loc): PositionInFile(at, group.path) for loc, at in added.items()}
                all_.update({loc: at for loc, at in found.items() if loc != self._prefix})
        return merged


def _without_missing(value: Any) -> Any:
    """Return a tree without missing values."""
    if isinstance(value, dict):
        return {k: _without_missing(item) for k, item in value.items() if item != MISSING}
    return value


def _interpolations(value: Any, loc: Loc) -> Iterator[tuple[Loc, str]]:
    """Yield the path and text of every value with an interpolation."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _interpolations(item, (*loc, key))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _interpolations(item, (*loc, i))
    elif isinstance(value, str) and "${" in value:
        yield loc, value


def _check_resolvers(
    interpolations: Sequence[tuple[Loc, str]], positions: Positions, prefix: Loc
) -> None:
    """Refuse resolvers that depend on more than the commit, such as ``oc.env``.

    Raises:
        SpecError: with every such interpolation.
    """
    problems = [
        positions.problem_at(
            (*prefix, *loc),
            f"${{{name}:...}} is not allowed: its value is not in the commit and may be a secret."
            " Write the value, or read it in the job from slurm.variables",
        )
        for loc, text in interpolations
        for name in _RESOLVER.findall(text)
        if name not in _ALLOWED_RESOLVERS
    ]
    if problems:
        raise SpecError(problems)
