"""Reads and sets how many tasks of an array run at a time, and which arrays it waits for.

Sources: squeue(1), JobArrayID and Dependency; scontrol(1), ArrayTaskThrottle and Dependency, which
a user may change while tasks of the array wait. Tried on SLURM 22.05.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from mtf.core.vocabulary.jobs import ArrayLimit
from mtf.errors import ExecutorUnavailableError
from mtf.executor.slurm.job_text import SEPARATOR, command_error, is_unknown_job
from mtf.executor.slurm.programs import ask

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

_FIELDS = f"JobArrayID:{SEPARATOR},Dependency:{SEPARATOR}"
_THROTTLE = re.compile(r"%([0-9]{1,10})\]")
_SHOWN = re.compile(r"\bArrayTaskThrottle=([0-9]{1,10})\b")
_UNFULFILLED = re.compile(r"[^,?]+\((?!fulfilled)[^,?]*")  # one of the conditions
_OURS = re.compile(r"(?:afterany:)?([0-9]{1,10})(?:_\*)?\(.*")  # as ``dependency`` writes it
_HAS_BEGUN = ("no longer pending", "No error")  # messages about tasks that the change is not for


def array_limits(numbers: Collection[str]) -> dict[str, ArrayLimit]:
    """Return the limits of the arrays with these job ids; those without waiting tasks may lack.

    Raises:
        ExecutorUnavailableError: squeue does not answer.
    """
    if not numbers:
        return {}
    listed = ",".join(sorted(numbers))
    answer = ask("squeue", "--noheader", f"--Format={_FIELDS}", f"--jobs={listed}")
    if answer.code and not is_unknown_job(answer.stderr):
        raise ExecutorUnavailableError(answer.stderr.strip())
    found, unclear = parse_limits(answer.stdout)
    for number in sorted(unclear):
        shown = _SHOWN.search(ask("scontrol", "--oneliner", "show", "job", number).stdout)
        if shown is not None:
            found[number] = replace(found[number], throttle=int(shown[1]) or None)
    return found


def parse_limits(printed: str) -> tuple[dict[str, ArrayLimit], set[str]]:
    """Return the limits in squeue's lines: ``8_[3-9%2]`` and ``afterany:7_*(unfulfilled)``.

    The second value has the numbers of arrays whose throttle squeue does not show, although they
    have several tasks: the last task that waits has a line like that of one that runs.
    """
    found: dict[str, ArrayLimit] = {}
    lines: Counter[str] = Counter()
    clear: set[str] = set()
    for line in printed.split("\n"):
        job, separator, rest = line.partition(SEPARATOR)
        number = job.strip().partition("_")[0]
        if not separator or not number.isdecimal():
            continue
        known = found.get(number, ArrayLimit(number, None))
        lines[number] += 1
        clear |= {number} if "[" in job else set()
        if throttle := _THROTTLE.search(job):
            known = replace(known, throttle=int(throttle[1]) or None)
        conditions = _UNFULFILLED.findall(rest.partition(SEPARATOR)[0])
        ours = [match[1] for c in conditions if (match := _OURS.fullmatch(c))]
        is_own = known.is_own and len(ours) == len(conditions)
        found[number] = replace(known, after=known.after.union(ours), is_own=is_own)
    return found, {number for number, n in lines.items() if n > 1} - clear


def set_limits(limits: Iterable[ArrayLimit]) -> None:
    """Set the limits of arrays, one after another; tasks that have begun are left alone.

    An array that waits for what a person has said gets a throttle alone.

    Raises:
        MtfError: SLURM refuses or does not answer; the later ones are not set.
    """
    for limit in limits:
        for value in updates(limit):
            _update(limit.number, value)


def updates(limit: ArrayLimit) -> tuple[str, ...]:
    """Return the updates that set an array's limit, in the order in which they are safe.

    An array that is let go has its throttle before, so that no task too many starts in between.
    """
    after = f"Dependency={dependency(sorted(limit.after))}"
    throttle = f"ArrayTaskThrottle={limit.throttle or 0}"
    if not limit.is_own:
        return (throttle,)
    return (after, throttle) if limit.after else (throttle, after)


def dependency(numbers: Collection[str]) -> str:
    """Return the condition that the jobs with these numbers are over, however they ended."""
    return ":".join(("afterany", *numbers)) if numbers else ""


def _update(number: str, value: str) -> None:
    answer = ask("scontrol", "update", f"JobId={number}", value)
    lines = answer.stderr.splitlines()
    said = [line for line in lines if not any(words in line for words in _HAS_BEGUN)]
    error = command_error("\n".join(said))
    if error is not None:
        raise error
