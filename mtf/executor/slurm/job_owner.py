"""Tells whose a job is: this user's and of the request that a record names, or not. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from mtf import rundir
from mtf.core.vocabulary.ids import token_of
from mtf.executor.array_indices import parse_indices
from mtf.executor.slurm.job_text import SEPARATOR, scontrol_job

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from mtf.core.vocabulary.ids import JobId, Token
    from mtf.core.vocabulary.jobs import Mark

FIELDS = ("JobArrayID", "UserName", "Name", "Comment", "Command")
_NONE = ("", "(null)", "N/A")
_COMMAND = re.compile(r" Command=(.*) WorkDir=")  # a path, perhaps with spaces


class Owned(NamedTuple):
    """The marks of a job in the queue."""

    user: str
    name: str
    comment: str
    command: str  # the path of its script


def parse(printed: str) -> dict[str, Owned]:
    """Return the jobs in the output of ``squeue`` with ``FIELDS``: by id, and by id of a task.

    Raises:
        ValueError: a list of tasks is truncated or has an unknown form.
    """
    found: dict[str, Owned] = {}
    for line in printed.splitlines():
        job, *marks = (text.strip() for text in line.split(SEPARATOR)[: len(FIELDS)])
        if len(marks) == len(FIELDS) - 1:
            found |= dict.fromkeys(_ids(job), Owned(*marks))
    return found


def parse_scontrol(printed: str) -> dict[str, Owned]:
    """Return the jobs in the output of ``scontrol --oneliner show jobs``, as ``parse`` does.

    Raises:
        ValueError: a list of tasks is truncated or has an unknown form.
    """
    found: dict[str, Owned] = {}
    for line in printed.splitlines():
        job, values = scontrol_job(line)
        user = values.get("UserId", "").partition("(")[0]
        command = _COMMAND.search(line)
        owned = Owned(
            user,
            values.get("JobName", ""),
            values.get("Comment", ""),
            command[1] if command else "",
        )
        found |= dict.fromkeys(_ids(job), owned)
    return found


def _ids(job: str) -> list[str]:
    number, _, tasks = job.partition("_")
    if not tasks:
        return [number]
    indices = parse_indices(tasks.strip("[]").partition("%")[0])
    return [f"{number}_{index}" for index in indices]


def divided(
    jobs: Collection[JobId], queued: Mapping[str, Owned], marks: Mapping[Token, Mark], user: str
) -> tuple[list[JobId], dict[JobId, str]]:
    """Return the jobs in the queue that are the user's and marked, and the others with reasons."""
    ours, others = [], {}
    for job in jobs:
        found = queued.get(job)
        if found is None:
            continue  # it is over, or unknown
        if problem := _problem(found, marks, user):
            others[job] = problem
        else:
            ours.append(job)
    return ours, others


def _problem(job: Owned, marks: Mapping[Token, Mark], user: str) -> str | None:
    """Return the reason why a job is none of these, None if it is one."""
    if job.user != user:
        return f"it is {job.user}'s"
    token = token_of(job.name)
    mark = marks.get(token) if token else None
    if mark is None or job.name != mark.name:
        return f"its name is {job.name}"
    if job.comment not in _NONE and str(token) not in job.comment:
        return f"its comment is {job.comment}"
    if job.command not in _NONE and job.command != f"{mark.job_dir}/{rundir.SCRIPT}":
        return f"its script is {job.command}"
    return None
