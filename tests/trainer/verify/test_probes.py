"""Probes and interruptions: unsaved state, clocks, unseeded draws, where and how trials end."""

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
from torch.utils.data import BatchSampler, SequentialSampler

from mtf.trainer.data.batches import TensorBatches
from mtf.trainer.data.order import order_from_sampler
from mtf.trainer.loop.phases import Phase
from mtf.trainer.verify import trial_process
from mtf.trainer.verify.batch_records import ShortEpochs
from mtf.trainer.verify.hidden_state import summary, unequal
from mtf.trainer.verify.interruption_points import chain, interruptions
from mtf.trainer.verify.parallel_trials import run_parallel
from mtf.trainer.verify.random_sources import CLOCK, UNSEEDED, SourceRecorder, read_sources
from mtf.trainer.verify.trial_process import Interruption, Trial
from mtf.trainer.verify.user_code import UserCode

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
def test_a_generator_that_has_advanced_has_another_summary(make: Any) -> None:
    one, two = make(), make()
    assert summary(one) == summary(two)
    draw = getattr(two, "random", None) or (lambda: torch.rand(1, generator=two))
    draw()
    assert summary(one) != summary(two)


def test_summaries_distinguish_values_and_leave_out_functions() -> None:
    assert summary({"a": [1, 2]}) != summary({"a": [1, 3]})
    assert summary({"b", "a"}) == summary({"a", "b"})
    assert summary(lambda: 0) is None
    assert unequal({"a": "1", "b": "2"}, {"b": "3"}) == {"a": ("1", "missing"), "b": ("2", "3")}


def test_lines_of_user_code_that_read_the_clock_or_draw_unseeded_are_recorded(
    tmp_path: Path,
) -> None:
    (tmp_path / "repo").mkdir()
    code = tmp_path / "repo/user.py"
    code.write_text(USER)

    def body() -> None:
        SourceRecorder(tmp_path, UserCode(tmp_path / "repo")).install()
        names: dict[str, Any] = {"__name__": "user"}
        exec(compile(USER, str(code), "exec"), names)
        names["seeded"]()
        names["read"]()

    assert trial_process.fork(body).wait() == trial_process.COMPLETE
    found = read_sources(tmp_path)
    assert [(s.kind, s.file, s.line) for s in found] == [
        (CLOCK, "user.py", 5),
        (CLOCK, "user.py", 6),
        (UNSEEDED, "user.py", 7),
        (UNSEEDED, "user.py", 8),
        (UNSEEDED, "user.py", 9),
    ]
    assert found[0].text == "time.perf_counter()"


def test_each_phase_is_stopped_and_killed_at_different_places() -> None:
    chosen = interruptions(PHASES, (), often=True)
    assert list(chosen) == list(PHASES)
    for phase, found in chosen.items():
        assert {i.is_kill for i in found} == {True, False}
        assert len({(i.is_kill, i.nth, i.after) for i in found}) == len(found)
        assert all(1 <= i.nth <= PHASES[phase] for i in found)
    assert list(interruptions(PHASES, ("EPOCH_END", "VAL_BATCH_END"), often=False)) == ["EPOCH_END"]


def test_a_chain_has_the_requested_stops_in_frequent_phases() -> None:
    found = chain(PHASES, 7)
    assert len(found) == 7
    assert {i.phase for i in found} == {"TRAIN_BATCH_LOAD"}
    assert found == chain(PHASES, 7)


def test_a_trial_is_the_same_after_a_round_trip_through_json() -> None:
    trial = Trial("/x", Interruption(15, Phase.EPOCH_END, 2), probed_to=(1, False, 3), batches=4)
    assert Trial.loads(trial.dumps()) == trial


def test_a_training_that_hangs_is_killed() -> None:
    assert trial_process.fork(lambda: time.sleep(60), limit_s=0.1).wait() == trial_process.OVERDUE


def test_a_shortened_epoch_can_start_at_any_batch() -> None:
    class Ten:
        def __len__(self) -> int:
            return 10

        def batches(self, epoch: int, start: int) -> Iterator[Any]:
            return iter(range(start, 10))

    assert len(ShortEpochs(Ten(), 4)) == 4
    assert list(ShortEpochs(Ten(), 4).batches(0, 0)) == [0, 1, 2, 3]
    assert list(ShortEpochs(Ten(), 4).batches(0, 3)) == [3]
    assert len(ShortEpochs(Ten(), 40)) == 10


def numbered(sampler: Any) -> TensorBatches:
    return TensorBatches([torch.arange(100)], order_from_sampler(sampler, 1, 0, 1, even=True))


def test_a_shortened_epoch_ends_with_the_last_batch_of_the_whole_one() -> None:
    """The last batch may be smaller: no other shows how a model treats its shape."""
    whole = numbered(BatchSampler(SequentialSampler(range(10)), 4, drop_last=False))
    short = ShortEpochs(whole, 2)
    assert [[x.tolist() for (x,) in short.batches(0, start)] for start in range(3)] == [
        [[0, 1, 2, 3], [8, 9]],
        [[8, 9]],
        [],
    ]
    assert [short.samples(0, batch) for batch in range(2)] == [[0, 1, 2, 3], [8, 9]]
    assert [short.num_samples(0, batch) for batch in range(2)] == [4, 2]
    assert len(list(ShortEpochs(whole, 1).batches(0, 0))) == 1
    assert len(list(ShortEpochs(whole, 10).batches(0, 1))) == 2


def test_a_shortened_epoch_of_a_compiled_model_has_every_size_of_the_whole_one() -> None:
    sampler: Any = [[0, 1], [2, 3], [4, 5], [6, 7, 8], [9, 10], [11], [12, 13], [14, 15]]
    short = ShortEpochs(numbered(sampler), 2, every_size=True)
    assert [x.tolist() for (x,) in short.batches(0, 0)] == [[0, 1], [6, 7, 8], [11], [14, 15]]
    sizes = [short.num_samples(epoch, batch) for epoch in (0, 1) for batch in range(len(short))]
    assert sizes == [2, 3, 1, 2] * 2


def test_parallel_tasks_yield_as_they_end_and_closing_kills_the_rest() -> None:
    def task(name: str, *seconds: float) -> Steps[tuple[str, list[int]]]:
        codes = [0 for _ in seconds]
        for number, each in enumerate(seconds):
            codes[number] = yield trial_process.fork(partial(time.sleep, each))
        return name, codes

    begun, before = time.monotonic(), _children()
    tasks = [task("late", 600), task("twice", 0.01, 0.01), task("idle"), task("once", 0.01)]
    done: Any = run_parallel(2, tasks)
    assert [next(done) for _ in range(3)] == [("twice", [0, 0]), ("idle", []), ("once", [0])]
    done.close()
    assert _children() <= before  # none is left
    assert time.monotonic() - begun < 300


def test_closing_kills_no_process_whose_exit_code_was_already_read() -> None:
    def task() -> Steps[int]:
        child = trial_process.fork(lambda: None)
        while any(_state(pid) != "Z" for pid in _children() - before):
            time.sleep(0.01)
        return (yield child)

    before = _children()
    done: Any = run_parallel(2, [task(), task()])  # both have ended when they are first polled
    assert next(done) == 0
    done.close()
    assert _children() <= before


def _state(pid: str) -> str:
    """Return the letter of a process's state: Z once it has ended. Source: proc(5), stat."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


def _children() -> set[str]:
    """Return the pids of the children of this process, zombies included."""
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())
