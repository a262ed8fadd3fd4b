"""Specs with a ``defaults`` list: composed by hydra-core, every value traced to where it stands."""

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
MISSING = "???"  # Hydra's word for a value that somebody else must give
_RESOLVER = re.compile(r"\$\{\s*([A-Za-z_][\w.]*)\s*:")
_PURE = {"oc.select", "oc.decode", "oc.create", "oc.deprecated", "oc.dict.keys", "oc.dict.values"}

Choice = tuple[str, str]  # a group, and the option of it that is chosen


@dataclass(frozen=True, eq=False)
class Composed:
    """Sections as composed, and where each value stands."""

    value: dict[str, Any]
    positions: Positions


class Composition:
    """A mapping with a ``defaults`` list, to be composed for the choices that a grid makes."""

    def __init__(
        self, value: Mapping[str, Any], positions: Positions, prefix: Loc, groups: Groups
    ) -> None:
        """Take the mapping, where it stands (``prefix``: its place in the file), and the groups."""
        self._value = value
        self._positions = positions
        self._prefix = prefix
        self._groups = groups
        self._trees: dict[tuple[Choice, ...], tuple[Tree, Composed, bool]] = {}

    def chooses(self, path: tuple[str, ...], value: object) -> bool:
        """Return whether a grid that sets ``path`` to ``value`` chooses an option of a group."""
        return (
            len(path) == 1
            and isinstance(value, str)
            and "/" not in value
            and self._groups.is_option(f"{path[0]}/{value}")
        )

    def composed(
        self, choices: tuple[Choice, ...] = (), settings: Sequence[tuple[str, Any]] = ()
    ) -> Composed:
        """Return the mapping for these choices; what nobody has given yet (``???``) is left out.

        ``settings`` are the values that go on top, by dotted keys: interpolations see them, the
        caller puts them in.

        Raises:
            SpecError: every mistake that was found, where it stands.
        """
        if referring := [key for key, value in settings if any(_references(value, ()))]:
            self._fail(
                f"a grid over it sets {referring[0]} to a reference ${{...}}: write the value"
            )
        tree, plain, refers = self._tree(choices)
        if not (settings and refers):
            return plain
        return Composed(self._resolved(tree, plain.positions, settings), plain.positions)

    def _tree(self, choices: tuple[Choice, ...]) -> tuple[Tree, Composed, bool]:
        if choices not in self._trees:
            tree = self._new_tree(choices)
            positions = self._merged_positions(tree)
            refers = list(_references(tree.raw(), ()))
            _check_resolvers(refers, positions, self._prefix)
            plain = Composed(self._resolved(tree, positions, ()), positions)
            self._trees[choices] = tree, plain, bool(refers)
        return self._trees[choices]

    def _new_tree(self, choices: tuple[Choice, ...]) -> Tree:
        try:
            from mtf.spec.compose.hydra_source import Tree
        except ImportError:
            self._fail(f"needs hydra-core: {pip_install('hydra')}")
        there = self._tree(())[0].chosen if choices else frozenset()
        asked = [(g if g in there else f"+{g}", option) for g, option in choices]
        made: Tree = self._told(lambda: Tree(self._groups, self._value, asked))
        return made

    def _resolved(
        self, tree: Tree, positions: Positions, settings: Sequence[tuple[str, Any]]
    ) -> dict[str, Any]:
        value: dict[str, Any] = _given(self._told(lambda: tree.resolved(settings), positions))
        return value

    def _told(self, compose: Callable[[], Any], positions: Positions | None = None) -> Any:
        """Return what Hydra makes, its errors told where their cause stands."""
        from hydra.errors import HydraException, MissingConfigException
        from omegaconf.errors import OmegaConfBaseException

        try:
            return compose()
        except MissingConfigException as e:
            self._fail_at_missing(str(e.missing_cfg_file or "").strip("/"))
        except OmegaConfBaseException as e:
            key = getattr(e, "full_key", None) or ""
            loc = (*self._prefix, *str(key).split("."))
            at = positions or self._positions
            text = str(e).splitlines()[0]
            raise SpecError([at.problem(at.value(loc), f"{key}: {text}")]) from None
        except (HydraException, ValueError) as e:
            text = " ".join(str(e).split()).replace("'(the spec)'", "this file")
            self._fail(text)

    def _fail(self, message: str) -> NoReturn:
        position = self._positions.key((*self._prefix, KEY))
        raise SpecError([self._positions.problem(position, f"{KEY}: {message}")])

    def _fail_at_missing(self, name: str) -> NoReturn:
        """Tell which configuration is not there, at the entry of this spec that names it."""
        group, _, option = name.rpartition("/")
        options = self._groups.options(group)
        hint = f". {did_you_mean(option, options)}"
        if not options:
            hint = f", nor a folder {self._groups.folder}/{group}"
        message = f"there is no {self._groups.path(name)}{hint}"
        loc = (*self._prefix, KEY)
        for i, entry in enumerate(self._value[KEY]):
            if isinstance(entry, dict) and option in entry.values():
                loc = (*loc, i, *(key for key, value in entry.items() if value == option))
            elif entry == name:
                loc = (*loc, i)
        raise SpecError([self._positions.problem(self._positions.value(loc), message)])

    def _merged_positions(self, tree: Tree) -> Positions:
        """Return where each value stands, be it in the spec or in a group's file."""
        from mtf.spec.compose.hydra_source import PRIMARY

        merged = Positions.merged(
            self._positions.path, dict(self._positions.values), dict(self._positions.keys)
        )
        for name, package in tree.parts:
            if name == PRIMARY:
                merged.values.update({k: v for k, v in self._positions.values.items() if k})
                merged.keys.update(self._positions.keys)
                continue
            here, into = self._groups.positions(name), (*self._prefix, *package)
            for ours, theirs in ((merged.values, here.values), (merged.keys, here.keys)):
                found = {(*into, *loc): PositionInFile(at, here.path) for loc, at in theirs.items()}
                ours |= {loc: at for loc, at in found.items() if loc != self._prefix}
        return merged


def _given(value: Any) -> Any:
    """Return a tree without what is still missing."""
    if isinstance(value, dict):
        return {k: _given(item) for k, item in value.items() if item != MISSING}
    return value


def _references(value: Any, loc: Loc) -> Iterator[tuple[Loc, str]]:
    """Yield every text that refers to something else."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _references(item, (*loc, key))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _references(item, (*loc, i))
    elif isinstance(value, str) and "${" in value:
        yield loc, value


def _check_resolvers(
    references: Sequence[tuple[Loc, str]], positions: Positions, prefix: Loc
) -> None:
    """Refuse what a commit does not determine, like the environment of whoever runs a sync.

    Raises:
        SpecError: every such reference.
    """
    problems = [
        positions.problem(
            positions.value((*prefix, *loc)),
            f"${{{name}:...}} is not part of the commit (and may hold a secret): write the value,"
            " or read it in the job from slurm.variables",
        )
        for loc, text in references
        for name in _RESOLVER.findall(text)
        if name not in _PURE
    ]
    if problems:
        raise SpecError(problems)
