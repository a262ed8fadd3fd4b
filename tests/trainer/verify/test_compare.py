"""Results are compared by their bits; a difference has its place and its amount."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from mtf.trainer.verify.compare_trainings import difference, differences, first_row

SAME = [
    (torch.tensor([1.0, float("nan")]), torch.tensor([1.0, float("nan")])),
    ({"a": [1, (2, None)]}, {"a": [1, (2, None)]}),
    (float("nan"), float("nan")),
    (torch.empty(0), torch.empty(0)),
]
OTHER: list[tuple[Any, Any, str]] = [
    (torch.zeros(2), -torch.zeros(2), "equal values with different bits, such as 0.0 and -0.0"),
    (torch.zeros(2), torch.zeros(2).double(), "float32[2], then float64[2]"),
    (torch.zeros(2), torch.zeros(3), "float32[2], then float32[3]"),
    (torch.zeros(4), torch.tensor([0, 0, 0, 0.5]), "1 of 4 values, by 0.5 at most"),
    (1, 1.0, "int, then float"),
    ([1], [1, 2], "1 entries, then 2"),
    (0.1, 0.2, "0.1, then 0.2"),
]


@pytest.mark.parametrize(("left", "right"), SAME)
def test_equal_bits_are_no_difference(left: Any, right: Any) -> None:
    assert difference(left, right) is None


@pytest.mark.parametrize(("left", "right", "detail"), OTHER)
def test_unequal_bits_are_a_difference(left: Any, right: Any, detail: str) -> None:
    assert difference({"x": left}, {"x": right}) == f"/x: {detail}"


def test_every_place_that_differs_is_named_also_missing_ones() -> None:
    left = {"model": {"w": 1, "b": 2}, "gone": 0}
    right = {"model": {"w": 3, "b": 2}, "new": 0}
    assert [d.where for d in differences(left, right)] == ["/model/w", "/gone", "/new"]


def test_the_first_row_of_scalars_that_differs_is_found() -> None:
    rows = [json.dumps({"step": n}).encode() + b"\n" for n in (1, 2, 3)]
    assert first_row(b"".join(rows), b"".join(rows)) is None
    assert first_row(b"".join(rows), rows[0] + rows[2]) == ({"step": 2}, {"step": 3})
    assert first_row(b"".join(rows), rows[0]) == ({"step": 2}, None)
