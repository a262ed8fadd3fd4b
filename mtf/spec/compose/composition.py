"""Specs with a ``defaults`` list, composed as Hydra does, with the position of every value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from mtf.core.vocabulary.spelling import did_you_mean
from mtf.distribution import pip_install
from mtf.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mtf.spec.compose.config_groups import Groups
    from mtf.spec.compose.tree import Parts, Tree
    from mtf.spec.yaml.positions import Loc, Positions

KEY = "defaults"
MAX_COMPOSED = 10_000_000  # values for one spec, in all members of a grid: some seconds of work

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
        self._trees: dict[tuple[Choice, ...], tuple[Tree, Composed]] = {}
        self._parts: Parts | None = None
        self._left = MAX_COMPOSED

    def chooses_option(self, path: tuple[str, ...], value: object) -> bool:
        """Return True if a grid that sets ``path`` to ``value`` chooses an option of a group."""
        return (
            len(path) == 1
            and isinstance(value, str)
            and "/" not in value
            and self._groups.is_option(f"{path[0]}/{value}")
        )

    def composed(
        self, choices: tuple[Choice, ...] = (), settings: Sequence[tuple[tuple[str, ...], Any]] = ()
    ) -> Composed:
        """Return the mapping composed for these choices, without values that are missing (``???``).

        ``settings`` are values by their paths that the caller sets on top: interpolations see them.

        Raises:
            SpecError: with every error found.
        """
        if interpolated := [".".join(path) for path, value in settings if "${" in str(value)]:
            self._fail(
                f"a grid sets {interpolated[0]} to an interpolation ${{...}}. Write the value"
            )
        tree, plain = self._tree(choices)
        self._pay(tree)
        if not settings or not tree.has_interpolations:
            return plain
        return Composed(tree.resolved(settings), tree.positions)

    def require_all(
        self, choices: tuple[Choice, ...] = (), given: Sequence[tuple[str, ...]] = ()
    ) -> None:
        """Check that every value that is missing is among those that the caller gives by path.

        Raises:
            SpecError: some are not, and would silently have mtf's default.
        """
        tree, _ = self._tree(choices)
        left = [loc for loc in tree.missing if not any(loc[: len(p)] == p for p in given)]
        if left:
            raise SpecError([tree.problem_of_missing(loc) for loc in left])

    def _tree(self, choices: tuple[Choice, ...]) -> tuple[Tree, Composed]:
        if choices not in self._trees:
            tree = self._new_tree(choices)
            self._pay(tree)
            self._trees[choices] = tree, Composed(tree.resolved(), tree.positions)
        return self._trees[choices]

    def _pay(self, tree: Tree) -> None:
        """Take a tree's values off those that may be composed for this spec.

        Raises:
            SpecError: there are not so many left.
        """
        self._left -= tree.nodes
        if self._left < 0:
            self._fail(
                f"the members of the grid compose more than {MAX_COMPOSED:,} values in all. Use"
                " fewer members, or write the base without a defaults list"
            )

    def _new_tree(self, choices: tuple[Choice, ...]) -> Tree:
        try:
            from mtf.spec.compose.hydra_source import ListError
            from mtf.spec.compose.tree import Parts, Tree
        except ImportError:
            self._fail(f"requires hydra-core. Run {pip_install('hydra')}")
        in_list = self._tree(())[0].groups if choices else frozenset()
        asked = [(g if g in in_list else f"+{g}", option) for g, option in choices]
        if self._parts is None:
            self._parts = Parts(self._value, self._positions, self._prefix, self._groups)
        try:
            return Tree(self._parts, asked)
        except ListError as e:
            if e.missing is not None:
                self._fail_at_missing(e.missing)
            self._fail(str(e))

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
