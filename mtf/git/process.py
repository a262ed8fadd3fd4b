"""Starts git in a repository's folder, through GitPython; nothing else in mtf starts git."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager, suppress
from io import BufferedReader
from typing import TYPE_CHECKING, NoReturn, Protocol

from git.cmd import Git
from git.exc import GitCommandNotFound

from mtf import proc
from mtf.errors import RepositoryError, with_cure
from mtf.git.pipes import CAPACITY, Answers, Questions
from mtf.git.wire import Objects

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import IO

_PIPE = -1  # subprocess.PIPE; only mtf.proc imports subprocess


class _Popen(proc.Running, Protocol):
    """A process as GitPython returns it."""

    stdin: IO[bytes] | None
    stdout: IO[bytes] | None
    returncode: int


class Process:
    """A git that was started; it has to answer and to end within a time limit."""

    def __init__(self, popen: _Popen, pipe: proc.HeldPipe, name: str) -> None:
        self._popen, self._pipe, self._name = popen, pipe, name
        self._has_ended = False

    @property
    def returncode(self) -> int:
        """Return the exit code, once it has ended."""
        return self._popen.returncode

    def communicate(
        self, given: bytes | None = None, *, limit_s: float | None = None
    ) -> tuple[bytes, bytes]:
        """Write the rest of the input, read all output and wait for the end.

        Raises:
            RepositoryError: it did not end in time, and was ended with all that it had started.
        """
        limit_s = limit_s or (_QUESTION_S if self._name == "ls-remote" else _LIMIT_S)
        try:
            return proc.communicate(
                self._popen,
                self._pipe,
                given,
                timeout_s=limit_s,
                name=f"git {self._name}",
                politely=True,
            )
        except proc.ProgramTimeoutError as e:
            advice = _WHERE_TO_LOOK[self._name in _REMOTE]
            raise RepositoryError(f"{e} and was ended. {advice}") from e
        finally:
            self._has_ended = True
            self._pipe.close()

    def abandon(self) -> None:
        """End it soon, whatever it is doing, and say nothing; nothing happens if it has ended."""
        if not self._has_ended:
            with suppress(RepositoryError):
                self.communicate(limit_s=_ABANDONED_S)

    def feed(self, parts: Iterable[bytes]) -> None:
        """Write parts of the input while git reads them.

        Raises:
            BrokenPipeError: git has ended.
            RepositoryError: it stopped reading, and was ended with all that it had started.
        """
        questions = self._questions()
        waiting, size = [], 0
        for part in parts:
            waiting.append(part)
            size += len(part)
            if size >= CAPACITY:
                questions.write(memoryview(b"".join(waiting)))
                waiting, size = [], 0
        questions.write(memoryview(b"".join(waiting)))

    def objects(self) -> Objects:
        """Return the objects that ``git cat-file --batch`` reads, for as long as it answers."""
        assert self._popen.stdout is not None
        answers = Answers(self._popen.stdout, _LIMIT_S, self._give_up)
        return Objects(self._questions(), BufferedReader(answers, CAPACITY))

    def _questions(self) -> Questions:
        assert self._popen.stdin is not None
        return Questions(self._popen.stdin, _LIMIT_S, self._give_up)

    def _give_up(self) -> NoReturn:
        proc.end_all(self._popen.pid, self._pipe.alive, politely=True)
        what = f"git {self._name} did not answer within {_LIMIT_S:g} s and was ended"
        raise RepositoryError(f"{what}. {_WHERE_TO_LOOK[False]}")


_LIMIT_S = 600.0  # a large push or fetch may take minutes
_ABANDONED_S = 2.0
_QUESTION_S = 60.0  # git ls-remote, which comes before them, finds a remote that does not answer
_REMOTE = ("ls-remote", "fetch", "push")
_WHERE_TO_LOOK = {
    True: "Look at the remote (git ls-remote), then run the command again",
    False: "Look at the file system of the repository, then run the command again",
}


class GitProcesses:
    """Git processes in one folder.

    ``inherit`` keeps git's own environment variables: needed in a hook of this repository, wrong
    for any other repository (Source: githooks(5)).
    """

    def __init__(self, folder: Path, *, inherit: bool, is_git_dir: bool = False) -> None:
        """Prepare to run git in ``folder``; ``is_git_dir``: which has no work tree of its own.

        Raises:
            RepositoryError: the folder does not exist.
        """
        if not inherit:
            for name in _REPOSITORY_VARIABLES:
                os.environ.pop(name, None)  # GitPython passes os.environ on
        # The folder is an argument of git: GitPython would expand a $ in it and, if the result does
        # not exist, run git in the current folder, and so in another repository.
        self._git, self._folder = Git(), str(folder.absolute())
        # the work tree that the git dir of a submodule names may not exist
        self._where = ("--git-dir=.", "--work-tree=.") if is_git_dir else ()
        # a submodule is fetched with the protocols that git itself allows for it
        self._env = {**_QUIET, "GIT_PROTOCOL_FROM_USER": "0"} if is_git_dir else _QUIET
        self._local = threading.local()  # each thread has its own reader
        if not folder.is_dir():
            raise RepositoryError(f"{folder}: no such folder")

    def start(self, *args: str, env: Mapping[str, str] | None = None) -> Process:
        """Start git with pipes for input, output and errors; ``communicate`` ends it.

        ``env`` has further environment variables.

        Raises:
            RepositoryError: git is not installed.
        """
        pipe = proc.HeldPipe.make()
        try:
            wrapped = self._git.execute(
                ["git", "-C", self._folder, *self._where, *args],
                istream=_PIPE,
                env={**self._env, **(env or {})},
                as_process=True,
                pass_fds=(pipe.held,),
            )
        except GitCommandNotFound as e:
            pipe.close()
            raise RepositoryError("git is not on PATH. Install git 2.30 or newer") from e
        pipe.release()
        popen, wrapped.proc = wrapped.proc, None  # a deleted wrapper would kill its process
        assert popen is not None
        return Process(popen, pipe, _verb(args))

    def attempt(
        self,
        *args: str,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        limit_s: float | None = None,
    ) -> tuple[int, bytes, str]:
        """Run git, for at most ``limit_s`` seconds; return its exit code, output and errors."""
        process = self.start(*args, env=env)
        out, err = process.communicate(stdin, limit_s=limit_s)
        return process.returncode, out, err.decode(errors="replace")

    def run(
        self,
        *args: str,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        limit_s: float | None = None,
    ) -> bytes:
        """Run git and return its standard output.

        Raises:
            RepositoryError: git failed; the message is git's own.
        """
        code, out, err = self.attempt(*args, stdin=stdin, env=env, limit_s=limit_s)
        if code:
            reason = with_cure(err.strip()) or f"exit code {code}"
            raise RepositoryError(f"git {_verb(args)}: {reason}")
        return out

    @contextmanager
    def reading(self) -> Iterator[Objects]:
        """Return a context in which one process answers all object reads of this thread."""
        running: Objects | None = getattr(self._local, "objects", None)
        if running is not None:
            yield running
            return
        process = self.start("cat-file", "--batch")
        self._local.objects = process.objects()
        try:
            yield self._local.objects
        finally:
            del self._local.objects
            process.abandon()  # it has nothing left to say


def _verb(args: Sequence[str]) -> str:
    """Return git's command in its arguments: what follows the options ``-c`` and ``-C``."""
    at = 0
    while args[at] in ("-c", "-C"):
        at += 2
    return args[at]


# The variables of `git rev-parse --local-env-vars` that select a repository's files.
_REPOSITORY_VARIABLES = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_COMMON_DIR",
    "GIT_PREFIX",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_IMPLICIT_WORK_TREE",
)
_QUIET = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    # Otherwise glibc returns memory to the system and requests it again for each object that
    # fast-import packs. Writing 10,000 records: 0.5 s of user and 1.0 s of system time without
    # these two, 0.5 s and 0.03 s with them (measured in turn, on one machine).
    "MALLOC_TRIM_THRESHOLD_": str(1 << 27),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 23),
}
