"""Encodes and decodes JSON. All JSON that mtf writes is encoded here: strict, without NaN.

JSON has no NaN and no infinities. They are written as ``null``, with their name beside them::

    {"loss": NaN, "ppl": [1.0, inf]}
    {"loss": null, "loss_text": "NaN", "ppl": [1.0, null], "ppl_text": [null, "Infinity"]}

If there is a key ``loss_text`` already, the name stands in ``loss_text_text``, and so on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Unpack

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypedDict

    class Style(TypedDict, total=False):
        """How JSON text looks; the options of ``json.dumps``."""

        indent: int | None
        sort_keys: bool
        separators: tuple[str, str] | None
        ensure_ascii: bool


SUFFIX = "_text"
_MARK = f'{SUFFIX}"'  # only a text that contains it holds names; others are not walked through
_NAMES = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def dumps(value: Any, **style: Unpack[Style]) -> str:
    """Return a value as JSON."""
    return encoder(**style)(value)


@cache
def encoder(**style: Unpack[Style]) -> Callable[[Any], str]:
    """Return a function that encodes as ``dumps`` does; ``json.dumps`` makes an encoder a call."""
    encode = json.JSONEncoder(**style, allow_nan=False).encode

    def encode_named(value: Any) -> str:
        try:
            return encode(value)
        except ValueError:  # a number is not finite
            return encode(with_names(value))

    return encode_named


def loads(text: str | bytes) -> Any:
    """Return the value that ``dumps`` has encoded, its numbers as they were.

    Bare ``NaN`` and ``Infinity``, which earlier versions wrote, are read as well.

    Raises:
        ValueError: the text is not JSON.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    mark: Any = _MARK if isinstance(text, str) else _MARK.encode()
    return without_names(value) if mark in text else value


def name_of(value: float) -> str | None:
    """Return the name of a number that is not finite, None for any other."""
    if math.isfinite(value):
        return None
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def number_text(value: float, form: str) -> str:
    """Return a number for people: formatted, or its name if it is not finite."""
    return name_of(value) or format(value, form)


def with_names(value: Any) -> Any:
    """Return a JSON value with null for each number that is not finite, and its name beside it."""
    if isinstance(value, Mapping):
        out: dict[Any, Any] = {}
        for key, item in value.items():
            out[key] = with_names(item)
            if (names := _names(item)) is not None:
                name = f"{key}{SUFFIX}"
                while name in value or name in out:
                    name += SUFFIX
                out[name] = names
        return out
    if isinstance(value, list | tuple):
        return [with_names(item) for item in value]
    return None if _is_not_finite(value) else value


def without_names(value: Any) -> Any:
    """Undo ``with_names``."""
    if isinstance(value, list):
        return [without_names(item) for item in value]
    if not isinstance(value, dict):
        return value
    out: dict[str, Any] = {key: without_names(item) for key, item in value.items()}
    for key, item in value.items():
        if key in out and (item is None or isinstance(item, list)):
            name = f"{key}{SUFFIX}"
            while name in value and not (name in out and _fits(item, value[name])):
                name += SUFFIX
            if name in out:
                out[key] = _numbers(out[key], out.pop(name))
    return out


def _is_not_finite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _names(value: Any) -> Any:
    """Return the name of a number that is not finite, or a list with those of a list's items."""
    if _is_not_finite(value):
        return name_of(value)
    if isinstance(value, list | tuple):
        names = [_names(item) for item in value]
        return names if any(name is not None for name in names) else None
    return None


def _fits(value: Any, names: Any) -> bool:
    """Return True if ``names`` is what ``_names`` returns of the value that was encoded."""
    if value is None:
        return isinstance(names, str) and names in _NAMES
    if not (isinstance(value, list) and isinstance(names, list) and len(value) == len(names)):
        return False
    pairs = [(v, n) for v, n in zip(value, names, strict=True) if n is not None]
    return bool(pairs) and all(_fits(v, n) for v, n in pairs)


def _numbers(value: Any, names: Any) -> Any:
    if isinstance(names, str):
        return _NAMES[names]
    return [v if n is None else _numbers(v, n) for v, n in zip(value, names, strict=True)]
