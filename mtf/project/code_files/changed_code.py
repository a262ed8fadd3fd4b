"""Finds the specs that a change of code affects, by the classes and functions that they name."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mtf.spec.named_code.source_files import SourceFiles

_TARGET = rb"(?<![\w.])[A-Za-z_][\w.]*:[A-Za-z_][\w.]*"
_COMPOSED = re.compile(rb"\$\{[^{}]*\}[\w.]*:[A-Za-z_$]|[A-Za-z_][\w.]*:[\w.]*\$\{")  # ${a}.b:Name


def affected_by_code(
    specs: Mapping[str, bytes],
    now: SourceFiles,
    before: Sequence[SourceFiles],
    has_changed: Callable[[], bool],
) -> set[str]:
    """Return the files that name code which each of the former states of the code has otherwise.

    Code differs if it exists in one of them alone, or takes other keys. A file that makes a name by
    interpolation counts whatever has changed.

    Args:
        specs: the specs, and the config groups that they are made of, by path.
        now: the code.
        before: its former states.
        has_changed: returns False if no code differs.
    """
    if not before:
        return set()
    composed = {path for path, text in specs.items() if b"${" in text and _COMPOSED.search(text)}
    found = composed if composed and has_changed() else set()
    return found | _naming_other_code(specs, now, before)


def _naming_other_code(
    specs: Mapping[str, bytes], now: SourceFiles, before: Sequence[SourceFiles]
) -> set[str]:
    named: defaultdict[str, set[str]] = defaultdict(set)
    for path, text in specs.items():
        if b":" in text:
            for target in set(re.findall(_TARGET, text)):
                named[target.decode()].add(path)
    tops = {target.partition(":")[0].partition(".")[0] for target in named}
    states = (now, *before)
    own = {top for top in tops if any(_may_have(files, top) for files in states)}
    in_files = {t: paths for t, paths in named.items() if re.split(r"[.:]", t)[0] in own}
    if not in_files:
        return set()
    from mtf.spec.named_code.found_code import FoundCode  # late: most specs name only built-ins

    here, *there = (FoundCode(files) for files in states)
    return {
        path
        for target, paths in in_files.items()
        if all(code.facts(target) != here.facts(target) for code in there)
        for path in paths
    }


def _may_have(files: SourceFiles, top: str) -> bool:
    names = {top, f"{top}.py"}
    return any(not names.isdisjoint(files.folder(root)) for root in files.roots)
