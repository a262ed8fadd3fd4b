"""Writes JSON values as YAML in block style, which libyaml reads: fast, and however long it is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from mtf.core.vocabulary import json_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PLAIN_KEY = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)
# words that are values without quotes, in YAML 1.1 or 1.2
_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})


def in_block_style(value: Mapping[str, Any]) -> str:
    """Return a mapping of JSON values as YAML 1.2 that reads back as the same values."""
    return "".join(_lines(value, "")) or "{}\n"


def _lines(value: Any, indent: str) -> Iterator[str]:
    for head, item in _items(value):
        if _is_nested(item):
            yield f"{indent}{head}\n"
            yield from _lines(item, f"{indent}  ")
        else:
            yield f"{indent}{head} {json_text.dumps(item)}\n"


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, list):
        yield from (("-", item) for item in value)
        return
    for key, item in value.items():
        is_plain = _PLAIN_KEY.fullmatch(key) and key.lower() not in _WORDS
        yield f"{key if is_plain else json_text.dumps(key)}:", item


def _is_nested(value: Any) -> bool:
    """Return True if a value takes lines of its own: lists of scalars take one, as JSON."""
    if isinstance(value, list):
        return any(isinstance(item, dict | list) and item for item in value)
    return isinstance(value, dict) and bool(value)
