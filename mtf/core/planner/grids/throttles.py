"""Keeps ``max_parallel``: at most so many runs of a grid at a time, over all of its arrays. Pure.

SLURM's limit (``--array=0-9%4``) is for one array. An array therefore starts at once if there is
room for it beside those that may run, and otherwise waits, by a dependency, for the end of all
arrays before it. So the limit holds while no mtf is running, and nothing needs to be released.
The executors in ``SHARED`` count all jobs of a grid themselves.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mtf.core.vocabulary.actions import Throttle
from mtf.core.vocabulary.jobs import ArrayLimit
from mtf.core.vocabulary.states import JobState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from mtf.core.vocabulary.ids import RunId, Token
    from mtf.core.vocabulary.jobs import JobView
    from mtf.core.vocabulary.records import RunRecord

SHARED = frozenset({"local"})
_RUNS = frozenset({JobState.RUNNING, JobState.SUSPENDED})
_WAITS = frozenset({JobState.PENDING, JobState.HELD})


@dataclass(frozen=True)
class LiveArray:
    """The jobs of one array that are not over; without a number, jobs that nothing can wait for."""

    number: str  # of the array, as the executor knows it
    executor: str
    running: int
    waiting: int
    throttle: int | None = None  # None: no limit
    after: frozenset[str] = frozenset()  # numbers of the arrays that it waits for
    is_own: bool = True  # False: it also waits for what a person has said, which is left alone

    @property
    def size(self) -> int:
        """Return the number of jobs that are not over."""
        return self.running + self.waiting

    @property
    def allowed(self) -> int:
        """Return the number of its jobs that may run at a time."""
        return min(self.size, self.throttle or self.size)

    @property
    def width(self) -> int:
        """Return the number of its jobs that may run at a time, or do already."""
        return max(self.running, self.allowed)


@dataclass(frozen=True)
class Place:
    """Where a new array comes in: its throttle, and the arrays that it waits for."""

    throttle: int
    after: tuple[str, ...] = ()


def live_arrays(
    records: Iterable[RunRecord],
    live: Mapping[str, Mapping[tuple[Token, int], JobView]],
    limits: Mapping[str, Mapping[str, ArrayLimit]],
    unseen: Collection[RunId] = (),
) -> dict[str, list[LiveArray]]:
    """Return the arrays of each grid that may still run jobs, the oldest first.

    Args:
        records: of all runs that may have a job.
        live: the views of their jobs, by executor.
        limits: of arrays, by executor and number.
        unseen: runs whose jobs cannot be seen from here.
    """
    found: dict[str, list[LiveArray]] = defaultdict(list)
    records = list(records)
    for (grid, executor, number), waits in _tasks(records, live, unseen).items():
        known = limits.get(executor, {}).get(number, ArrayLimit(number, None))
        waiting = sum(waits)
        array = LiveArray(number, executor, len(waits) - waiting, waiting)
        if waiting:
            after = known.after & _numbers(records, grid) if known.after else known.after
            is_own = known.is_own and after == known.after
            array = replace(array, throttle=known.throttle, after=after, is_own=is_own)
        found[grid].append(array)
    return {grid: sorted(arrays, key=_age) for grid, arrays in found.items()}


def _numbers(records: Iterable[RunRecord], grid: str) -> set[str]:
    """Return the numbers of all arrays that runs of a grid were ever part of."""
    attempts = (a for r in records if r.grid == grid for a in r.attempts)
    return {a.job_id.partition("_")[0] for a in attempts if a.job_id}


def _tasks(
    records: Iterable[RunRecord],
    live: Mapping[str, Mapping[tuple[Token, int], JobView]],
    unseen: Collection[RunId],
) -> Mapping[tuple[str, str, str], Sequence[bool]]:
    """Return the tasks that are not over by grid, executor and array: True for one that waits."""
    found: dict[tuple[str, str, str], list[bool]] = defaultdict(list)
    for record in records:
        if record.grid is None or record.is_over or record.retry_at is not None:
            continue
        views = live.get(record.executor)
        view = views.get((record.attempt.token, record.attempt.index)) if views else None
        is_claim = view is None and record.job_id is None
        is_unknown = view is not None and view.state is JobState.UNKNOWN
        if record.run in unseen or views is None or is_claim or is_unknown:
            found[record.grid, record.executor, ""].append(False)
        elif view is not None and view.state in _RUNS | _WAITS:
            number = array_number(record, view)
            found[record.grid, record.executor, number].append(view.state in _WAITS)
    return found


def array_number(record: RunRecord, view: JobView) -> str:
    """Return the number of the array that a run's job is part of, as its executor knows it."""
    if record.executor in SHARED:
        return record.attempt.token
    return view.job_id.partition("_")[0]


def throttle_actions(
    arrays: Mapping[str, Sequence[LiveArray]],
    limits: Mapping[str, int | None],
    records: Mapping[str, RunRecord],
) -> list[Throttle]:
    """Return the actions that make ``max_parallel`` hold for the arrays of grids.

    Args:
        arrays: of each grid, by its name.
        limits: ``max_parallel`` of the grids that a spec still asks for.
        records: one of each grid's runs.
    """
    found = []
    for grid, most in limits.items():
        changes = adjustments(arrays.get(grid, ()), most)
        if changes:
            limit = "any number" if most is None else f"at most {most}"
            reason = f"{limit} of its runs at a time (max_parallel)"
            record = records[grid]
            found.append(Throttle(record.run, record, reason, changes))
    return found


