"""Error types, problems of specs, and exit codes. Only ``mtf.cli`` catches ``MtfError``."""

from __future__ import annotations

import errno
import re
from collections import defaultdict
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

EXIT_ERROR = 1
EXIT_CHANGES = 2  # `plan --detailed-exitcode` only
EXIT_PARTIAL = 3  # `sync` carried out only a part of its plan
EXIT_LOCKED = 4  # another process holds the lock
EXIT_USAGE = 64  # click's own code, 2, is used by `--detailed-exitcode`

_MOST_PROBLEMS = 100  # listed of one file


class MtfError(Exception):
    """An error whose message says what is wrong, where, and what to do about it."""

    exit_code = EXIT_ERROR


_CURES = {
    errno.ENOSPC: "Free some space there",
    errno.EDQUOT: "Free some space there, or ask for a larger quota",
    errno.EROFS: "Make the file system writable",
    errno.EACCES: "Make it accessible for this user (mtf doctor says what a shared folder needs)",
    errno.EPERM: "Make it accessible for this user (mtf doctor says what a shared folder needs)",
}
_NOT_STORED = "unable to create temporary object directory"
_SAID_BY_PROGRAMS = {
    "No space left on device": errno.ENOSPC,
    "Disk quota exceeded": errno.EDQUOT,
    "Read-only file system": errno.EROFS,
    "insufficient permission": errno.EACCES,
    "Permission denied": errno.EACCES,
}


def storage_error(error: OSError) -> MtfError | None:
    """Return the error for a disk that takes no more or a missing permission, None for others."""
    cure = _CURES.get(error.errno or 0)
    if cure is None:
        return None
    where = f"{error.filename}: " if error.filename else ""
    return MtfError(f"{where}{error.strerror}. {cure}, then run the command again")


def not_shared(git_dir: str, owner: str) -> str:
    """Return the advice for a git folder of another user, who does not share it."""
    return (
        f"{git_dir} is {owner}'s and not shared. Use a clone of your own; or let {owner} run"
        " git config core.sharedRepository group, and chmod -R g+rwX there"
    )


_DUBIOUS = re.compile(r"dubious ownership in repository at '(.+?)'")


def distrusted(text: str) -> str | None:
    """Return the advice if git's message says that it distrusts another user's repository."""
    found = _DUBIOUS.search(text)
    return found and (
        f"{found[1]} is another user's, so git refuses it. If you trust its owner, run"
        f" git config --global --add safe.directory {found[1]}"
    )


def with_cure(text: str) -> str:
    """Return the message of another program, with a cure if it is about a disk or a permission."""
    if (advice := distrusted(text)) is not None:
        return advice
    if "insufficient permission for adding an object" in text:
        return f"{text.rstrip('.')}. Use a clone of your own, or share this one: see mtf doctor"
    cures = [_CURES[kind] for words, kind in _SAID_BY_PROGRAMS.items() if words in text]
    if _NOT_STORED in text:  # by the git of a remote, which does not say why
        cures.append("Make the remote writable for this user, with free space")
    return f"{text.rstrip('.')}. {cures[0]}, then run the command again" if cures else text


class TrainingError(MtfError):
    """A training failed after it had begun."""


class StorageError(TrainingError):
    """A disk did not take what a training has to save."""


class UsageError(MtfError):
    """The command line is wrong."""

    exit_code = EXIT_USAGE


class LockedError(MtfError):
    """Another ``mtf sync`` holds the lock of this clone."""

    exit_code = EXIT_LOCKED


class Problem(NamedTuple):
    """One problem in a spec or in the settings. ``line`` and ``column`` count from 1."""

    path: str
    line: int
    column: int
    message: str
    severity: Literal["error", "warning"] = "error"  # a warning does not stop a command
    rule: str = ""  # the policy of mtf.yaml that is violated, if any

    @property
    def is_error(self) -> bool:
        """Return True if no run may start before the problem is fixed."""
        return self.severity == "error"

    def __str__(self) -> str:
        """Return ``path:line:column: message``, with the severity of a warning and the rule.

        No line begins with text of the message or the path: CI systems take some for commands.
        """
        kind = "" if self.is_error else "warning: "
        rule = f" [{self.rule}]" if self.rule else ""
        path, message = self.path.replace("\n", "\\n"), self.message.replace("\n", "\n  ")
        return f"{path}:{self.line}:{self.column}: {kind}{message}{rule}"


def abridged(problems: Iterable[Problem]) -> list[Problem]:
    """Return the problems, only the first ones of a file with very many.

    Errors are kept before warnings, and a last problem says how many more there are.
    """
    by_file: defaultdict[str, list[Problem]] = defaultdict(list)
    for problem in problems:
        by_file[problem.path].append(problem)
    return [problem for found in by_file.values() for problem in _abridged_file(found)]


def _abridged_file(problems: list[Problem]) -> list[Problem]:
    errors_first = sorted(problems, key=lambda p: not p.is_error)
    if len(errors_first) <= _MOST_PROBLEMS:
        return problems
    more = len(errors_first) - _MOST_PROBLEMS
    rest = f"and {more:,} more in this file: mtf validate --format json lists them all"
    listed = sorted(errors_first[:_MOST_PROBLEMS])
    return [*listed, errors_first[_MOST_PROBLEMS]._replace(message=rest, rule="")]


class SpecError(MtfError):
    """A spec or the settings are wrong; the message lists all problems in file order."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = sorted(set(problems))
        super().__init__("\n".join(map(str, abridged(self.problems))))


CONFIGURATION = "configuration"  # the path of a configuration that a program gives


class ConfigurationError(SpecError):
    """A configuration that a program gives is wrong; the message names each key.

    It has no file, so lines and columns of ``problems`` mean nothing.
    """

    def __str__(self) -> str:
        """Return the messages, each with its place if it is in a file after all."""
        found = abridged(self.problems)
        return "\n".join(p.message if p.path == CONFIGURATION else str(p) for p in found)


class RepositoryError(MtfError):
    """The git repository or its remote is in a state that mtf cannot work with."""


class ExecutorUnavailableError(MtfError):
    """The executor cannot be reached now: its jobs are Unknown, never missing."""


class QueueFullError(ExecutorUnavailableError):
    """A limit of the queue allows no more jobs now; fewer jobs might still fit."""


class SubmissionRefusedError(MtfError):
    """The executor refused a submission for good; the message is its own text."""


class SubmissionUncertainError(MtfError):
    """The executor gave no clear answer: the jobs may exist, look their token up."""
