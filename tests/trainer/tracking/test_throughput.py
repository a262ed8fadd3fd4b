"""The rate is that of this process and of late; a validation spoils neither rate nor time left."""

from __future__ import annotations

import pytest

from mtf.core.vocabulary.times import duration
from mtf.trainer.tracking.progress_bar import Standing
from mtf.trainer.tracking.throughput import Mark, Pace


def paced(*marks: tuple[float, int]) -> Pace:
    pace = Pace()
    for at_s, steps in marks:
        pace.mark(Mark(at_s, steps, steps * 4))
    return pace


def test_nothing_is_known_at_first() -> None:
    assert Pace().eta_s(10) is None
    pace = paced((100, 5000))
    assert (pace.steps_per_s, pace.batches_per_s, pace.eta_s(9000)) == (None, None, None)


def test_a_resumed_training_counts_from_its_own_first_mark() -> None:
    pace = paced((100, 5000), (102, 5020))
    assert pace.steps_per_s == 10
    assert pace.batches_per_s == 40
    assert pace.eta_s(5120) == 10


def test_a_validation_is_no_slow_training_but_takes_its_share_of_the_time_left() -> None:
    pace = paced((0, 0), (10, 100), (12, 100), (20, 100))
    assert pace.steps_per_s == 10
    assert pace.eta_s(200) == pytest.approx(20)


def test_the_rate_is_that_of_the_last_minute() -> None:
    slow = [(float(t), t) for t in range(0, 600, 2)]
    fast = [(600.0 + t, 600 + 5 * t) for t in range(0, 80, 2)]
    assert paced(*slow, *fast).steps_per_s == pytest.approx(5, rel=0.05)


def test_nothing_is_left_at_the_end() -> None:
    assert paced((0, 0), (1, 10)).eta_s(10) == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59, "59 s"), (300, "5 min"), (3700, "1 h 1 min"), (100_000, "1 d 3 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_line_says_where_it_is() -> None:
    unknown = Standing(1, 3, 0, 300, None, None, None)
    assert unknown.words() == "epoch 1/3 · step 0/300"
    known = Standing(2, 3, 150, 300, 0.51234, 12.34, 61.0, validation=(2, 5))
    assert known.words() == (
        "epoch 2/3 · step 150/300 · validation 2/5 · loss 0.5123 · 12.3 steps/s · 1 min left"
    )