def _age(array: LiveArray) -> tuple[int, int]:
    return (int(array.number) if array.number.isdigit() else 0), array.size


def places(
    new: Sequence[tuple[str, int]], living: Sequence[LiveArray], most: int, executor: str
) -> dict[str, Place]:
    """Return the place of each new array. One without a place must wait until it is seen again.

    An array that has room for half of what it could run at a time starts at once, with that.

    Args:
        new: the name and the number of jobs of each, in their order.
        living: the arrays of the same grid.
        most: the grid's ``max_parallel``.
        executor: that they are submitted to.
    """
    if executor in SHARED:
        others = sum(a.width for a in living if a.executor != executor or not a.number)
        return {name: Place(most - others) for name, _ in new} if others < most else {}
    settled = _settled(living, most)
    levels = _Levels(settled, most, can_follow=all(a.executor == executor for a in living))
    for array in settled:
        if array.after:
            levels.place(array.number, min(array.size, most))
    found = {name: levels.place(name, min(size, most), in_part=True) for name, size in new}
    return {name: place for name, place in found.items() if place is not None}


def adjustments(living: Sequence[LiveArray], most: int | None) -> tuple[ArrayLimit, ...]:
    """Return the changes after which ``most`` jobs of a grid's arrays run at a time, in order.

    What narrows comes before what widens, and later arrays before earlier ones, so that at no time
    in between too many jobs can start. None means no limit.
    """
    counted = [a for a in living if a.executor in SHARED and a.number]
    if counted:
        wrong = (a for a in counted if a.waiting and a.throttle != most)
        return tuple(ArrayLimit(a.number, most) for a in wrong)
    if most is None:
        limited = (
            a for a in reversed(living) if a.waiting and (a.throttle or (a.after and a.is_own))
        )
        return tuple(ArrayLimit(a.number, None, is_own=a.is_own) for a in limited)
    numbers = {a.number for a in living}
    narrowing: list[ArrayLimit] = []
    widening: list[ArrayLimit] = []
    for old, new in zip(reversed(living), reversed(_settled(living, most)), strict=True):
        waits_right = new.after == old.after & numbers or not old.is_own
        if new.allowed == old.allowed and waits_right:
            continue
        widens = new.allowed > old.allowed or not new.after
        limit = ArrayLimit(old.number, new.throttle or most, new.after, old.is_own)
        (widening if widens else narrowing).append(limit)
    return (*narrowing, *widening)


class _Levels:
    """Places arrays one after another: each on the last level if it fits, or on a new one.

    All arrays of a level may run at the same time; they wait for all those of the level before it.
    """

    def __init__(self, living: Iterable[LiveArray], most: int, *, can_follow: bool) -> None:
        """Begin with the arrays that wait for no others, as the first level."""
        front = [a for a in living if not a.after]
        self._most = most
        self._level = [a.number for a in front]
        self._can_follow = can_follow and all(self._level)
        self._free = max(most - sum(a.width for a in front), 0)
        self._after: tuple[str, ...] = ()

    def place(self, name: str, width: int, *, in_part: bool = False) -> Place | None:
        """Return the place of one more array; ``in_part``: half of its width is enough."""
        is_enough = in_part and not self._after and width <= 2 * self._free
        if width > self._free and not is_enough:
            if not self._can_follow:
                return None
            self._after, self._level, self._free = tuple(self._level), [], self._most
        width = min(width, self._free)
        self._level.append(name)
        self._free -= width
        return Place(width, self._after)


def _settled(living: Sequence[LiveArray], most: int) -> list[LiveArray]:
    """Return the arrays as they should be, in their order; none waits for one that is over."""
    numbers = {a.number for a in living}
    arrays = [replace(a, after=a.after & numbers) for a in living]
    front = [a for a in arrays if not a.after]
    widths = _shared_out(front, most)
    in_front = {a.number: w for a, w in zip(front, widths, strict=True) if w or not a.waiting}
    free = [
        replace(a, throttle=w if a.waiting and w != a.allowed else a.throttle)
        for a, w in zip(front, widths, strict=True)
        if a.number in in_front
    ]
    levels = _Levels(free, most, can_follow=True)
    by_number = {a.number: a for a in free}
    found = []
    for array in arrays:
        if array.number in in_front:
            found.append(by_number[array.number])
            continue
        place = levels.place(array.number, min(array.size, most), in_part=True)
        if place is None:  # it would have to wait for jobs that nothing is known of
            found.append(array)
            continue
        is_right = array.allowed == place.throttle
        throttle = array.throttle if is_right else place.throttle
        found.append(replace(array, throttle=throttle, after=frozenset(place.after)))
    return found


def _shared_out(front: Sequence[LiveArray], most: int) -> list[int]:
    """Return the number of jobs that may run at a time, of each array that waits for no other.

    If that is too much together, the newest arrays get less; what is left over goes to the oldest.
    """
    widths = [a.width for a in front]
    excess = sum(widths) - most
    for at in reversed(range(len(front))):
        if front[at].waiting and front[at].number:
            cut = min(max(excess, 0), widths[at])
            widths[at] -= cut
            excess -= cut
    spare = max(most - sum(widths), 0)
    for at, array in enumerate(front):
        if array.waiting:
            more = min(array.size - widths[at], spare)
            widths[at] += more
            spare -= more
    return widths
