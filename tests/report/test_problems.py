"""Mistakes in specs as text, JSON and annotations."""

from __future__ import annotations

import json

from mtf.errors import Problem, SpecError
from mtf.report.problems import problem_lines, render_problems


def test_annotations_for_github_are_escaped() -> None:
    problem = Problem("a,b.yaml", 3, 7, "50% of\nit")
    assert (
        render_problems([problem], "github")
        == "::error file=a%2Cb.yaml,line=3,col=7::50%25 of%0Ait"
    )
    assert render_problems([problem], "text") == "a,b.yaml:3:7: 50% of\n  it"


def test_people_see_the_first_hundred_problems_of_a_file_and_json_has_all() -> None:
    unusual = [Problem("a.yaml", n, 1, "unusual", "warning") for n in range(1, 121)]
    wrong = [Problem("a.yaml", n, 1, "wrong") for n in range(200, 261)]
    problems = [*unusual, *wrong, Problem("b.yaml", 1, 1, "wrong")]
    lines = render_problems(problems, "text").splitlines()
    assert len(lines) == 102
    assert lines[38:40] == ["a.yaml:39:1: warning: unusual", "a.yaml:200:1: wrong"]
    assert lines[-2:] == [
        "a.yaml:40:1: warning: and 81 more in this file: mtf validate --format json lists them all",
        "b.yaml:1:1: wrong",
    ]
    assert len(render_problems(problems, "github").splitlines()) == 102
    assert len(json.loads(render_problems(problems, "json"))) == 182
    assert str(SpecError(wrong * 2)).count("wrong") == 61
    assert "a.yaml:101:1: and 6,900 more" in str(
        SpecError([Problem("a.yaml", n, 1, "wrong") for n in range(1, 7001)])
    )


def test_errors_and_warnings_differ_in_every_format() -> None:
    problems = [
        Problem("a.yaml", 1, 2, "bad", rule="max_runs"),
        Problem("a.yaml", 3, 4, "odd", "warning"),
    ]
    assert problem_lines(problems) == [
        "error: a.yaml:1:2: bad [max_runs]",
        "a.yaml:3:4: warning: odd",
    ]
    assert render_problems(problems, "text").splitlines() == [
        "a.yaml:1:2: bad [max_runs]",
        "a.yaml:3:4: warning: odd",
    ]
    assert render_problems(problems, "github").splitlines() == [
        "::error file=a.yaml,line=1,col=2::bad [max_runs]",
        "::warning file=a.yaml,line=3,col=4::odd",
    ]
    assert [p["severity"] for p in json.loads(render_problems(problems, "json"))] == [
        "error",
        "warning",
    ]
