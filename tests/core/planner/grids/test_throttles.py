"""`max_parallel` holds over all arrays of a grid, whatever happens and whenever."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

import pytest

from mtf.core.planner.grids.throttles import LiveArray, Place, adjustments, places
from mtf.core.vocabulary.jobs import ArrayLimit
from mtf.executor.slurm.array_limits import updates


def array(
    number: int, running: int, waiting: int, throttle: int | None = None, *after: int
) -> LiveArray:
    waits = frozenset(str(other) for other in after)
    return LiveArray(str(number), "slurm", running, waiting, throttle, waits)


def test_arrays_that_fit_together_start_together_and_the_next_waits_for_all_of_them() -> None:
    found = places([("a", 1), ("b", 1), ("c", 1), ("d", 1), ("e", 9)], [], 2, "slurm")
    assert found == {
        "a": Place(1),
        "b": Place(1),
        "c": Place(1, ("a", "b")),
        "d": Place(1, ("a", "b")),
        "e": Place(2, ("c", "d")),
    }


def test_a_retry_waits_while_the_grid_is_full_and_starts_at_once_beside_one_that_is_not() -> None:
    assert places([("retry", 1)], [array(7, 4, 900, 4)], 4, "slurm") == {"retry": Place(1, ("7",))}
    assert places([("retry", 1)], [array(7, 1, 0)], 4, "slurm") == {"retry": Place(1)}


def test_members_added_later_take_the_room_that_is_left_if_it_is_half_of_what_they_want() -> None:
    assert places([("new", 50)], [array(7, 1, 0)], 4, "slurm") == {"new": Place(3)}
    assert places([("new", 50)], [array(7, 3, 0)], 4, "slurm") == {"new": Place(4, ("7",))}


def test_nothing_is_submitted_behind_jobs_that_cannot_be_seen() -> None:
    unseen = LiveArray("", "slurm", 2, 0)
    assert places([("new", 3)], [unseen], 2, "slurm") == {}
    assert places([("new", 1)], [unseen], 3, "slurm") == {"new": Place(1)}


def test_jobs_on_another_executor_count() -> None:
    local = LiveArray("token", "local", 1, 0)
    assert places([("new", 3)], [local], 1, "slurm") == {}
    assert places([("new", 3)], [array(7, 1, 0)], 3, "local") == {"new": Place(2)}


@pytest.mark.parametrize(
    ("living", "most", "limits"),
    [
        # nothing to do: as they were submitted
        ([array(1, 1, 4, 1), array(2, 0, 5, 1, 1)], 1, []),
        # raised: the waiting one first, since it must never run beside the other
        ([array(1, 1, 4, 1), array(2, 0, 5, 1, 1)], 4, [(2, 4, (1,)), (1, 4, ())]),
        # lowered, although more are running: those that run are left alone
        ([array(1, 4, 4, 4), array(2, 0, 5, 4, 1)], 2, [(2, 2, (1,)), (1, 2, ())]),
        # two that ran side by side, and there is room for one: the newer one waits for the older
        ([array(1, 2, 4, 2), array(2, 2, 5, 2)], 1, [(2, 1, (1,)), (1, 1, ())]),
        # one has ended: what it leaves goes to the other
        ([array(2, 1, 50, 1)], 4, [(2, 4, ())]),
        # raised, and nothing of the first one waits: half of what the second one could run is enough
        ([array(1, 2, 0), array(2, 0, 3, 2, 1)], 4, [(2, 2, ())]),
        ([array(1, 3, 0), array(2, 0, 3, 2, 1)], 4, [(2, 3, (1,))]),
        # no limit any more
        ([array(1, 1, 4, 1), array(2, 0, 5, 1, 1)], None, [(2, None, ()), (1, None, ())]),
        # a limit where there was none
        ([array(1, 3, 9), array(2, 0, 1)], 2, [(2, 2, (1,)), (1, 2, ())]),
    ],
)
def test_a_changed_limit_reaches_the_arrays_that_exist(
    living: list[LiveArray],
    most: int | None,
    limits: list[tuple[int, int | None, tuple[int, ...]]],
) -> None:
    assert adjustments(living, most) == tuple(
        ArrayLimit(str(number), throttle, frozenset(map(str, after)))
        for number, throttle, after in limits
    )


@pytest.mark.parametrize("most", [None, 1, 2, 5])
def test_what_a_person_lets_an_array_wait_for_is_left_alone(most: int | None) -> None:
    theirs = replace(array(2, 0, 5, 1, 1), is_own=False)
    changes = adjustments([array(1, 1, 4, 1), theirs], most)
    assert not any(change.is_own for change in changes if change.number == "2")


def test_the_local_queue_counts_a_grids_jobs_itself() -> None:
    living = [LiveArray("a", "local", 1, 3, 2), LiveArray("b", "local", 2, 0)]
    assert adjustments(living, 2) == ()
    assert adjustments(living, 1) == (ArrayLimit("a", 1),)


@dataclass
class Queue:
    """SLURM, as far as it matters here: starts what throttle and dependencies allow."""

    chance: random.Random
    arrays: dict[str, list[int]] = field(default_factory=dict)  # running, waiting, throttle
    after: dict[str, frozenset[str]] = field(default_factory=dict)

    @property
    def running(self) -> int:
        return sum(running for running, _, _ in self.arrays.values())

    def is_over(self, number: str) -> bool:
        return self.arrays[number][:2] == [0, 0]

    def living(self) -> list[LiveArray]:
        return [
            LiveArray(
                number,
                "slurm",
                running,
                waiting,
                throttle if waiting else None,
                frozenset(other for other in self.after[number] if not self.is_over(other)),
            )
            for number, (running, waiting, throttle) in self.arrays.items()
            if running + waiting
        ]

    def adjust(self, most: int) -> None:
        for limit in adjustments(self.living(), most):
            for update in updates(limit):
                if update.startswith("Dependency="):
                    self.after[limit.number] = limit.after
                else:
                    self.arrays[limit.number][2] = limit.throttle or 0
                self.check(most)

    def submit(self, sizes: list[int], most: int) -> None:
        new = [(str(len(self.arrays) + i), size) for i, size in enumerate(sizes)]
        found = places(new, self.living(), most, "slurm")
        self.adjust(most)
        for number, size in new:
            self.arrays[number] = [0, size, found[number].throttle]
            self.after[number] = frozenset(found[number].after)

    def could_start(self) -> list[str]:
        return [
            number
            for number, (running, waiting, throttle) in self.arrays.items()
            if waiting and running < throttle and all(map(self.is_over, self.after[number]))
        ]

    def start_all(self) -> None:
        while free := self.could_start():
            self._start(self.chance.choice(free))

    def _start(self, number: str) -> None:
        self.arrays[number][0] += 1
        self.arrays[number][1] -= 1

    def check(self, most: int) -> None:
        """Fail if more than ``most`` could run by now, unless they ran before."""
        before = {number: list(counts) for number, counts in self.arrays.items()}
        ran = self.running
        self.start_all()
        assert self.running <= max(most, ran)
        self.arrays = before

    def end_one(self) -> None:
        busy = [number for number, counts in self.arrays.items() if counts[0]]
        if busy:
            self.arrays[self.chance.choice(busy)][0] -= 1


@pytest.mark.parametrize("seed", range(60))
def test_never_too_many_run_and_all_run_in_the_end_without_mtf(seed: int) -> None:
    chance = random.Random(seed)
    queue, most = Queue(chance), chance.randint(1, 6)
    for _ in range(60):
        match chance.choice(("submit", "change", "sync", "end", "end", "end")):
            case "submit":
                queue.submit([chance.randint(1, 8) for _ in range(chance.randint(1, 3))], most)
                assert adjustments(queue.living(), most) == ()
            case "change":
                most = chance.randint(1, 6)
                queue.adjust(most)
                assert adjustments(queue.living(), most) == ()
            case "sync":
                queue.adjust(most)
            case _:
                queue.end_one()
        ran = queue.running
        queue.start_all()
        assert queue.running <= max(most, ran)
    while queue.running:
        queue.end_one()
        queue.start_all()
    assert queue.arrays
    assert all(map(queue.is_over, queue.arrays))
