"""Turns the values of a program into those that a spec may have, or says which it may not."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from enum import Enum
from numbers import Integral, Real
from typing import Any

from pydantic import BaseModel

from mtf.errors import CONFIGURATION, ConfigurationError, Problem
from mtf.spec.schema.error_messages import dotted, kind_of

_DEEPEST = 100  # levels of lists and mappings
_EXPECTED = "expected text, a number, true or false, a list or a mapping"


def as_plain(given: Mapping[str, Any], key: str = "") -> dict[str, Any]:
    """Return a mapping of JSON values.

    Tuples, ranges and arrays become lists, numpy's scalars numbers, paths text, and sections of an
    ``ExperimentConfig`` mappings.

    Args:
        given: by a program.
        key: that the mapping stands at, for messages.

    Raises:
        ConfigurationError: some values have no form in a spec; the error has each with its key.
    """
    reader = _Reader()
    plain = reader.plain(given, (key,) if key else ())
    if reader.problems:
        raise ConfigurationError(reader.problems)
    if not isinstance(plain, dict):
        message = f"{key or 'configuration'}: expected a mapping of keys, got {kind_of(given)}"
        raise ConfigurationError([Problem(CONFIGURATION, 1, 1, message)])
    return plain


class _Reader:
    """Reads values and collects those that have no form in a spec."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def plain(self, value: Any, loc: tuple[str | int, ...]) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            return self._refuse(loc, f"expected a finite number, got {value}")
        if value is None or type(value) in (str, bool, int, float):
            return value
        if len(loc) > _DEEPEST:
            return self._refuse(loc[:3], "nested too deeply, or within itself")
        if isinstance(value, BaseModel):
            return self.plain(value.model_dump(mode="json", exclude_unset=True), loc)
        if isinstance(value, Mapping):
            return {self._key(k, loc): self.plain(v, (*loc, k)) for k, v in value.items()}
        if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
            return self.plain(value.tolist(), loc)
        if isinstance(value, list | tuple | range):
            return [self.plain(item, (*loc, i)) for i, item in enumerate(value)]
        return self._scalar(value, loc)

    def _scalar(self, value: Any, loc: tuple[str | int, ...]) -> Any:
        match value:
            case Enum():
                return self.plain(value.value, loc)
            case str():
                return str(value)
            case Integral():
                return int(value)
            case Real():
                return float(value)
            case os.PathLike():
                return os.fspath(value)
            case _:
                return self._refuse(loc, f"{_EXPECTED}, got {kind_of(value)}")

    def _key(self, key: object, loc: tuple[str | int, ...]) -> str:
        if not isinstance(key, str):
            self._refuse(loc, f"keys must be text, got {key!r}")
        return str(key)

    def _refuse(self, loc: tuple[str | int, ...], message: str) -> None:
        where = dotted(loc)
        text = f"{where}: {message}" if where else message
        self.problems.append(Problem(CONFIGURATION, 1, 1, text))
