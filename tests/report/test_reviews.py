"""The phrases that reviews are made of: differences, values, resources, costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf.core.review.changed_runs import Difference, Review
from mtf.core.review.costs import Cost
from mtf.core.vocabulary.ids import CommitId
from mtf.report.cost_words import cost_text, resources_text
from mtf.report.reviews import difference_text, differences_text, footnote
from mtf.spec.schema.slurm_section import SLURMConfig

if TYPE_CHECKING:
    from mtf.core.vocabulary.jobs import Resources


def changes(number: int) -> list[Difference]:
    return [Difference(f"model.k{n:03}", str(n), str(n + 1)) for n in range(number)]


@given(st.integers(1, 30))
def test_eight_differences_are_shown_and_the_others_counted(number: int) -> None:
    text = differences_text(changes(number))
    shown = [n for n in range(number) if f"model.k{n:03} " in text]
    assert shown == list(range(min(number, 8)))
    assert text.endswith(f", and {number - 8} more") == (number > 8)


def test_a_missing_value_is_shown_as_unset() -> None:
    assert difference_text(Difference("a", None, "1")) == "a unset -> 1"
    assert difference_text(Difference("a", "1", None)) == "a 1 -> unset"


@pytest.mark.parametrize(
    ("cost", "text"),
    [
        (Cost(48, 96), "48 GPU-h, 96 CPU-h"),
        (Cost(0, 96), "96 CPU-h"),
        (Cost(0, 1234.5), "1,234 CPU-h"),
        (Cost(0, 1 / 12), "0.08333 CPU-h"),
        (Cost(48, None), "48 GPU-h, CPU-h without bound"),
        (Cost(None, None), "no bound: slurm.time is not set, or slurm.extra asks for whole nodes"),
        (Cost(0, None), "no bound: slurm.time is not set, or slurm.extra asks for whole nodes"),
    ],
)
def test_a_cost_is_given_in_hours_or_with_the_reason_why_it_has_no_bound(
    cost: Cost, text: str
) -> None:
    assert cost_text(cost) == text


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({}, "1 node, 1 CPU"),
        ({"nodes": 2, "gpus_per_node": 4}, "2 nodes, 8 GPU, 2 CPU"),
        (
            {"mem": "2G", "time": "01:00:00", "partition": "gpu"},
            "1 node, 1 CPU, 2G, 01:00:00, partition gpu",
        ),
    ],
)
def test_resources_are_listed_as_far_as_they_are_set(asked: dict[str, object], text: str) -> None:
    resources = cast("Resources", SLURMConfig.model_validate(asked).model_dump())
    assert resources_text(resources) == text


@pytest.mark.parametrize(
    ("untouched", "start"), [(0, "Plan for"), (1, "1 other spec file unchanged.")]
)
def test_the_footnote_counts_the_specs_that_are_not_compared(untouched: int, start: str) -> None:
    head, base = CommitId("a" * 40), CommitId("b" * 40)
    text = footnote(Review(head, base, (), untouched=untouched))
    assert text.startswith(start)
    assert "Plan for aaaaaaaa, compared with bbbbbbbb." in text
