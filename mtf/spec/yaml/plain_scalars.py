"""Values of YAML 1.2 plain scalars: null, booleans, numbers and text."""

from __future__ import annotations

import re
from functools import lru_cache

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
_BASES = {"0b": 2, "0o": 8, "0x": 16}

Scalar = str | int | float | bool | None


@lru_cache(maxsize=4096)
def resolve(text: str) -> Scalar:
    """Return the value of a plain scalar in YAML 1.2: ``1e-3`` is a number, ``no`` is text.

    Raises:
        ValueError: it is written like a number, but is not one.

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
    if prefix in _BASES:
        return sign * int(digits.removeprefix(prefix), _BASES[prefix])
    return sign * int(digits)
