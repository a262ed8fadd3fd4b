"""Regular expressions and path patterns of policies, matched in linear time.

The engine is pydantic's, written in Rust: no pattern in ``mtf.yaml`` can stop a hook by taking
exponential time. It has neither look-around nor back references (Source: docs.rs/regex).
"""

from __future__ import annotations

import re
from functools import lru_cache

from pydantic_core import SchemaError, SchemaValidator, core_schema


def matches(pattern: str, text: str) -> bool:
    """Return True if a regular expression matches the whole text.

    Raises:
        ValueError: the pattern is no regular expression, or needs more than linear time.
    """
    return _compiled(pattern).isinstance_python(text)


def matches_path(pattern: str, path: str) -> bool:
    """Return True if a path pattern matches; a folder's name matches everything in it."""
    return matches(_as_regex(pattern), path)


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> SchemaValidator:
    whole = core_schema.str_schema(pattern=f"^(?:{pattern})$", regex_engine="rust-regex")
    try:
        return SchemaValidator(whole)
    except SchemaError as e:
        reason = str(e).strip().splitlines()[-1].removeprefix("error: ")
        raise ValueError(f"{pattern[:60]!r} is not a regular expression: {reason}") from None


def _as_regex(pattern: str) -> str:
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
