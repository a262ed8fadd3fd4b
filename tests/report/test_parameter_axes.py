"""Parameters of runs that vary together are listed as one axis, all others by themselves."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from mtf.core.vocabulary.experiments import joint_axes
from mtf.report.parameter_axes import axis_texts

if TYPE_CHECKING:
    from collections.abc import Mapping


def lines(*runs: Mapping[str, object]) -> list[str]:
    return [axis.line() for axis in axis_texts(runs)]


def test_keys_that_vary_together_are_not_multiplied() -> None:
    pairs = ({"size": 32, "decay": 0.0}, {"size": 64, "decay": 0.1})
    runs = [{**pair, "seed": seed} for pair in pairs for seed in (1, 2)]
    assert lines(*runs) == ["size, decay: (32, 0.0), (64, 0.1)", "seed: 1, 2"]


def test_a_key_that_some_runs_lack_is_listed_with_what_it_depends_on() -> None:
    sgd = [{"type": "sgd", "momentum": m} for m in (0.9, 0.95)]
    assert lines({"type": "adam"}, *sgd) == [
        'type, momentum: ("adam", -), ("sgd", 0.9), ("sgd", 0.95)'
    ]


def test_a_combination_that_is_left_out_is_not_listed() -> None:
    runs = [{"a": a, "b": b} for a, b in ((1, 1), (1, 2), (2, 1))]
    assert lines(*runs) == ["a, b: (1, 1), (1, 2), (2, 1)"]


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True), max_size=4))
def test_a_full_grid_has_an_axis_for_each_key(axes: list[list[int]]) -> None:
    keys = [f"k{i}" for i in range(len(axes))]
    runs = [dict(zip(keys, values, strict=True)) for values in itertools.product(*axes)]
    assert [k for k, _ in joint_axes(runs)] == [(key,) for key in keys]
    assert [[v for (v,) in values] for _, values in joint_axes(runs)] == axes


@given(st.integers(1, 30))
def test_of_more_than_ten_values_the_first_six_and_last_two_are_shown(number: int) -> None:
    (axis,) = axis_texts([{"n": n} for n in range(100, 100 + number)])
    every = [str(100 + n) for n in range(number)]
    expected = every if number <= 10 else [*every[:6], "…", *every[-2:]]
    assert axis.values.split(", ") == expected
