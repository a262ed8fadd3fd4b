"""The entries of a defaults list, checked before Hydra reads them.

Hydra resolves the interpolations in them by itself, with every resolver that OmegaConf has. So only
the options of groups may be named there (``${model}``), and no name may contain what could become
an interpolation when names are put together.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from mtf.spec.compose.interpolations import OPENING, InterpolationError, parse
from mtf.spec.schema.error_messages import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mtf.spec.yaml.positions import Loc

MAX_ENTRIES = 100
MAX_PACKAGE = 20  # keys of a package: a.b.c has three
_NAME = r"[^\s$@:{}\\'\"]{1,200}"
_PACKAGE = r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*"
_GROUP = re.compile(rf"((optional|override) )*{_NAME}(@({_PACKAGE})?)?")
_CONFIG = re.compile(rf"({_NAME})(@({_PACKAGE})?)?")
_OPTION = re.compile(r"[^\x00-\x1f$@:{}\\'\"]{0,200}")
_REFERENCE = re.compile(r"\$\{[^{}]*\}")


def entry_problems(entries: Any) -> Iterator[tuple[Loc, str]]:
    """Yield the path within a defaults list of each wrong entry, with the problem."""
    if not isinstance(entries, list):
        yield (), f"expected a list, got {shown(entries)}"
        return
    if len(entries) > MAX_ENTRIES:
        yield (), f"expected at most {MAX_ENTRIES} entries, got {len(entries):,}"
        return
    for i, entry in enumerate(entries):
        if isinstance(entry, dict) and len(entry) == 1:
            ((group, options),) = entry.items()
            yield from (((i, group, *loc), text) for loc, text in _group_problems(group, options))
        elif not isinstance(entry, str):
            message = f"expected a name or {{group: option}}, got {shown(entry)}"
            yield (i,), message
        elif problem := _config_problem(entry):
            yield (i,), problem


def package_problem(package: str) -> str | None:
    """Return the problem of a ``# @package`` line, None if it is valid."""
    if not re.fullmatch(_PACKAGE, package) or package.count(".") >= MAX_PACKAGE:
        return f"expected a package of at most {MAX_PACKAGE} keys, like a.b, got {shown(package)}"
    return None


def _config_problem(entry: str) -> str | None:
    if OPENING in entry:
        return _reference_problem(entry)
    if match := _CONFIG.fullmatch(entry):
        return package_problem(match[3]) if match[3] else None
    return f"expected the name of a configuration, got {shown(entry)}"


def _group_problems(group: str, options: Any) -> Iterator[tuple[Loc, str]]:
    match = _GROUP.fullmatch(group)
    if match is None:
        yield (), f"expected a group, like model or model@package, got {shown(group)}"
    elif match[4] and (problem := package_problem(match[4])):
        yield (), problem
    elif isinstance(options, list) and len(options) <= MAX_ENTRIES:
        for i, option in enumerate(options):
            if not isinstance(option, str) or not _OPTION.fullmatch(option):
                yield (i,), f"expected an option, got {shown(option)}"
    elif isinstance(options, str):
        if problem := _option_problem(options):
            yield (), problem
    elif options is not None:
        yield (), f"expected an option or a list of options, got {shown(options)}"


def _option_problem(option: str) -> str | None:
    if OPENING in option:
        return _reference_problem(option)
    return None if _OPTION.fullmatch(option) else f"expected an option, got {shown(option)}"


def _reference_problem(text: str) -> str | None:
    """Return the problem of an entry with interpolations, None if it only names groups."""
    try:
        references = parse(text).references
    except InterpolationError as e:
        return str(e)
    outside = [
        reference for reference in references if reference.up or reference.path[0] == "defaults"
    ]
    around = _REFERENCE.sub("", text)
    if outside or not references or not _OPTION.fullmatch(around):
        return f"expected the option of another group, like ${{model}}, got {shown(text)}"
    return None
