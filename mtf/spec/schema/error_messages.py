"""Pydantic's errors as problems with their place in the file, in words for whoever wrote it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel

from mtf.core.vocabulary.spelling import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Collection

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

    from mtf.errors import Problem
    from mtf.spec.yaml.positions import Loc, Position, Positions

_OR_INSTANCE = re.compile(r" or (an )?instance of \w+")
_NUMBER = re.compile(r"[+-]?[0-9.]+(e[+-]?[0-9]+)?", re.IGNORECASE)
KEY_ALIASES = {"training": "trainer"}  # what a file may say instead


def problems_of(
    error: ValidationError,
    model: type[BaseModel],
    positions: Positions,
    prefix: Loc = (),
    *,
    missing_is_fine: bool = False,
) -> list[Problem]:
    """Return one problem for each of pydantic's errors.

    Args:
        error: raised by ``model``.
        model: that was validated.
        positions: of the file the value was read from.
        prefix: where in that file the validated value stands.
        missing_is_fine: leave out what says that a key is missing.
    """
    return [
        positions.problem(_position(detail, positions, prefix), explain(detail, model, prefix))
        for detail in error.errors(include_url=False)
        if not (missing_is_fine and detail["type"] == "missing")
    ]


def explain(detail: ErrorDetails, model: type[BaseModel], prefix: Loc = ()) -> str:
    """Return what is wrong and, where it can be guessed, what was meant."""
    loc, kind = detail["loc"], detail["type"]
    where = dotted(prefix + loc)
    if kind == "extra_forbidden":
        return unknown_key(dotted(prefix + loc[:-1]), str(loc[-1]), known_keys(model, loc[:-1]))
    if kind == "missing":
        return f"{where} is missing"
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    message = message.replace("should", "must", 1).replace("valid dictionary", "mapping")
    message = _OR_INSTANCE.sub("", message)
    if kind == "too_short" and detail["input"] in ([], {}):
        message = "has no values"
    elif kind != "value_error":
        message += f", got {shown(detail['input'])}{_cure(kind, detail['input'])}"
    return f"{where}: {message}" if where else message


def _cure(kind: str, value: Any) -> str:
    """Return what to write instead, where the value itself tells."""
    if kind == "list_type" and not isinstance(value, dict):
        return f". Write [{shown(value)}]"
    if kind == "string_type" and isinstance(value, int | float):
        return ". Put it in quotes"
    if kind in {"int_type", "float_type"} and isinstance(value, str) and _NUMBER.fullmatch(value):
        return ". Remove the quotes"
    if kind == "int_type" and isinstance(value, float) and value.is_integer():
        return f". Write {value:.0f}"
    return ""


def unknown_key(where: str, key: str, known: Collection[str]) -> str:
    """Return the message for a key that nothing knows, with its nearest known name."""
    inside = f" in {where}" if where else ""
    for name, other in KEY_ALIASES.items():
        if key == other and name in known:
            return f"{key} means {name}, which is there already: keep one"
    return f"unknown key {key!r}{inside}. {did_you_mean(key, known)}".rstrip()


def shown(value: Any) -> str:
    """Return a value as a message quotes it: JSON, cut where it gets long."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def dotted(loc: Loc) -> str:
    """Return ``linked[0][1].optimizer.lr`` for a path of keys and indices."""
    out = ""
    for part in loc:
        if isinstance(part, int):
            out += f"[{part}]"
        elif part != "[key]":
            out += f".{part}" if out else part
    return out


def known_keys(model: type[BaseModel], loc: Loc) -> list[str]:
    """Return the keys that the mapping at ``loc`` may have."""
    at: type[BaseModel] | None = model
    for part in loc:
        if at is not None and isinstance(part, str) and part in at.model_fields:
            at = _model_in(at.model_fields[part].annotation)
    return list(at.model_fields) if at else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(argument) for argument in get_args(annotation))
    return next((model for model in found if model is not None), None)


def _position(detail: ErrorDetails, positions: Positions, prefix: Loc) -> Position:
    loc = located(prefix + detail["loc"], positions)
    if detail["type"] in {"extra_forbidden"} or "[key]" in detail["loc"]:
        return positions.key(loc)
    if detail["type"] == "missing":  # the mapping that lacks it, by its key
        return positions.key(loc[:-1]) if len(loc) > 1 else positions.value(())
    return positions.value(loc)


def located(loc: Loc, positions: Positions) -> Loc:
    """Return ``loc`` as the file spells it: its own spelling of keys, no union tags of pydantic."""
    out: Loc = ()
    for i, part in enumerate(loc):
        spelled = KEY_ALIASES.get(str(part), part)
        if positions.find((*out, part)) is None and positions.find((*out, spelled)) is not None:
            out = (*out, spelled)
        elif positions.find((*out, part)) is not None or i == len(loc) - 1:
            out = (*out, part)
    return out
