"""Which checkpoints are the best ones."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf.trainer.loop.best_epochs import Best, Mode, best_of, ranked, with_value


def of_values(values: list[float], keep: int, mode: Mode) -> Best:
    best: Best = {}
    for epoch, value in enumerate(values, 1):
        best = with_value(best, (epoch, 10 * epoch), value, keep=keep, mode=mode)
    return best


@pytest.mark.parametrize(
    ("mode", "kept"), [("min", [(4, 40), (2, 20)]), ("max", [(1, 10), (3, 30)])]
)
def test_the_checkpoints_with_the_best_metric_are_kept(
    mode: Mode, kept: list[tuple[int, int]]
) -> None:
    assert ranked(of_values([9.0, 2.0, 5.0, 1.0], 2, mode), mode) == kept


def test_of_equal_values_the_earlier_is_kept() -> None:
    assert of_values([1.0, 1.0], 1, "max") == {(1, 10): 1.0}


@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=8),
    st.integers(1, 4),
    st.sampled_from(("min", "max")),
)
def test_nan_is_never_among_the_best_which_do_not_depend_on_the_order(
    values: list[float], keep: int, mode: Mode
) -> None:
    best = of_values(values, keep, mode)
    numbers = sorted((v for v in values if not math.isnan(v)), reverse=mode == "max")
    assert sorted(best.values(), reverse=mode == "max") == numbers[:keep]


def test_the_best_saved_checkpoints_are_found_in_the_journal() -> None:
    def metrics(epoch: int, loss: Any) -> dict[str, Any]:
        return {"event": "metrics", "epoch": epoch, "step": epoch, "metrics": {"val_loss": loss}}

    facts = [
        metrics(1, 0.1),  # never saved
        metrics(2, 0.3),
        {"event": "checkpoint", "epoch": 2, "step": 2},
        metrics(3, 0.2),
        {"event": "progress"},
    ]
    assert best_of(facts, (3, 3), "val_loss", keep=1, mode="min") == {(3, 3): 0.2}
    assert best_of(facts, (4, 4), "val_loss", keep=2, mode="min") == {(2, 2): 0.3}
