"""What ``git fetch`` updates in a clone, by the refspecs of its remote."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mtf.git.process import GitProcesses


def always_fetch(git: GitProcesses, remote: str, pattern: str) -> None:
    """Let ``git fetch`` update the branches that match ``pattern``, such as ``mtf/*``.

    A clone of a single branch (``--single-branch``, ``--depth``) fetches no other by itself.
    """
    if not fetches(git, remote, f"refs/heads/{pattern}"):
        new = f"+refs/heads/{pattern}:refs/remotes/{remote}/{pattern}"
        git.attempt("config", "--add", f"remote.{remote}.fetch", new)


def fetches(git: GitProcesses, remote: str, ref: str) -> bool:
    """Return True if ``git fetch`` updates this ref. Source: git-fetch(1), refspec."""
    out = git.attempt("config", "--get-all", f"remote.{remote}.fetch")[1]
    sources = (spec.lstrip("+").split(":")[0] for spec in os.fsdecode(out).split())
    parts = (source.partition("*") for source in sources)
    return any(ref.startswith(a) and ref.endswith(b) if star else ref == a for a, star, b in parts)
