"""The speed is that of the last minute of this process; a validation does not lower it."""

from __future__ import annotations

import pytest

from mtf.core.vocabulary.times import duration
from mtf.trainer.tracking.progress_bar import ProgressStatus
from mtf.trainer.tracking.throughput import ProgressMark, Throughput


def measured(*marks: tuple[float, int]) -> Throughput:
    throughput = Throughput()
    for at_s, steps in marks:
        throughput.add(ProgressMark(at_s, steps, steps * 4))
    return throughput


def test_speed_and_time_left_are_unknown_at_first() -> None:
    assert Throughput().eta_s(10) is None
    throughput = measured((100, 5000))
    assert (throughput.steps_per_s, throughput.batches_per_s, throughput.eta_s(9000)) == (
        None,
        None,
        None,
    )


def test_a_resumed_training_counts_from_its_own_first_mark() -> None:
    throughput = measured((100, 5000), (102, 5020))
    assert throughput.steps_per_s == 10
    assert throughput.batches_per_s == 40
    assert throughput.eta_s(5120) == 10


def test_a_validation_does_not_lower_the_speed_but_adds_to_the_time_left() -> None:
    throughput = measured((0, 0), (10, 100), (12, 100), (20, 100))
    assert throughput.steps_per_s == 10
    assert throughput.eta_s(200) == pytest.approx(20)


def test_the_speed_is_that_of_the_last_minute() -> None:
    slow = [(float(t), t) for t in range(0, 600, 2)]
    fast = [(600.0 + t, 600 + 5 * t) for t in range(0, 80, 2)]
    assert measured(*slow, *fast).steps_per_s == pytest.approx(5, rel=0.05)


def test_no_time_is_left_at_the_end() -> None:
    assert measured((0, 0), (1, 10)).eta_s(10) == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59, "59 s"), (300, "5 min"), (3700, "1 h 1 min"), (100_000, "1 d 3 h")],
)
def test_a_duration_has_its_two_largest_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_status_line_shows_what_is_known() -> None:
    unknown = ProgressStatus(1, 3, 0, 300, None, None, None)
    assert unknown.text() == "epoch 1/3 · step 0/300"
    known = ProgressStatus(2, 3, 150, 300, 0.51234, 12.34, 61.0, validation=(2, 5))
    assert known.text() == (
        "epoch 2/3 · step 150/300 · validation 2/5 · loss 0.5123 · 12.3 steps/s · 1 min left"
    )
