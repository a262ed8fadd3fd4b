"""Moving refs: the moves, and the errors of git commands that move them."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mtf.errors import RepositoryError, with_cure
from mtf.git.wire import MOVED

if TYPE_CHECKING:
    from mtf.core.vocabulary.ids import CommitId
    from mtf.git.process import GitProcesses

_LOCKED = re.compile(r"Unable to create '(.+/refs/.+\.lock)': File exists")
_STALE_LOCK_S = 5.0  # git holds a ref's lock for milliseconds


class RefMovedError(RepositoryError):
    """Another writer has moved a ref meanwhile: read again and decide again."""


@dataclass(frozen=True)
class RefUpdate:
    """A ref to move from ``old`` (None: it must not exist) to ``new``."""

    ref: str
    new: CommitId
    old: CommitId | None


def move_refs(
    git: GitProcesses, common_dir: Path, what: str, *args: str, stdin: bytes = b""
) -> None:
    """Run a git command that moves refs; ``what`` names it in errors.

    A lock that a killed git has left on a ref of this clone is removed.

    Raises:
        RefMovedError: another writer was faster.
        RepositoryError: git failed; the message is git's own.
    """
    code, out, err = git.attempt(*args, stdin=stdin)
    if not code:
        return
    output = out.decode(errors="replace") + err
    if locked := _LOCKED.search(output):
        _remove_if_stale(Path(locked[1]), common_dir)
    kind = RefMovedError if MOVED.search(output) else RepositoryError
    raise kind(f"git {what}: {with_cure(output.strip())}")


def _remove_if_stale(lock: Path, common_dir: Path) -> None:
    """Remove a ref's lock that a killed git left in this clone (not one of a remote)."""
    if lock.is_relative_to(common_dir):
        with suppress(FileNotFoundError):  # its git was alive and removed it
            if time.time() - lock.stat().st_mtime > _STALE_LOCK_S:
                lock.unlink()
