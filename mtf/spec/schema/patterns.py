"""Patterns that settings hold, matched in time linear in the text: a bad one stops no hook.

The engine is the one that pydantic brings along, Rust's, which knows neither look-around nor
back references (Source: docs.rs/regex).
"""

from __future__ import annotations

import re
from functools import lru_cache

from pydantic_core import SchemaError, SchemaValidator, core_schema


def matches(pattern: str, text: str) -> bool:
    """Return whether a regular expression matches a whole text.

    Raises:
        ValueError: it is no regular expression, or one that linear time cannot do.
    """
    return _compiled(pattern).isinstance_python(text)


def matches_path(pattern: str, path: str) -> bool:
    """Return whether a path pattern matches; a folder's name means all that is in it."""
    return matches(_translated(pattern), path)


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> SchemaValidator:
    whole = core_schema.str_schema(pattern=f"^(?:{pattern})$", regex_engine="rust-regex")
    try:
        return SchemaValidator(whole)
    except SchemaError as e:
        reason = str(e).strip().splitlines()[-1].removeprefix("error: ")
        raise ValueError(f"{pattern[:60]!r} is not a regular expression: {reason}") from None


def _translated(pattern: str) -> str:
    out = ""
    for part in re.split(r"(\*\*/|\*\*|\*|\?)", pattern.rstrip("/")):
        match part:
            case "**/":
                out += "(?:.*/)?"
            case "**":
                out += ".*"
            case "*":
                out += "[^/]*"
            case "?":
                out += "[^/]"
            case _:
                out += re.escape(part)
    return rf"{out}(?:/.*)?"
