"""Where in its file each value and each key stands, worked out when somebody asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from mtf.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

Loc = tuple[str | int, ...]  # keys and indices from the root, as in a pydantic error
Position = tuple[int, int]  # line, column, from 1
# Of one value: the parser's marks of its key (None in a list) and of the value, and its children.
Node = tuple[Any, Any, Any]


class PositionInFile(tuple[int, int]):
    """A place in another file than the one whose positions it stands in."""

    path: str

    def __new__(cls, position: Position, path: str) -> Self:
        """Return the place in the file at ``path``."""
        made = super().__new__(cls, position)
        made.path = path
        return made


class Positions:
    """Where the values and the keys of one file stand."""

    def __init__(self, path: str, root: Node | None = None) -> None:
        """Take the positions of a whole file as its reader builds them."""
        self.path = path
        self._root = root
        self._flat: tuple[dict[Loc, Position], dict[Loc, Position]] | None = None

    @classmethod
    def merged(cls, path: str, values: dict[Loc, Position], keys: dict[Loc, Position]) -> Self:
        """Return positions of several files as those of one; places may be ``PositionInFile``."""
        made = cls(path)
        made._flat = values, keys
        return made

    @property
    def values(self) -> dict[Loc, Position]:
        """Return the place of each value."""
        return self._all()[0]

    @property
    def keys(self) -> dict[Loc, Position]:
        """Return the place of each key."""
        return self._all()[1]

    def find(self, loc: Loc) -> Position | None:
        """Return where the value at ``loc`` begins, None where there is none."""
        if self._flat is not None:
            return self._flat[0].get(loc)
        node = self._node(loc)
        return None if node is None else _position(node[1])

    def value(self, loc: Loc) -> Position:
        """Return where the value at ``loc`` begins, or the nearest one around it."""
        while (position := self.find(loc)) is None:
            if not loc:
                return 1, 1
            loc = loc[:-1]
        return position

    def key(self, loc: Loc) -> Position:
        """Return where the key that ends ``loc`` stands, or the value where there is no key."""
        if self._flat is not None:
            return self._flat[1].get(loc) or self.value(loc)
        node = self._node(loc)
        return self.value(loc) if node is None or node[0] is None else _position(node[0])

    def problem(self, position: Position, message: str) -> Problem:
        """Return a problem of this file, or of the one that the place is in."""
        return Problem(self.path_of(position), *position, message)

    def path_of(self, position: Position) -> str:
        """Return the file that a place is in."""
        return position.path if isinstance(position, PositionInFile) else self.path

    def _node(self, loc: Loc) -> Node | None:
        node = self._root
        for part in loc:
            inside = node[2] if node is not None else None
            if isinstance(inside, dict):
                node = inside.get(part)
            elif isinstance(inside, list) and isinstance(part, int) and part < len(inside):
                node = inside[part]
            else:
                return None
        return node

    def _all(self) -> tuple[dict[Loc, Position], dict[Loc, Position]]:
        if self._flat is None:
            nodes = [] if self._root is None else list(_walk((), self._root))
            self._flat = (
                {loc: _position(node[1]) for loc, node in nodes},
                {loc: _position(node[0]) for loc, node in nodes if node[0] is not None},
            )
        return self._flat


def _walk(loc: Loc, node: Node) -> Iterator[tuple[Loc, Node]]:
    yield loc, node
    inside = node[2]
    if inside is not None:
        for part, one in inside.items() if isinstance(inside, dict) else enumerate(inside):
            yield from _walk((*loc, part), one)


def _position(mark: Any) -> Position:
    return mark.line + 1, mark.column + 1
