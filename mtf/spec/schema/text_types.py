"""Types of text that specs and settings share: names, words, paths, environment variables."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

from mtf.spec.schema.error_messages import shown

MAX_NAME = 100
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")


def name_problem(name: str) -> str | None:
    """Return the problem of a name of an experiment or grid, None if it is valid."""
    if not _NAME.fullmatch(name):
        return (
            "must begin with a letter or digit and contain only letters, digits, '.', '_' and '-'"
        )
    if len(name) > MAX_NAME:
        return f"must have at most {MAX_NAME} characters, has {len(name)}"
    if ".." in name or name.endswith((".", ".lock")):
        return "must not contain '..' nor end in '.' or '.lock': git allows no such branch"
    return None


def _name(name: str) -> str:
    problem = name_problem(name)
    if problem:
        raise ValueError(f"{shown(name)} {problem}")
    return name


def matching(pattern: str, meaning: str) -> AfterValidator:
    """Return a check that the whole text matches ``pattern``, which ``meaning`` says in words."""
    regex = re.compile(pattern)

    def check(text: str) -> str:
        if not regex.fullmatch(text):
            raise ValueError(f"expected {meaning}, got {shown(text)}")
        return text

    return AfterValidator(check)


def _one_line(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError(f"expected one line without control characters, got {shown(text)}")
    return text


def _relative(path: str) -> str:
    parts = path.split("/")
    if not path or path.startswith("/") or {"", ".", ".."} & set(parts) or "\\" in path:
        raise ValueError(f"expected a path in the repository, like src/models, got {shown(path)}")
    return _one_line(path)


def _folder(path: str) -> str:
    if path.startswith(("~", "-")) or re.search(r"[%\"'`$\\]", path) or not path:
        raise ValueError(
            f"expected a folder without ~, $, %, quotes and backslashes, got {shown(path)}."
            " Write the whole path"
        )
    return _one_line(path)


def _variable_name(name: str) -> str:
    if not _VARIABLE.fullmatch(name):
        raise ValueError(f"{shown(name)} is not a valid environment variable name")
    if name.startswith("MTF_"):
        raise ValueError(f"{shown(name)} begins with MTF_, which is reserved for mtf. Rename it")
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
        "a path of letters, digits and _.@:/+,=- (without spaces, ~ and $)",
    ),
]
Image = Annotated[
    str,
    matching(
        r"[A-Za-z0-9_./][A-Za-z0-9_.@:/+,=#-]*",
        "a container image, which is a path or an address without spaces",
    ),
]
VariableName = Annotated[str, AfterValidator(_variable_name)]
VariableValue = Annotated[str, BeforeValidator(_number_as_text), AfterValidator(_one_line)]
Variables = dict[VariableName, VariableValue]
