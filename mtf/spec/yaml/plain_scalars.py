"""Values of YAML 1.2 plain scalars: null, booleans, numbers and text."""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Any

_CONSTANTS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_NUMERIC = frozenset("+-.0123456789")
_INT = re.compile(r"[-+]?(0b[01_]+|0o?[0-7_]+|[0-9_]+|0x[0-9a-fA-F_]+)")
_FLOAT = re.compile(
    r"[-+]?([0-9][0-9_]*\.[0-9_]*([eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+"
    r"|\.[0-9_]+([eE][-+][0-9]+)?|\.(inf|Inf|INF))|\.(nan|NaN|NAN)"
)
# Greater integers than every part of a training can hold: C, torch, SQLite, JSON elsewhere.
_LEAST, _GREATEST = -(2**63), 2**64 - 1
_BASES = {"0b": 2, "0o": 8, "0x": 16}

Scalar = str | int | float | bool | None
UNUSUAL = object()  # instead of a value: the scalar needs a closer look


@lru_cache(maxsize=4096)
def usual_value(text: str) -> Any:
    """Return the value of a plain scalar, ``UNUSUAL`` unless it is ASCII text or a finite value."""
    try:
        value = resolve(text)
    except (ValueError, OverflowError):
        return UNUSUAL
    is_finite = type(value) is not float or math.isfinite(value)
    return value if is_finite and text.isascii() else UNUSUAL


def resolve(text: str) -> Scalar:
    """Return the value of a plain scalar in YAML 1.2: ``1e-3`` is a number, ``no`` is text.

    Raises:
        ValueError: it is written like a number, but is not one.
        OverflowError: it is an integer that does not fit in 64 bits.

    Source: YAML 1.2, core schema; ``_`` within numbers as in ruamel.yaml.
    """
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if text[0] not in _NUMERIC:
        return text
    if _FLOAT.fullmatch(text):
        return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
    return _integer(text) if _INT.fullmatch(text) else text


def _integer(text: str) -> int:
    digits = text.replace("_", "").lstrip("+-")
    sign = -1 if text[0] == "-" else 1
    prefix = digits[:2]
    base = _BASES.get(prefix, 10)
    number = digits.removeprefix(prefix) if prefix in _BASES else digits
    if len(number.lstrip("0")) > 64:  # before it is converted, which takes quadratic time
        raise OverflowError
    value = sign * int(number, base)
    if not _LEAST <= value <= _GREATEST:
        raise OverflowError
    return value
