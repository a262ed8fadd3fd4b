"""Names what carrying out a plan has done to each run: submitted, failed, pruned, ... Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, assert_never

from mtf.core.vocabulary.actions import (
    Adopt,
    Cancel,
    Rebuild,
    Record,
    Repin,
    Restore,
    Resume,
    Submit,
    Throttle,
)
from mtf.core.vocabulary.ids import label_of
from mtf.core.vocabulary.records import RunRecord
from mtf.core.vocabulary.states import RunState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from mtf.core.vocabulary.actions import Action
    from mtf.core.vocabulary.ids import JobId, RunId


class Deed(StrEnum):
    """One thing that a sync does to a run, in the word that people read."""

    RESUBMITTED = "resubmitted"  # while it waited, as its spec asks for now
    SUBMITTED = "submitted"  # its first job
    CONTINUED = "continued"  # another job
    ADOPTED = "adopted"  # a job of it was found and recorded
    STARTED = "started"  # these until LOST were observed
    COMPLETED = "completed"
    HELD_BACK = "held back"  # its waiting job was withdrawn
    INTERRUPTED = "interrupted"  # its job has ended, and another will follow
    FAILED = "failed"
    TIMEOUT = "timed out"
    CANCELLED = "cancelled"  # observed, or done
    LOST = "lost"
    PRUNED = "pruned"  # cancelled, since its spec is gone
    REPLACED = "replaced"  # cancelled, since its spec has changed
    SUPERSEDED = "superseded"  # it is over, and was run again
    RESTORED = "restored"  # its record, branch or checkout
    UPDATED = "updated"  # any other news in its record
    REFUSED = "refused"
    UNCLEAR = "unclear"  # submitted, perhaps
    PUT_OFF = "put off"


@dataclass(frozen=True)
class Done:
    """One deed, with the run as people name it."""

    deed: Deed
    run: RunId
    label: str
    owner: str  # name of the grid or the experiment
    reason: str = ""
    cause: str | None = None  # of an attempt's end


class Submissions(Protocol):
    """The outcomes of the submissions of one sync."""

    submitted: dict[RunId, JobId]
    refused: dict[RunId, str]
    uncertain: dict[RunId, str]
    put_off: dict[RunId, str]


_ENDED = {
    RunState.COMPLETED: Deed.COMPLETED,
    RunState.FAILED: Deed.FAILED,
    RunState.TIMEOUT: Deed.TIMEOUT,
    RunState.CANCELLED: Deed.CANCELLED,
    RunState.LOST: Deed.LOST,
}


def deeds(
    actions: Iterable[Action], before: Mapping[RunId, RunRecord], outcome: Submissions
) -> tuple[Done, ...]:
    """Return the deeds of actions, each deed to a run once, in the order of the actions.

    Args:
        actions: as carried out.
        before: the records of all runs before them.
        outcome: of the submissions among them.
    """
    found: dict[tuple[Deed, RunId], Done] = {}
    for action in actions:
        for done in _of(action, before, outcome):
            found.setdefault((done.deed, done.run), done)
    return tuple(found.values())


def _of(action: Action, before: Mapping[RunId, RunRecord], outcome: Submissions) -> Iterator[Done]:
    match action:
        case Submit():
            yield from _submitted(action, outcome)
        case Resume():
            for deed, why in _handed(action, outcome):
                yield _done(deed, action.record, why)
        case Record() | Adopt():
            yield _observed(action, before.get(action.run))
        case Cancel():
            yield _done(Deed(action.kind), action.record, action.reason)
        case Restore(record=RunRecord() as record) | Repin(record=record) | Rebuild(record=record):
            yield _done(Deed.RESTORED, record, action.reason)
        case Restore():
            yield Done(Deed.RESTORED, action.run, action.run, action.run.split("/")[0])
        case Throttle():
            pass  # nothing happens to a run
        case _:
            assert_never(action)


def _submitted(action: Submit, outcome: Submissions) -> Iterator[Done]:
    experiment = action.experiment
    label = label_of(experiment.grid, experiment.name)
    for deed, why in _handed(action, outcome):
        yield Done(deed, action.run, label, experiment.owner_name, why)
    if action.supersedes is not None:
        yield _done(Deed.SUPERSEDED, action.supersedes, action.run)


def _handed(action: Submit | Resume, outcome: Submissions) -> Iterator[tuple[Deed, str]]:
    """Yield the outcome of a run's submission, with its job or the reason."""
    started = Deed.SUBMITTED if isinstance(action, Submit) else Deed.CONTINUED
    if isinstance(action, Resume) and action.withdraws:
        started = Deed.RESUBMITTED
    each: tuple[tuple[Deed, Mapping[RunId, str]], ...] = (
        (started, outcome.submitted),
        (Deed.REFUSED, outcome.refused),
        (Deed.UNCLEAR, outcome.uncertain),
        (Deed.PUT_OFF, outcome.put_off),
    )
    for deed, runs in each:
        if action.run in runs:
            yield deed, runs[action.run]


def _observed(action: Record | Adopt, old: RunRecord | None) -> Done:
    new = action.record
    if isinstance(action, Record) and action.withdraws:
        return _done(Deed.HELD_BACK, new, new.reason)
    if new.is_over and not (old and old.is_over):
        return _done(_ENDED[new.state], new, new.reason)
    if isinstance(action, Adopt):
        return _done(Deed.ADOPTED, new, action.reason)
    if new.retry_at is not None and (old is None or old.retry_at is None):
        return _done(Deed.INTERRUPTED, new, new.reason)
    if new.state is RunState.RUNNING and old and old.state is not RunState.RUNNING:
        return _done(Deed.STARTED, new, "")
    return _done(Deed.UPDATED, new, action.reason)


def _done(deed: Deed, record: RunRecord, reason: str) -> Done:
    owner = record.grid or record.experiment
    return Done(deed, record.run, record.label, owner, reason, record.cause)
