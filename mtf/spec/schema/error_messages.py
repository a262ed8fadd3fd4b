"""Error messages of specs and settings: pydantic's errors in plain words, at their position."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel

from mtf.core.vocabulary import json_text
from mtf.core.vocabulary.spelling import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Collection

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

    from mtf.errors import Problem
    from mtf.spec.yaml.positions import Loc, Position, Positions

_NUMBER = re.compile(r"[+-]?[0-9.]+(e[+-]?[0-9]+)?", re.IGNORECASE)
KEY_ALIASES = {"training": "trainer"}  # key -> what a file may write instead
# Source: docs.pydantic.dev, Validation Errors.
_EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "finite_number": "a finite number",
    "float_type": "a number",
    "greater_than": "a number greater than {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "int_type": "an integer",
    "less_than": "a number less than {lt}",
    "less_than_equal": "a number of at most {le}",
    "list_type": "a list",
    "literal_error": "{expected}",
    "model_type": "a mapping",
    "string_type": "text",
    "tuple_type": "a list",
}


def problems_of(
    error: ValidationError,
    model: type[BaseModel],
    positions: Positions,
    prefix: Loc = (),
    *,
    allow_missing: bool = False,
) -> list[Problem]:
    """Return one problem for each of pydantic's errors.

    Args:
        error: raised by ``model``.
        model: that was validated.
        positions: of the file that the value was read from.
        prefix: where in that file the validated value is.
        allow_missing: leave out errors about missing keys.
    """
    return [
        positions.problem(_position(detail, positions, prefix), explain(detail, model, prefix))
        for detail in error.errors(include_url=False)
        if not (allow_missing and detail["type"] == "missing")
    ]


def explain(detail: ErrorDetails, model: type[BaseModel], prefix: Loc = ()) -> str:
    """Return the message for an error: key, expected, given and, if it can be guessed, the fix."""
    loc, kind = detail["loc"], detail["type"]
    where = dotted(prefix + loc)
    if kind == "extra_forbidden":
        return unknown_key(dotted(prefix + loc[:-1]), str(loc[-1]), known_keys(model, loc[:-1]))
    if kind == "missing":
        return f"{where} is missing"
    message = _expectation(detail) + _fix(detail, known_keys(model, loc))
    return f"{where}: {message}" if where else message


def _expectation(detail: ErrorDetails) -> str:
    """Return the part of the message with the expected and the given value."""
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "value_error":  # the whole message is from a validator of mtf
        return detail["msg"].removeprefix("Value error, ")
    if kind == "too_short" and not value:
        return f"expected at least one value, got {shown(value)}"
    if kind in {"too_short", "too_long"}:
        bound = "at least {min_length}" if kind == "too_short" else "at most {max_length}"
        unit = "characters" if isinstance(value, str) else "values"
        return f"expected {bound.format(**context)} {unit}, got {context['actual_length']}"
    if kind not in _EXPECTED:
        return f"{detail['msg'].removeprefix('Input ')}, got {shown(value)}"
    limits = {key: _number(limit) for key, limit in context.items()}
    return f"expected {_EXPECTED[kind].format(**limits)}, got {shown(value)}"


def _number(limit: Any) -> Any:
    return int(limit) if isinstance(limit, float) and limit.is_integer() else limit


def _fix(detail: ErrorDetails, known: Collection[str]) -> str:
    """Return a sentence with the value to write instead, empty if it cannot be guessed.

    ``known``: keys that the value may have if it is a mapping.
    """
    kind, value = detail["type"], detail["input"]
    if kind == "list_type" and not isinstance(value, dict):
        return f". Write [{shown(value)}]"
    if kind == "model_type" and "type" in known and isinstance(value, str):
        return f". Write {{type: {value}}}"
    if kind == "string_type" and isinstance(value, int | float):
        return ". Put it in quotes"
    if kind in {"int_type", "float_type"} and isinstance(value, str) and _NUMBER.fullmatch(value):
        return ". Remove the quotes"
    if kind == "int_type" and isinstance(value, float) and value.is_integer():
        return f". Write {value:.0f}"
    return ""


def unknown_key(where: str, key: str, known: Collection[str]) -> str:
    """Return the message for an unknown key, with the nearest known one."""
    inside = f" in {where}" if where else ""
    for name, alias in KEY_ALIASES.items():
        if key == alias and name in known:
            return f"{key} is another name for {name}, which is given as well. Keep one of them"
    return f"unknown key {key!r}{inside}. {did_you_mean(key, known)}".rstrip()


def shown(value: Any) -> str:
    """Return a value as messages quote it: JSON, shortened if it is long."""
    if callable(value):  # a program gave it
        return kind_of(value)
    try:
        text = json_text.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def kind_of(value: object) -> str:
    """Return a value of a program in words, with what to write for a class or function."""
    name = getattr(value, "__qualname__", None)
    if isinstance(name, str) and callable(value):
        kind = "class" if isinstance(value, type) else "function"
        module = getattr(value, "__module__", None)
        if module in (None, "__main__") or "<" in name:
            return (
                f"the {kind} {name}. Move it to a module of the repository, commit that, and write"
                " package.module:Name"
            )
        if module == "builtins":
            return f"the {kind} {name}. Write package.module:Name"
        return f'the {kind} {name}. Write "{module}:{name}"'
    if isinstance(value, set | frozenset):
        return "a set, which has no order. Write a list"
    return f"a value of type {type(value).__name__}"


def dotted(loc: Loc) -> str:
    """Return a path of keys and indices as text: ``linked[0][1].optimizer.lr``."""
    out = ""
    for part in loc:
        if isinstance(part, int):
            out += f"[{part}]"
        elif part != "[key]":
            out += f".{part}" if out else part
    return out


def known_keys(model: type[BaseModel], loc: Loc) -> list[str]:
    """Return the keys that the mapping at ``loc`` may have."""
    found: type[BaseModel] | None = model
    for part in loc:
        if found is not None and isinstance(part, str) and part in found.model_fields:
            found = _model_in(found.model_fields[part].annotation)
    return list(found.model_fields) if found else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(argument) for argument in get_args(annotation))
    return next((model for model in found if model is not None), None)


def _position(detail: ErrorDetails, positions: Positions, prefix: Loc) -> Position:
    loc = written_loc(prefix + detail["loc"], positions)
    if detail["type"] == "extra_forbidden" or "[key]" in detail["loc"]:
        return positions.key(loc)
    if detail["type"] == "missing":  # the key of the mapping that lacks it
        return positions.key(loc[:-1]) if len(loc) > 1 else positions.value(())
    return positions.value(loc)


def written_loc(loc: Loc, positions: Positions) -> Loc:
    """Return ``loc`` as the file writes it: with its aliases of keys, without pydantic's tags."""
    out: Loc = ()
    for i, part in enumerate(loc):
        alias = KEY_ALIASES.get(str(part), part)
        if positions.find((*out, part)) is None and positions.find((*out, alias)) is not None:
            out = (*out, alias)
        elif positions.find((*out, part)) is not None or i == len(loc) - 1:
            out = (*out, part)
    return out
