"""Puts the value of each reference into a composed configuration, with a bound on its size.

The work is linear in the size of the result, which is bounded: each value is computed once, and a
value that two references share is one object. Texts that refer to texts that refer to texts would
otherwise grow exponentially: six lines of ``b: ${a}${a}${a}...`` give a gigabyte.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mtf.spec.compose.interpolations import OPENING, interpolations, parse
from mtf.spec.yaml.sizes import Size, size_of

if TYPE_CHECKING:
    from mtf.spec.compose.interpolations import Reference
    from mtf.spec.yaml.positions import Loc

MISSING = "???"  # in Hydra: a value that another configuration must give
MAX_TEXT = 10_000  # characters of a text that references fill
MAX_OPEN = 120  # references to references, and the mappings around them

Tree = dict[str, Any]


class TreeError(ValueError):
    """A value of a tree cannot be made, or would be too large. ``loc``: where it is written."""

    def __init__(self, loc: Loc, message: str) -> None:
        super().__init__(message)
        self.loc = loc


def resolved(tree: Tree) -> Tree:
    """Return a tree with its interpolations replaced by the values that they refer to.

    Parts of it that have no interpolation are the same objects as before.

    Raises:
        TreeError: a key does not exist, refers to itself, or the result is too large.
        InterpolationError: an interpolation is not a reference, see ``refused``.
    """
    value: Tree = _Resolution(tree).at((), tree)
    return value


class _Resolution:
    """The resolution of one tree. Each value is computed once."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._values: dict[Loc, Any] = {}
        self._open: list[Loc] = []  # texts and containers that are being computed
        self._sizes: dict[int, Size] = {}
        written = [loc for loc, _ in interpolations(tree)]
        self._changing = {loc[:i] for loc in written for i in range(len(loc) + 1)}

    def at(self, loc: Loc, raw: Any) -> Any:
        """Return the value of the tree's part ``raw`` at ``loc``."""
        if loc not in self._changing:
            return raw
        if loc not in self._values:
            self._values[loc] = self._new(loc, raw)
        return self._values[loc]

    def _new(self, loc: Loc, raw: Any) -> Any:
        if loc in self._open:
            raise TreeError(self._open[-1], "the reference leads back to itself")
        if len(self._open) >= MAX_OPEN:
            message = "a chain of too many references. Refer to the value itself"
            raise TreeError(loc, message)
        self._open.append(loc)
        if isinstance(raw, dict):
            value: Any = {key: self.at((*loc, key), item) for key, item in raw.items()}
        elif isinstance(raw, list):
            value = [self.at((*loc, i), item) for i, item in enumerate(raw)]
        else:
            value = self._text(loc, raw)
        if not size_of(value, self._sizes).is_allowed:
            raise TreeError(loc, "references make it too large. Write fewer of them")
        self._open.pop()
        return value

    def _text(self, loc: Loc, text: str) -> Any:
        parsed = parse(text)
        values = [self._value_of(reference, loc) for reference in parsed.references]
        if not parsed.is_alone:
            self._check_parts(loc, parsed.references, values)
            if len(text) + sum(len(str(value)) for value in values) > MAX_TEXT:
                message = f"references make a text of more than {MAX_TEXT:,} characters"
                raise TreeError(loc, f"{message}. Write the value")
        return parsed.filled(values)

    def _check_parts(self, loc: Loc, references: tuple[Reference, ...], values: list[Any]) -> None:
        for reference, value in zip(references, values, strict=True):
            if isinstance(value, dict | list):
                kind = "mapping" if isinstance(value, dict) else "list"
                message = f"{reference} is a {kind}, which cannot be a part of a text"
                raise TreeError(loc, message)

    def _raw(self, loc: Loc) -> Any:
        value: Any = self._tree
        for part in loc:
            value = value[part]
        return value

    def _value_of(self, reference: Reference, loc: Loc) -> Any:
        """Return the value of the key that a text at ``loc`` refers to."""
        if reference.up > len(loc):
            raise TreeError(loc, f"{reference} leads above the root. Remove dots")
        at: Loc | None = loc[: len(loc) - reference.up] if reference.up else ()
        value = self._raw(at or ())
        for part in reference.path:
            if at is not None and isinstance(value, str) and OPENING in value:
                value, at = self.at(at, value), None  # go on in what it refers to
            key = _key_in(value, part)
            if key is None:
                raise TreeError(loc, f"Interpolation key '{reference}' not found")
            value = value[key]
            at = None if at is None else (*at, key)
        if at is not None:
            value = self.at(at, value)
        if value == MISSING:
            raise TreeError(loc, f"{reference} is missing (???). Give it a value")
        return value


def _key_in(value: Any, part: str) -> str | int | None:
    """Return the key or index that a part of a reference names, None if there is none."""
    if isinstance(value, dict):
        return part if part in value else None
    if isinstance(value, list) and part.isascii() and part.isdigit() and len(part) < 10:
        return int(part) if int(part) < len(value) else None
    return None
