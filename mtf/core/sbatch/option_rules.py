"""Finds the options of a job that are not allowed, whatever else its policies limit."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mtf.core.sbatch.option_table import OPTIONS, Kind

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from mtf.core.sbatch.read_script import JobOptions, Option

# Options that have values for which sbatch prints help and exits with 0.
_WITH_HELP = (
    "cpu-freq",
    "distribution",
    "gpu-bind",
    "gpu-freq",
    "gres",
    "hint",
    "mem-bind",
    "tres-bind",
)


def forbidden(options: JobOptions, allowed: Collection[str]) -> Iterator[tuple[Option, str]]:
    """Yield each option that is not allowed, with the reason.

    Args:
        options: of one job.
        allowed: further options by name; ``name=`` takes a value, ``name`` takes none.
    """
    for option in options.all:
        if reason := _reason(option, allowed):
            yield option, reason


def _reason(option: Option, allowed: Collection[str]) -> str:
    name, shown = option.name, f"--{option.name}"
    kind = OPTIONS[name].kind if option.is_known else Kind.BY_PERMISSION
    if kind is Kind.REFUSED:
        return f"{shown} is not allowed in jobs of mtf. Remove it"
    if name in ("nodelist", "exclude") and "/" in (option.value or ""):
        return f"{shown} would read a file of the submitter. List the nodes"
    if name in _WITH_HELP and {"help", "list"} & {*re.split("[,;]", (option.value or "").lower())}:
        return f"{option} prints a help text and submits nothing. Remove it"
    if kind is not Kind.BY_PERMISSION:
        return ""
    entry = name if option.value is None else f"{name}="
    if entry in allowed:
        return ""
    if {name, f"{name}="} & {*allowed}:
        how = f"{shown}=VALUE" if option.value is None else shown
        return f"policies.sbatch_options allows this option as {how} only. Write it so"
    what = "needs permission" if option.is_known else "is not an option of sbatch that mtf knows"
    return f"{shown} {what}. To allow it, add {entry} to policies.sbatch_options in mtf.yaml"
