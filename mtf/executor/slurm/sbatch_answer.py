"""Reads what sbatch prints, also where a site's wrapper or plugin prints around it. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

_COLOURS = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_PLAIN = re.compile(r"([0-9]{1,10})(?:;([A-Za-z0-9_.-]+))?")
_IN_WORDS = re.compile(r"Submitted batch job ([0-9]{1,10}) on cluster ([A-Za-z0-9_.-]+)")
_OWN = re.compile(r"sbatch: (?:error: |fatal: )?")
_TEST = "allocation failure: "  # of `sbatch --test-only`


@dataclass(frozen=True)
class Submission:
    """A job as sbatch's answer names it. ``cluster``: None if the answer names none."""

    number: str
    cluster: str | None


def plain_submission(printed: str) -> Submission | None:
    """Return the job in an answer of ``sbatch --parsable`` that is ``<id>`` or ``<id>;<cluster>``.

    None if anything else is printed: a number in it may be a date, a quota or the id of another
    job. The queue then tells which job bears the request's token.
    """
    found = _PLAIN.fullmatch(printed.strip())
    return Submission(found[1], found[2]) if found else None


def named_clusters(printed: str) -> set[Submission]:
    """Return the jobs that an answer names with the cluster they were submitted to."""
    text = _COLOURS.sub("", printed)
    plain = (_PLAIN.fullmatch(line.strip()) for line in text.splitlines())
    found = [m for m in (*plain, *_IN_WORDS.finditer(text)) if m and m[2]]
    return {Submission(m[1], m[2]) for m in found}


def messages(printed: str) -> list[str]:
    """Return the messages of sbatch itself, without its name; all lines if none has its name.

    The lines around them, such as a banner, say nothing about the submission.
    """
    lines = [line.strip() for line in _COLOURS.sub("", printed).splitlines()]
    own = [line for line in lines if _OWN.match(line) or line.startswith(_TEST)]
    return [_OWN.sub("", line, count=1) for line in own or lines if line]
