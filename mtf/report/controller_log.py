"""The log lines of a controller: each fact is printed once, however often it is seen again."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from mtf.core.vocabulary.actions import Adopt, Cancel, Record, owner_name
from mtf.core.vocabulary.times import duration
from mtf.report.problems import problem_lines
from mtf.report.tables import count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mtf.core.vocabulary.actions import Action, Plan
    from mtf.errors import Problem

_VERBS = {Record: "record", Adopt: "adopt", Cancel: "cancel"}


class SyncReport(Protocol):
    """The part of a sync's report that the log needs."""

    @property
    def plan(self) -> Plan:
        """Return the plan that was carried out."""

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Return the mistakes in what is committed."""

    @property
    def is_usable(self) -> bool:
        """Return False if the mistakes keep everything new from being submitted."""

    @property
    def commit(self) -> str:
        """Return the commit that was synced."""


class ControllerLog:
    """Prints what is new since the last sync: actions, notes, mistakes, failures, recoveries."""

    def __init__(self, say: Callable[[str], None]) -> None:
        """Print each line by calling ``say``."""
        self.say = say
        self._notes: frozenset[str] = frozenset()
        self._problems: frozenset[str] = frozenset()
        self._effect = ""
        self._failure = ""
        self._failing_since: datetime | None = None

    def report(self, done: SyncReport) -> None:
        """Log a sync, except its submissions, which the sync has logged itself."""
        for line in changes(done.plan.actions):
            self.say(line)
        notes = frozenset(done.plan.notes)
        for note in sorted(notes - self._notes):
            self.say(f"note: {note}")
        self._notes = notes
        self._report_problems(done)

    def _report_problems(self, done: SyncReport) -> None:
        problems = frozenset(problem_lines(done.problems))
        for problem in sorted(problems - self._problems):
            self.say(problem)
        effect = "specs with errors are skipped" if done.is_usable else "nothing new is submitted"
        if problems and (not self._problems or effect != self._effect):
            self.say(f"error: {effect} until the errors are fixed; everything else is synced")
        self._effect = effect
        if self._problems and not problems:
            self.say(f"fixed: committed specs are valid again ({done.commit[:8]})")
        self._problems = problems

    def fails(self, why: str, details: str = "") -> None:
        """Log that a sync failed, unless the one before failed for the same reason."""
        self._failing_since = self._failing_since or datetime.now(UTC)
        if why != self._failure:
            for line in filter(None, [*why.splitlines(), *details.splitlines()]):
                self.say(f"error: {line}")
            self.say("error: the sync failed and will be retried until it succeeds")
        self._failure = why

    def works_again(self) -> None:
        """Log that a sync succeeded, if the one before failed."""
        if self._failing_since is not None:
            seconds = (datetime.now(UTC) - self._failing_since).total_seconds()
            self.say(f"recovered after {duration(seconds)}")
        self._failing_since, self._failure = None, ""


def changes(actions: Iterable[Action]) -> list[str]:
    """Return one line for each change of a run, or of several runs of a spec for one reason."""
    groups: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for action in actions:
        match action:
            case Record(reason="progress"):
                continue
            case Record() | Adopt() | Cancel():
                key = (_VERBS[type(action)], owner_name(action), action.reason)
                groups[key].append(action.record.label)
            case _:  # the sync logs submissions as it makes them
                continue
    return [
        f"{verb:<8} {_runs_text(owner, labels)}: {reason}"
        for (verb, owner, reason), labels in groups.items()
    ]


def _runs_text(owner: str, labels: list[str]) -> str:
    return labels[0] if len(labels) == 1 else f"{count(len(labels), 'run')} of {owner}"
