"""What a controller says: each thing once, however often it is seen."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from mtf.core.vocabulary.actions import Adopt, Cancel, Record, owner_name
from mtf.core.vocabulary.times import duration
from mtf.errors import foremost
from mtf.report.tables import count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mtf.core.vocabulary.actions import Action, Plan
    from mtf.errors import Problem

_WORDS = {Record: "record", Adopt: "adopt", Cancel: "cancel"}


class Reconciled(Protocol):
    """What one sync did, as far as it is told."""

    @property
    def plan(self) -> Plan:
        """The plan that was carried out."""

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What went wrong."""

    @property
    def is_usable(self) -> bool:
        """Return True if the sync could read what is committed."""

    @property
    def commit(self) -> str:
        """The commit that was synced."""


class Told:
    """Says what is new since it was last said."""

    def __init__(self, say: Callable[[str], None]) -> None:
        """Take where the lines go."""
        self.say = say
        self._notes: frozenset[str] = frozenset()
        self._problems: frozenset[str] = frozenset()
        self._stopped = ""
        self._trouble = ""
        self._failing_since: datetime | None = None

    def report(self, done: Reconciled) -> None:
        """Say what a sync did and noticed; not what it said itself while it submitted."""
        for line in changes(done.plan.actions):
            self.say(line)
        notes = frozenset(done.plan.notes)
        for note in sorted(notes - self._notes):
            self.say(f"note     {note}")
        self._notes = notes
        problems = frozenset(map(str, foremost(done.problems)))
        for problem in sorted(problems - self._problems):
            self.say(f"broken   {problem}")
        stopped = "what has mistakes is left out" if done.is_usable else "nothing new is submitted"
        if problems and (not self._problems or stopped != self._stopped):
            self.say(f"broken   {stopped} until that is mended; all else goes on")
        self._stopped = stopped
        if self._problems and not problems:
            self.say(f"mended   what is committed is in order again ({done.commit[:8]})")
        self._problems = problems

    def fails(self, why: str, details: str = "") -> None:
        """Say why reconciling fails, unless that was the last thing said of it."""
        self._failing_since = self._failing_since or datetime.now(UTC)
        if why != self._trouble:
            for line in filter(None, [*why.splitlines(), *details.splitlines()]):
                self.say(f"failing  {line}")
            self.say("failing  it is tried again, and said when that goes well")
        self._trouble = why

    def works_again(self) -> None:
        """Say that reconciling goes well again, if it did not."""
        if self._failing_since is not None:
            seconds = (datetime.now(UTC) - self._failing_since).total_seconds()
            self.say(f"again    it goes well again, after {duration(seconds)}")
        self._failing_since, self._trouble = None, ""


def changes(actions: Iterable[Action]) -> list[str]:
    """Return a line for each change of a run, or of several runs of a spec alike."""
    groups: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for action in actions:
        match action:
            case Record(reason="progress"):
                continue
            case Record() | Adopt() | Cancel():
                key = (_WORDS[type(action)], owner_name(action), action.reason)
                groups[key].append(action.record.label)
            case _:  # submissions are told as they are made
                continue
    return [
        f"{word:<8} {_whose(owner, labels)}: {reason}"
        for (word, owner, reason), labels in groups.items()
    ]


def _whose(owner: str, labels: list[str]) -> str:
    return labels[0] if len(labels) == 1 else f"{count(len(labels), 'run')} of {owner}"
