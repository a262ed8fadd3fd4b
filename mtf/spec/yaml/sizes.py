"""Sizes of values: how much of a file they would take, to bound work before it is done."""

from __future__ import annotations

from typing import Any, NamedTuple

from mtf.spec.yaml.reader import MAX_BYTES, MAX_DEPTH, MAX_NODES


class Size(NamedTuple):
    """The size of a value when it is written out."""

    nodes: int
    text: int  # characters
    depth: int

    @property
    def is_allowed(self) -> bool:
        """Return True if a file may have a value of this size."""
        return self.nodes <= MAX_NODES and self.text <= MAX_BYTES and self.depth <= MAX_DEPTH


def size_of(value: Any, known: dict[int, Size] | None = None) -> Size:
    """Return the size of a value; ``known`` keeps those of its mappings and lists by identity."""
    if isinstance(value, str):
        return Size(1, len(value), 0)
    if not isinstance(value, dict | list):
        return Size(1, 8, 0)
    known = {} if known is None else known
    size = known.get(id(value))
    if size is None:
        inside = [size_of(v, known) for v in (value.values() if isinstance(value, dict) else value)]
        keys = sum(map(len, value)) if isinstance(value, dict) else 0
        size = known[id(value)] = Size(
            1 + sum(s.nodes for s in inside),
            keys + sum(s.text for s in inside),
            1 + max((s.depth for s in inside), default=0),
        )
    return size
