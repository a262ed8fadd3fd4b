"""The probes see what they are to see: unsaved state, the clock, unseeded draws, places."""

from __future__ import annotations

import os
import random
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from mtf.trainer.loop.phases import Phase
from mtf.trainer.verify import trials
from mtf.trainer.verify.hidden_state import Own, summary, unequal
from mtf.trainer.verify.interruption_points import chain, interruptions
from mtf.trainer.verify.parallel_trials import at_once
from mtf.trainer.verify.random_sources import CLOCK, UNSEEDED, Watcher, read_sources
from mtf.trainer.verify.recorder import First
from mtf.trainer.verify.trials import Interruption, Trial

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mtf.trainer.verify.parallel_trials import Steps

PHASES = {"INIT": 1, "TRAIN_BATCH_LOAD": 10, "EPOCH_END": 2}
USER = """\
import datetime, random, time, uuid
import numpy as np

def read():
    time.perf_counter()
    datetime.datetime.now()
    uuid.uuid4()
    np.random.default_rng()
    random.Random()

def seeded():
    np.random.default_rng(3)
    random.Random(3).random()
    assert isinstance(datetime.datetime(2025, 1, 1), datetime.datetime)
"""


@pytest.mark.parametrize(
    "make",
    [
        lambda: random.Random(3),
        lambda: np.random.default_rng(3),
        lambda: np.random.RandomState(3),
        lambda: torch.Generator().manual_seed(3),
    ],
)
def test_a_generator_that_has_advanced_is_another(make: Any) -> None:
    one, two = make(), make()
    assert summary(one) == summary(two)
    draw = getattr(two, "random", None) or (lambda: torch.rand(1, generator=two))
    draw()
    assert summary(one) != summary(two)


def test_values_are_told_apart_and_what_has_no_state_is_left_out() -> None:
    assert summary({"a": [1, 2]}) != summary({"a": [1, 3]})
    assert summary({"b", "a"}) == summary({"a", "b"})
    assert summary(lambda: 0) is None
    assert unequal({"a": "1", "b": "2"}, {"b": "3"}) == {"a": ("1", "not there"), "b": ("2", "3")}


def test_lines_of_the_users_that_read_the_clock_or_draw_unseeded_are_noted(tmp_path: Path) -> None:
    (tmp_path / "repo").mkdir()
    code = tmp_path / "repo/user.py"
    code.write_text(USER)

    def body() -> None:
        Watcher(tmp_path, Own(tmp_path / "repo")).install()
        names: dict[str, Any] = {"__name__": "user"}
        exec(compile(USER, str(code), "exec"), names)
        names["seeded"]()
        names["read"]()

    assert trials.fork(body).wait() == trials.COMPLETE
    found = read_sources(tmp_path)
    assert [(s.kind, s.file, s.line) for s in found] == [
        (CLOCK, "user.py", 5),
        (CLOCK, "user.py", 6),
        (UNSEEDED, "user.py", 7),
        (UNSEEDED, "user.py", 8),
        (UNSEEDED, "user.py", 9),
    ]
    assert found[0].text == "time.perf_counter()"


def test_each_phase_is_stopped_and_killed_and_no_place_comes_twice() -> None:
    chosen = interruptions(PHASES, (), often=True)
    assert list(chosen) == list(PHASES)
    for phase, found in chosen.items():
        assert {i.is_kill for i in found} == {True, False}
        assert len({(i.is_kill, i.nth, i.after) for i in found}) == len(found)
        assert all(1 <= i.nth <= PHASES[phase] for i in found)
    assert list(interruptions(PHASES, ("EPOCH_END", "VAL_BATCH_END"), often=False)) == ["EPOCH_END"]


def test_a_chain_has_as_many_stops_as_asked_at_phases_that_come_often() -> None:
    found = chain(PHASES, 7)
    assert len(found) == 7
    assert {i.phase for i in found} == {"TRAIN_BATCH_LOAD"}
    assert found == chain(PHASES, 7)


def test_a_trial_survives_its_way_to_another_interpreter() -> None:
    trial = Trial("/x", Interruption(15, Phase.EPOCH_END, 2), probed_to=(1, False, 3), batches=4)
    assert Trial.loads(trial.dumps()) == trial


def test_a_training_that_hangs_is_ended() -> None:
    assert trials.fork(lambda: time.sleep(60), limit_s=0.1).wait() == trials.OVERDUE


def test_an_epoch_is_shortened_from_wherever_it_is_opened() -> None:
    class Ten:
        def __len__(self) -> int:
            return 10

        def batches(self, epoch: int, start: int) -> Iterator[Any]:
            return iter(range(start, 10))

    assert len(First(Ten(), 4)) == 4
    assert list(First(Ten(), 4).batches(0, 0)) == [0, 1, 2, 3]
    assert list(First(Ten(), 4).batches(0, 3)) == [3]
    assert len(First(Ten(), 40)) == 10


def test_works_are_done_beside_each_other_and_their_processes_end_with_them() -> None:
    def work(name: str, *seconds: float) -> Steps[tuple[str, list[int]]]:
        codes = [0 for _ in seconds]
        for number, each in enumerate(seconds):
            codes[number] = yield trials.fork(partial(time.sleep, each))
        return name, codes

    begun, before = time.monotonic(), _children()
    works = [work("late", 600), work("twice", 0.01, 0.01), work("idle"), work("once", 0.01)]
    done: Any = at_once(2, works)
    assert [next(done) for _ in range(3)] == [("twice", [0, 0]), ("idle", []), ("once", [0])]
    done.close()
    assert _children() <= before  # nor has any been left
    assert time.monotonic() - begun < 300


def _children() -> set[str]:
    """Return the children of this process, those that have ended and nobody has waited for too."""
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())
