"""Records: which run of several is the best."""

from __future__ import annotations

from itertools import permutations

import pytest

from mtf.core.vocabulary.records import Best, best_run
from tests.core.planner.worlds import experiment, record


@pytest.mark.parametrize(("mode", "best"), [("min", 0.1), ("max", 0.9)])
def test_the_best_run_is_the_one_with_the_best_value(mode: str, best: float) -> None:
    valued = [record(experiment(), best=Best("val", v, 1, 1, mode)) for v in (0.5, 0.1, 0.9)]
    for order in permutations([*valued, record(experiment())]):
        found = best_run(order)
        assert found is not None
        assert found.best is not None
        assert found.best.value == best


def test_of_runs_without_a_value_none_is_the_best() -> None:
    assert best_run([record(experiment())]) is None
