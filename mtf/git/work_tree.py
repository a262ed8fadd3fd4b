"""Reads what a work tree has that its commit has not: one `git status` beside other work."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtf.errors import RepositoryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mtf.git.process import GitProcesses

PATIENCE_S = 2.0  # for a work tree on a slow disk, once everything else is done
_STATUS = ("status", "--porcelain", "-z", "--no-renames", "--untracked-files=normal")


@dataclass(frozen=True)
class ChangedPath:
    """A path in the work tree that differs from HEAD; an untracked folder ends with a slash."""

    path: str  # relative to the root of the repository
    is_tracked: bool


@contextmanager
def uncommitted_paths(git: GitProcesses) -> Iterator[Callable[[], list[ChangedPath] | None]]:
    """Start to look for changes; return a function that waits for them.

    The function returns None if git does not answer in time, and no path where there is no work
    tree.
    Source: git-status(1), porcelain format version 1.
    """
    process = git.start(*_STATUS)
    is_read = False

    def wait() -> list[ChangedPath] | None:
        nonlocal is_read
        is_read = True
        try:
            out, _ = process.communicate(limit_s=PATIENCE_S)
        except RepositoryError:
            return None
        entries = os.fsdecode(out).split("\0")[:-1] if process.returncode == 0 else []
        return [ChangedPath(entry[3:], is_tracked=entry[:2] != "??") for entry in entries]

    try:
        yield wait
    finally:
        if not is_read:
            wait()
