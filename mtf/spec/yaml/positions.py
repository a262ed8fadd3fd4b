"""Line and column of each value and key of a YAML file, computed when they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from mtf.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Loc = tuple[str | int, ...]  # keys and indices from the root, like pydantic's ``loc``
Position = tuple[int, int]  # line, column, from 1
# Of one value: the parser's marks of its key (None in a list) and of the value, and its children.
Node = tuple[Any, Any, Any]
_Flat = tuple[dict[Loc, Position], dict[Loc, Position]]  # of each value, of each key


class PositionInFile(tuple[int, int]):
    """A position in another file than the one that the ``Positions`` are about."""

    path: str

    def __new__(cls, position: Position, path: str) -> Self:
        """Return the position in the file at ``path``."""
        made = super().__new__(cls, position)
        made.path = path
        return made


class Positions:
    """The positions of the values and keys of one file."""

    def __init__(self, path: str, root: Node | None = None) -> None:
        """Take the tree of parser marks that the reader has built."""
        self.path = path
        self._root = root
        self._flat: _Flat | None = None
        self._make: Callable[[], _Flat] | None = None

    @classmethod
    def merged(cls, path: str, make: Callable[[], _Flat]) -> Self:
        """Return the positions of a value that was merged from several files.

        Args:
            path: of the file that problems are reported in by default.
            make: returns the position of each value and of each key when one of them is asked for.
                Those outside ``path`` are ``PositionInFile``.
        """
        made = cls(path)
        made._make = make
        return made

    @property
    def values(self) -> dict[Loc, Position]:
        """Return the position of each value."""
        return self._all()[0]

    @property
    def keys(self) -> dict[Loc, Position]:
        """Return the position of each key."""
        return self._all()[1]

    def find(self, loc: Loc) -> Position | None:
        """Return the position of the value at ``loc``, None if there is no such value."""
        if self._make is not None:
            return self._all()[0].get(loc)
        node = self._node(loc)
        return None if node is None else _position(node[1])

    def value(self, loc: Loc) -> Position:
        """Return the position of the value at ``loc``, or of the nearest value around it."""
        while (position := self.find(loc)) is None:
            if not loc:
                return 1, 1
            loc = loc[:-1]
        return position

    def key(self, loc: Loc) -> Position:
        """Return the position of the key that ``loc`` ends in, or of its value if it has no key."""
        if self._make is not None:
            return self._all()[1].get(loc) or self.value(loc)
        node = self._node(loc)
        return self.value(loc) if node is None or node[0] is None else _position(node[0])

    def problem(self, position: Position, message: str) -> Problem:
        """Return a problem at a position of this file, or of the file that the position names."""
        return Problem(self.path_of(position), *position, message)

    def problem_at(self, loc: Loc, message: str) -> Problem:
        """Return a problem at the value at ``loc``."""
        return self.problem(self.value(loc), message)

    def problem_at_key(self, loc: Loc, message: str) -> Problem:
        """Return a problem at the key that ``loc`` ends in."""
        return self.problem(self.key(loc), message)

    def path_of(self, position: Position) -> str:
        """Return the path of the file that a position is in."""
        return position.path if isinstance(position, PositionInFile) else self.path

    def _node(self, loc: Loc) -> Node | None:
        node = self._root
        for part in loc:
            children = node[2] if node is not None else None
            if isinstance(children, dict):
                node = children.get(part)
            elif isinstance(children, list) and isinstance(part, int) and part < len(children):
                node = children[part]
            else:
                return None
        return node

    def _all(self) -> _Flat:
        if self._flat is None and self._make is not None:
            self._flat = self._make()
        if self._flat is None:
            nodes = [] if self._root is None else list(_walk((), self._root))
            self._flat = (
                {loc: _position(node[1]) for loc, node in nodes},
                {loc: _position(node[0]) for loc, node in nodes if node[0] is not None},
            )
        return self._flat


def _walk(loc: Loc, node: Node) -> Iterator[tuple[Loc, Node]]:
    yield loc, node
    children = node[2]
    if children is not None:
        for part, child in children.items() if isinstance(children, dict) else enumerate(children):
            yield from _walk((*loc, part), child)


def _position(mark: Any) -> Position:
    return mark.line + 1, mark.column + 1
