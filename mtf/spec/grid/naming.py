"""Names of a grid's members, and reading parameters back from a name."""

from __future__ import annotations

import hashlib
import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, assert_never
from urllib.parse import quote, unquote

from mtf.core.vocabulary import json_text

if TYPE_CHECKING:
    from collections.abc import Mapping

Strategy = Literal["hash", "parameters", "timestamp", "sequential"]

MAX_BYTES = 200  # a ref component and a file name may have 250, including their endings
# git refuses '..', a component that ends in '.' or '.lock', and '~' anywhere
_REFUSED = re.compile(r"\.(?=\.|\Z|lock\Z)|~")
_REFUSED_FIRST = re.compile(r"\A[.-]")


class NameTooLongError(ValueError):
    """The values of a member are too long for a name."""


def experiment_name(
    strategy: Strategy, parameters: Mapping[str, Any], index: int, count: int, stamp: str
) -> str:
    """Return a member's name: a legal ref component and file name, unique within its grid.

    Args:
        strategy: the spec's ``naming``.
        parameters: the values that the grid sets, by dotted key.
        index: the member's index in its grid, from 0.
        count: the number of members.
        stamp: the submission's time, for ``timestamp``.

    Raises:
        NameTooLongError: with ``parameters``, the name would be longer than 200 bytes.
    """
    match strategy:
        case "parameters":
            return _of_parameters(parameters)
        case "hash":
            text = json_text.dumps(parameters, sort_keys=True, separators=(",", ":"))
            return hashlib.sha256(text.encode()).hexdigest()[:16]
        case "sequential":
            return _padded(index, count)
        case "timestamp":
            return f"{stamp}-{_padded(index, count)}"
        case _:
            assert_never(strategy)


def parse_experiment_name(name: str) -> dict[str, Any]:
    """Return the values that a name of the ``parameters`` strategy was made from.

    Raises:
        ValueError: the name was not made by this strategy.
    """
    out: dict[str, Any] = {}
    for part in name.split(","):
        key, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"{name!r} is not a name made from parameters: {part!r} has no '='")
        out[unquote(key, errors="strict")] = _read(unquote(value, errors="strict"))
    return out


def _of_parameters(parameters: Mapping[str, Any]) -> str:
    name = ",".join(f"{_encode(k)}={_encode(_text(v))}" for k, v in parameters.items())
    name = _REFUSED_FIRST.sub(_percent, name)
    if len(name) > MAX_BYTES:
        raise NameTooLongError(
            f"the member's name {name[:40]}... has {len(name)} bytes, at most {MAX_BYTES} are"
            " allowed. Write naming: hash"
        )
    return name


def _padded(index: int, count: int) -> str:
    return f"{index + 1:0{max(4, len(str(count)))}}"


@lru_cache(maxsize=4096)
def _encode(text: str) -> str:
    return _REFUSED.sub(_percent, quote(text, safe="+"))


def _percent(match: re.Match[str]) -> str:
    return f"%{ord(match[0]):02X}"


def _text(value: Any) -> str:
    """Return a value as JSON; a string unquoted, unless it reads as another JSON value."""
    if isinstance(value, str) and _read(value) == value:
        return value
    return json_text.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _read(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return text


def _refuse(constant: str) -> None:
    raise ValueError(constant)
