"""What a plain word of YAML 1.2 stands for: the one place that decides between text and number."""

from __future__ import annotations

import re
from functools import lru_cache

_WORDS = {
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
    """Return what a plain word stands for by YAML 1.2: ``1e-3`` is a number, ``no`` is text.

    Raises:
        ValueError: it is written as a number, but there is no such one.

    Source: YAML 1.2, core schema, and as ruamel.yaml has it ``_`` within numbers.
    """
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMERIC:
        return text
    if _FLOAT.fullmatch(text):
        return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
    return _whole(text) if _INT.fullmatch(text) else text


def _whole(text: str) -> int:
    digits = text.replace("_", "").lstrip("+-")
    sign = -1 if text[0] == "-" else 1
    return sign * int(digits.removeprefix(digits[:2]) if digits[:2] in _BASES else digits,
                      _BASES.get(digits[:2], 10))  # fmt: skip
