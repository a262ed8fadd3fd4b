"""Checked kinds of text that specs and settings share: names, words, paths, environment."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

MAX_NAME = 100
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")


def name_problem(name: str) -> str | None:
    """Return why a text cannot name an experiment or a grid, None when it can."""
    if not _NAME.fullmatch(name):
        return "must begin with a letter or digit and hold only letters, digits, '.', '_' and '-'"
    if len(name) > MAX_NAME:
        return f"must have at most {MAX_NAME} characters, has {len(name)}"
    if ".." in name or name.endswith((".", ".lock")):
        return "must not hold '..' nor end in '.' or '.lock': git has no such branch"
    return None


def _name(name: str) -> str:
    problem = name_problem(name)
    if problem:
        raise ValueError(f"{name[:120]!r} {problem}")
    return name


def matching(pattern: str, meaning: str) -> AfterValidator:
    """Return the check that a whole text matches ``pattern``; ``meaning`` says it in words."""
    regex = re.compile(pattern)

    def check(text: str) -> str:
        if not regex.fullmatch(text):
            raise ValueError(f"{text[:60]!r} is not {meaning}")
        return text

    return AfterValidator(check)


def _one_line(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError(f"{text[:60]!r} holds a line break or a control character")
    return text


def _relative(path: str) -> str:
    parts = path.split("/")
    if not path or path.startswith("/") or {"", ".", ".."} & set(parts) or "\\" in path:
        raise ValueError(f"{path!r} is not a path inside the repository, like src/models")
    return _one_line(path)


def _folder(path: str) -> str:
    if path.startswith(("~", "-")) or re.search(r"[%\"'`$\\]", path) or not path:
        raise ValueError(f"{path!r}: write the path out, without ~, $, %, quotes or backslashes")
    return _one_line(path)


def _variable_name(name: str) -> str:
    if not _VARIABLE.fullmatch(name):
        raise ValueError(f"{name!r} is not a name for an environment variable")
    if name.startswith("MTF_"):
        raise ValueError(f"{name!r}: names that begin with MTF_ belong to mtf")
    return name


def _number_as_text(value: object) -> object:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Name = Annotated[str, AfterValidator(_name)]
OneLine = Annotated[str, AfterValidator(_one_line)]
RelativePath = Annotated[str, AfterValidator(_relative)]
Folder = Annotated[str, AfterValidator(_folder)]
Word = Annotated[
    str,
    matching(
        r"[A-Za-z0-9_][A-Za-z0-9_.@:/+,=-]*",
        "one word of letters, digits and _.@:/+,=- that begins with a letter or digit",
    ),
]
Prefix = Annotated[
    str,
    matching(
        r"[A-Za-z0-9_./][A-Za-z0-9_.@:/+,=-]*",
        "a path of letters, digits and _.@:/+,=- (no spaces, ~ or $: write it out)",
    ),
]
Image = Annotated[
    str,
    matching(
        r"[A-Za-z0-9_./][A-Za-z0-9_.@:/+,=#-]*",
        "a container image: a path or an address without spaces",
    ),
]
VariableName = Annotated[str, AfterValidator(_variable_name)]
VariableValue = Annotated[str, BeforeValidator(_number_as_text), AfterValidator(_one_line)]
Variables = dict[VariableName, VariableValue]
