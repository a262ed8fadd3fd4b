"""Error types for people, and the exit codes they end in. Only ``mtf.cli`` catches ``MtfError``."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

EXIT_ERROR = 1
EXIT_CHANGES = 2  # `plan --detailed-exitcode` only
EXIT_PARTIAL = 3  # `sync` did a part of its plan
EXIT_LOCKED = 4  # somebody else holds the lock
EXIT_USAGE = 64  # click would say 2, which `--detailed-exitcode` needs

_READABLE = 100  # problems of one file: nobody reads more


class MtfError(Exception):
    """What was wrong, where, and what to do about it, in one message."""

    exit_code = EXIT_ERROR


class TrainingError(MtfError):
    """A training that had begun has come to a bad end."""


class UsageError(MtfError):
    """The command line says something that no command can do."""

    exit_code = EXIT_USAGE


class LockedError(MtfError):
    """Another ``mtf sync`` holds the lock of this clone."""

    exit_code = EXIT_LOCKED


@dataclass(frozen=True, order=True)
class Problem:
    """One mistake in a committed file. ``line`` and ``column`` count from 1."""

    path: str
    line: int
    column: int
    message: str
    severity: Literal["error", "warning"] = "error"  # a warning stops nothing
    rule: str = ""  # the policy of mtf.yaml that it breaks, if it is that

    @property
    def is_error(self) -> bool:
        """Return whether nothing may be run before it is mended."""
        return self.severity == "error"

    def __str__(self) -> str:
        """Return ``path:line:column: message``, with what kind it is where that matters."""
        kind = "" if self.is_error else "warning: "
        rule = f" [{self.rule}]" if self.rule else ""
        return f"{self.path}:{self.line}:{self.column}: {kind}{self.message}{rule}"


def foremost(problems: Iterable[Problem]) -> list[Problem]:
    """Return what a person is to be told: of a file with very many problems the first ones.

    Errors go before warnings there; the last one says how many more there are.
    """
    by_file: defaultdict[str, list[Problem]] = defaultdict(list)
    for problem in problems:
        by_file[problem.path].append(problem)
    return [problem for of_file in by_file.values() for problem in _first(of_file)]


def _first(of_file: list[Problem]) -> list[Problem]:
    by_weight = sorted(of_file, key=lambda p: not p.is_error)
    if len(by_weight) <= _READABLE:
        return of_file
    more = len(by_weight) - _READABLE
    rest = f"and {more:,} more in this file: mtf validate --format json lists them all"
    shown = sorted(by_weight[:_READABLE])
    return [*shown, replace(by_weight[_READABLE], message=rest, rule="")]


class SpecError(MtfError):
    """A spec or the settings hold mistakes: all of them, in file order."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = sorted(set(problems))
        super().__init__("\n".join(map(str, foremost(self.problems))))


class RepositoryError(MtfError):
    """The git repository or its remote is not in a state that mtf can work with."""


class ExecutorUnavailableError(MtfError):
    """The executor cannot be read now: its jobs are Unknown, never missing."""


class QueueFullError(ExecutorUnavailableError):
    """A limit of jobs in the queue lets no more in now; fewer of them might still fit."""


class SubmissionRefusedError(MtfError):
    """The executor refused a submission for good; ``str()`` is its own text."""


class SubmissionUncertainError(MtfError):
    """The executor gave no clear answer: look the token up, the jobs may exist."""
