"""Which specs may have a name, without parsing them."""

from __future__ import annotations

import pytest

from mtf.project.affected import defining, mentioning


@pytest.mark.parametrize(
    "line",
    [
        rb"name: good",
        rb"experiment_name: 'Good'",
        rb'"experiment_name": "g\x6fod"',
        rb'experiment_name: "go\u006F\U00000064"',
        rb'"experiment\x5fname": good',
        b'experiment_name: "go\\\n  od"',
    ],
)
def test_a_name_is_found_however_it_is_written(line: bytes) -> None:
    assert defining({"good"}, {"a.yaml": b"kind: experiment\n" + line + b"\n[\n"}) == {"a.yaml"}


@pytest.mark.parametrize(
    "line", [rb'description: "one\ntwo"', rb'path: "C:\\good"', rb'name: "b\x61d"', rb"name: good2"]
)
def test_a_backslash_alone_is_nobodys_name(line: bytes) -> None:
    assert defining({"good"}, {"a.yaml": line}) == set()


def test_any_word_may_be_hidden_by_an_escape() -> None:
    assert mentioning({"base.yaml"}, {"a.yaml": rb'base: "b\x61se.yaml"'}) == {"a.yaml"}
    assert mentioning(set(), {"a.yaml": rb'base: "b\x61se.yaml"'}) == set()
