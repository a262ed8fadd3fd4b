"""Holds back runs of a grid: behind its canary, or after too many failures. Pure.

``canary: 1`` submits one member first, the first of the grid, and the others once it has saved a
checkpoint or completed. ``max_failed: 3`` submits no more after three failures, and withdraws the
jobs that wait. What is held back has no job; each sync looks again.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mtf.core.planner.spec_changes import waits, withdrawn
from mtf.core.vocabulary.actions import Record, Resume, Submit
from mtf.core.vocabulary.states import RunState
from mtf.core.vocabulary.times import iso

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from mtf.core.planner.journal_reader import Progress
    from mtf.core.vocabulary.actions import Action
    from mtf.core.vocabulary.experiments import Desired
    from mtf.core.vocabulary.ids import RunId, RunKey
    from mtf.core.vocabulary.jobs import JobView
    from mtf.core.vocabulary.records import RunRecord

_FAILED = frozenset({RunState.FAILED, RunState.TIMEOUT, RunState.LOST})
_HELD = "held back: "


@dataclass(frozen=True)
class Hold:
    """Why runs of a grid are held back, with what releases them."""

    why: str
    room: int = 0  # members that are submitted all the same
    stops: bool = False  # waiting jobs are withdrawn as well


def holds(
    specs: Iterable[tuple[Desired, tuple[RunKey, ...]]],
    records: Iterable[RunRecord],
    progress: Mapping[RunId, Progress],
) -> dict[RunKey, Hold]:
    """Return the holds of grids, by the keys of their runs.

    Args:
        specs: with the keys of their runs.
        records: of all runs, up to date.
        progress: in the journals of active runs.
    """
    newest: dict[RunKey, RunRecord] = {}
    for record in sorted(records, key=lambda r: r.claimed_at):
        newest[record.key] = record
    found: dict[RunKey, Hold] = {}
    for desired, keys in specs:
        if desired.canary is None and desired.max_failed is None:
            continue
        of_grid = [newest[key] for key in keys if key in newest]
        hold = _after_failures(desired, of_grid) or _behind_canary(desired, of_grid, progress)
        if hold is not None:
            found |= dict.fromkeys(keys, hold)
    return found


def _after_failures(desired: Desired, records: Sequence[RunRecord]) -> Hold | None:
    failed = [record for record in records if record.state in _FAILED]
    most = desired.max_failed
    if most is None or len(failed) < most:
        return None
    runs = "run has" if len(failed) == 1 else "runs have"
    return Hold(
        f"{len(failed)} {runs} failed (max_failed: {most}). mtf retry of one that failed, a changed"
        " spec or a greater max_failed releases the others",
        stops=True,
    )


def _behind_canary(
    desired: Desired, records: Sequence[RunRecord], progress: Mapping[RunId, Progress]
) -> Hold | None:
    wanted = desired.canary
    if wanted is None or sum(_has_passed(r, progress.get(r.run)) for r in records) >= wanted:
        return None
    room = max(wanted - len(records), 0)
    others = [r for r in records if not _has_passed(r, progress.get(r.run))]
    ended = [r for r in others if r.is_over]
    if ended and not room:
        return Hold(_not_passed(ended[0]))
    return Hold(
        f"until {wanted} of its runs {'has' if wanted == 1 else 'have'} saved a checkpoint"
        " (canary)",
        room,
    )


def _not_passed(canary: RunRecord) -> str:
    return (
        f"the canary {canary.label} has not passed. mtf retry {canary.label}, mtf rerun (with newer"
        " code) or a changed spec releases the others"
    )


def _has_passed(record: RunRecord, progress: Progress | None) -> bool:
    """Return True if a run has saved its first checkpoint, or completed."""
    if record.state is RunState.COMPLETED or record.checkpoint is not None:
        return True
    return progress is not None and bool(progress.checkpoint or progress.finished_at)


def without_held(
    new: Iterable[Submit], found: Mapping[RunKey, Hold]
) -> tuple[list[Submit], list[str]]:
    """Return the new runs that are submitted now, and a note for each one that is held back."""
    new = list(new)
    asked = Counter(a.desired.name for a in new if a.supersedes is not None)  # by a person
    submitted: list[Submit] = []
    canaries: dict[str, list[Submit]] = defaultdict(list)
    behind: Counter[str] = Counter()
    notes = []
    for action in new:
        name, hold = action.desired.name, found.get(action.key)
        if hold is None or (action.supersedes is not None and hold.stops):
            submitted.append(action)
        elif action.supersedes is not None or asked[name] + len(canaries[name]) < hold.room:
            canaries[name].append(action)
            asked[name] -= action.supersedes is not None
        else:
            behind[name] += 1
            notes.append(_note(name, hold))
    first = [replace(a, holds_back=behind[name]) for name, of in canaries.items() for a in of]
    return [*submitted, *first], notes


def _note(name: str, hold: Hold) -> str:
    return f"{name}: held back: {hold.why}"


def hold_back(
    decided: dict[RunId, Action],
    runs: Iterable[tuple[RunRecord, JobView | None, Progress | None]],
    found: Mapping[RunKey, Hold],
    now: datetime,
) -> list[str]:
    """Change what was decided about runs that are held back, or no longer are; return notes.

    Args:
        decided: the action for each run that has one.
        runs: the active ones, each with its newest job and the progress in its journal.
        found: the holds.
        now: the time.
    """
    notes = []
    for record, job, progress in runs:
        hold, action = found.get(record.key), decided.get(record.run)
        if hold is None or not hold.stops:
            decided |= {record.run: _released(action)} if isinstance(action, Resume) else {}
        elif not record.has_begun:
            is_waiting = record.retry_at is None and waits(record, job, progress)
            instead = _instead(action, record, hold, now, is_waiting=is_waiting)
            decided.pop(record.run, None)
            decided |= {record.run: instead} if instead else {}
            if is_waiting or record.retry_at is not None:
                notes.append(_note(record.grid or "", hold))
    return notes


def _instead(
    action: Action | None, record: RunRecord, hold: Hold, now: datetime, *, is_waiting: bool
) -> Action | None:
    """Return the action for a run that has not begun and is held back."""
    why = f"{_HELD}{hold.why}"
    can_be_withdrawn = isinstance(action, Record | Resume) and not action.record.is_over
    if is_waiting and (action is None or can_be_withdrawn):
        return Record(record.run, _without_job(record, hold, now), why, withdraws=True)
    if not isinstance(action, Resume) or (record.job_id is None and record.retry_at is None):
        return action
    if record.retry_at is None:  # its job was withdrawn by a sync that has died
        return Record(record.run, _without_job(record, hold, now), why)
    return None if record.reason == why else Record(record.run, replace(record, reason=why), why)


def _without_job(record: RunRecord, hold: Hold, now: datetime) -> RunRecord:
    """Return the record of a run whose waiting job is withdrawn, and no other is submitted yet."""
    record = withdrawn(record, hold.why, now)
    return replace(record, state=RunState.PENDING, reason=f"{_HELD}{hold.why}", retry_at=iso(now))


def _released(action: Resume) -> Resume:
    if not action.record.reason.startswith(_HELD):
        return action
    return replace(action, record=replace(action.record, reason=""), reason="no longer held back")


def is_held_back(record: RunRecord) -> bool:
    """Return True if a run has no job because it is held back after too many failures."""
    return record.retry_at is not None and record.reason.startswith(_HELD)


def canary_text(record: RunRecord) -> str:
    """Return a text on the runs that wait for a canary, empty if it has passed."""
    if not holds_others(record):
        return ""
    others = f"{record.holds_back} other runs"
    if record.is_over:
        return f"canary, held back {others}"
    return f"canary: {others} wait for its first checkpoint"


def holds_others(record: RunRecord) -> bool:
    """Return True if a run is a canary that has not passed."""
    return record.holds_back > 0 and not _has_passed(record, None)


def held_back(records: Iterable[RunRecord]) -> dict[str, str]:
    """Return a text about the runs that are held back, by grid, from records alone."""
    members: dict[str, list[RunRecord]] = defaultdict(list)
    for record in records:
        if record.grid is not None and record.superseded_by is None:
            members[record.grid].append(record)
    return {grid: text for grid, found in members.items() if (text := _held_text(found))}


def _held_text(members: Sequence[RunRecord]) -> str:
    """Return a text on the runs of one grid that are held back, empty if none are."""
    withdrawn_ones = [record for record in members if is_held_back(record)]
    if withdrawn_ones:
        return f"{_runs(len(withdrawn_ones))} {withdrawn_ones[0].reason}"
    newest = max(members, key=lambda r: r.claimed_at).submission  # others are of an older spec
    canaries = [r for r in members if r.submission == newest and holds_others(r)]
    if not canaries:
        return ""
    canary = next((r for r in canaries if r.is_over), canaries[0])
    runs = f"{_runs(canary.holds_back)} {_HELD}"
    if canary.is_over:
        return f"{runs}{_not_passed(canary)}"
    return f"{runs}they get jobs once the canary {canary.label} has saved a checkpoint"


def _runs(number: int) -> str:
    return "1 run" if number == 1 else f"{number} runs"
