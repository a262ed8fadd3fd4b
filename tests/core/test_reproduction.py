"""The comparison of a run with its reproduction."""

from __future__ import annotations

from dataclasses import replace

from mtf.core.review.reproduction import Evidence, compare_evidence
from mtf.core.vocabulary.ids import RunId
from mtf.report.proofs import reproduction_text

ROWS = [{"step": 45, "epoch": 1, "loss": 0.5}, {"step": 90, "epoch": 2, "loss": float("nan")}]
FIRST = Evidence(
    RunId("a/20260101T000000Z/aaaaaaaa"),
    ROWS,
    {"w": "1", "b": "2"},
    "f" * 64,
    environment={"package torch": "2.12", "threads": "8", "host": "x"},
)
SAME = replace(FIRST, run=RunId("a-reproduced/20260102T000000Z/aaaaaaaa"))


def test_equal_bits_are_reproduced_also_where_they_are_no_number() -> None:
    verdict = compare_evidence(FIRST, SAME)
    assert verdict.is_same
    assert (verdict.rows, verdict.tensors) == (2, 2)
    assert "bit for bit" in reproduction_text(verdict)


def test_the_first_step_and_metric_that_differ_are_named() -> None:
    rows = [ROWS[0], {"step": 90, "epoch": 2, "loss": 0.25}, {"step": 135, "epoch": 3, "loss": 1.0}]
    weights = {"w": "3", "b": "2"}
    other = replace(
        SAME, rows=rows, weights=weights, environment={"package torch": "2.13", "threads": "1"}
    )
    verdict = compare_evidence(FIRST, other)
    assert not verdict.is_same
    found = verdict.difference
    assert found is not None
    assert (found.step, found.metric, found.second) == (90, "loss", 0.25)
    assert verdict.differing == ("w",)
    # what one run has not recorded is unknown, not different
    assert verdict.environment == (("package torch", "2.12", "2.13"), ("threads", "8", "1"))
    text = reproduction_text(verdict)
    for part in (
        "NOT reproduced",
        "at step 90: loss is",
        "1 of 2 tensors",
        "torch: 2.12, then 2.13",
    ):
        assert part in text


def test_a_row_that_is_missing_or_a_sign_of_zero_is_a_difference() -> None:
    shorter = compare_evidence(FIRST, replace(SAME, rows=ROWS[:1])).difference
    assert shorter is not None
    assert (shorter.row, shorter.second) == (1, None)
    zero = [[{"step": 1, "loss": value}] for value in (0.0, -0.0)]
    assert not compare_evidence(replace(FIRST, rows=zero[0]), replace(SAME, rows=zero[1])).is_same


def test_what_is_gone_is_not_compared_and_said() -> None:
    gone = replace(SAME, weights=None, why_no_weights="the last checkpoint is gone")
    verdict = compare_evidence(FIRST, gone)
    assert verdict.is_same
    text = reproduction_text(verdict)
    assert "as far as it could be compared" in text
    assert "not compared: the last checkpoint is gone" in text
    nothing = compare_evidence(replace(FIRST, rows=None), gone)
    assert not nothing.is_same
    assert "nothing of" in reproduction_text(nothing)
