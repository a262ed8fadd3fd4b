"""Writes commits of many files with one process, and reads the changes between commits."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from mtf.core.vocabulary.ids import CommitId
from mtf.errors import RepositoryError, with_cure
from mtf.git.wire import steps_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mtf.git.process import GitProcesses
    from mtf.git.wire import Step


def write_commit(git: GitProcesses, stream: Iterable[bytes]) -> CommitId:
    """Write the commit that a stream for ``git fast-import`` describes. Moves no ref.

    The files are packed while the next are produced. Source: git-fast-import(1).

    Raises:
        RepositoryError: git failed; the message is git's own.
    """
    process = git.start(
        "-c", "core.fsync=committed", "fast-import", "--quiet", "--date-format=now", "--done"
    )
    try:
        with suppress(BrokenPipeError):  # git has ended: its error output says why
            process.feed(stream)
        out, err = process.communicate()
    finally:
        process.abandon()  # without "done" it writes nothing
    if process.returncode:
        reason = with_cure(err.decode(errors="replace").strip())
        raise RepositoryError(f"git fast-import: {reason}")
    return CommitId(out.decode().strip())


def steps_between(
    git: GitProcesses,
    old: CommitId | None,
    new: CommitId,
    folders: tuple[str, ...],
    *,
    continues: bool,
) -> list[Step]:
    """Return the changes of files between two commits; see ``GitRepo.steps``.

    ``continues``: ``new`` contains ``old`` by first parents.
    """
    raw = ("--raw", "-z", "--no-renames", "--no-abbrev")
    span = (f"{old}..{new}",) if old else (new,)
    options = ("--first-parent", "-m", "--reverse", *raw, "--format=%m")
    out = git.run("log", *options, *span, "--", *folders)
    found = steps_of(out)
    if old and not continues:
        out = git.run("diff-tree", "-r", *raw, old, new, "--", *folders)
        found = [step._replace(side="<>") for step in steps_of(out)]
    return found
