"""Path patterns and regular expressions of policies."""

from __future__ import annotations

import pytest

from mtf.spec.schema.patterns import matches, matches_path


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        (
            "experiments/*.yaml",
            ["experiments/a.yaml"],
            ["experiments/a/b.yaml", "experiments/a.yml"],
        ),
        (
            "experiments/**/*.yaml",
            ["experiments/a.yaml", "experiments/a/b/c.yaml"],
            ["other/a.yaml", "a.yaml"],
        ),
        ("**/team-?.yaml", ["team-a.yaml", "x/y/team-b.yaml"], ["team-ab.yaml", "x/team-/.yaml"]),
        (
            "experiments/team",
            ["experiments/team", "experiments/team/a.yaml"],
            ["experiments/teams/a.yaml"],
        ),
        ("experiments/team/", ["experiments/team/a/b.yaml"], ["experiments/tea"]),
        ("a/**", ["a/b", "a/b/c"], ["b/a/c", "ab"]),
        ("a.b+c/*", ["a.b+c/d"], ["aXb+c/d", "a.bbc/d"]),
    ],
)
def test_a_path_pattern_matches_what_git_would_match(
    pattern: str, inside: list[str], outside: list[str]
) -> None:
    assert {p: matches_path(pattern, p) for p in inside} == dict.fromkeys(inside, True)
    assert {p: matches_path(pattern, p) for p in outside} == dict.fromkeys(outside, False)


def test_a_regular_expression_must_match_the_whole_text() -> None:
    assert matches("a|bc", "bc")
    assert not matches("a|bc", "abc")
    assert not matches("a|bc", "bcd")


@pytest.mark.parametrize("pattern", ["(", r"(a)\1", "(?=a)"])
def test_an_expression_that_is_none_or_needs_more_than_linear_time_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="is not a regular expression"):
        matches(pattern, "a")
