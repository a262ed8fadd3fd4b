"""The only door to git: starts its processes, through GitPython, in one repository's folder."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from git.cmd import Git
from git.exc import GitCommandNotFound

from mtf.errors import RepositoryError
from mtf.git.wire import Objects

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import IO

_PIPE = -1  # as subprocess spells it, which is proc's to import


class Process(Protocol):
    """What GitPython starts."""

    stdin: IO[bytes] | None
    stdout: IO[bytes] | None
    returncode: int

    def communicate(self, given: bytes | None = None, /) -> tuple[bytes, bytes]:
        """Hand the rest over, read all that it says and wait for its end."""
        ...


class GitProcesses:
    """Git in one folder.

    ``inherit`` keeps git's own environment variables: right inside a hook of this very
    repository, wrong for any other one (Source: githooks(5)).
    """

    def __init__(self, folder: Path, *, inherit: bool) -> None:
        """Be ready to run git in ``folder``.

        Raises:
            RepositoryError: there is no such folder.
        """
        if not inherit:
            for name in _TIES:
                os.environ.pop(name, None)  # GitPython hands os.environ on
        # told to git itself: GitPython would expand a $ in a path, and where that leads nowhere
        # run git in whatever folder, so whatever repository, this process is in
        self._git, self._folder = Git(), str(folder.absolute())
        self._local = threading.local()  # each thread has its own reader
        if not folder.is_dir():
            raise RepositoryError(f"{folder}: no such folder")

    def start(self, *args: str) -> Process:
        """Start git with pipes to all its ends; ``communicate`` ends it.

        Raises:
            RepositoryError: git is not installed.
        """
        try:
            wrapped = self._git.execute(
                ["git", "-C", self._folder, *args], istream=_PIPE, env=_QUIET, as_process=True
            )
        except GitCommandNotFound as e:
            raise RepositoryError("git: not found on PATH. Install git 2.30 or newer") from e
        process, wrapped.proc = wrapped.proc, None  # else it is killed when the wrapper goes
        assert process is not None
        return process

    def attempt(self, *args: str, stdin: bytes = b"") -> tuple[int, bytes, str]:
        """Run git; return its exit code, standard output and standard error."""
        process = self.start(*args)
        out, err = process.communicate(stdin)
        return process.returncode, out, err.decode(errors="replace")

    def run(self, *args: str, stdin: bytes = b"") -> bytes:
        """Run git and return its standard output.

        Raises:
            RepositoryError: it failed; the message is git's own.
        """
        code, out, err = self.attempt(*args, stdin=stdin)
        if code:
            raise RepositoryError(f"git {args[0]}: {err.strip() or f'exit code {code}'}")
        return out

    @contextmanager
    def reading(self) -> Iterator[Objects]:
        """Let one process answer all that this thread reads of objects meanwhile."""
        there: Objects | None = getattr(self._local, "objects", None)
        if there is not None:
            yield there
            return
        process = self.start("cat-file", "--batch")
        assert process.stdin is not None
        assert process.stdout is not None
        self._local.objects = Objects(process.stdin, process.stdout)
        try:
            yield self._local.objects
        finally:
            del self._local.objects
            process.communicate()


# Of `git rev-parse --local-env-vars`, those that tie a process to one repository's files.
_TIES = (
    "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX",
    "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_IMPLICIT_WORK_TREE",
)  # fmt: skip
_QUIET = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    # glibc hands memory back and takes it again for each object that fast-import packs: half its
    # time goes into that
    "MALLOC_TRIM_THRESHOLD_": str(1 << 27),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 23),
}
