"""The public yaml-test-suite: valid documents give its values, invalid ones an error at a place.

mtf reads a part of YAML only (see ``reader``). Of what is in that part, the file of exceptions
names each case that is read differently.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mtf.spec.yaml.reader import Document, read

SUITE = Path(__file__).parent / "suite"
CASES: dict[str, dict[str, Any]] = {
    case["id"]: case
    for case in map(json.loads, (SUITE / "cases.jsonl").read_text(encoding="utf-8").splitlines())
}
EXCEPTIONS: dict[str, dict[str, str]] = json.loads((SUITE / "exceptions.json").read_text())
# What mtf refuses although it is valid YAML, so that no reader can misread a spec.
NOT_ALLOWED = (
    "the alias ",
    "the tag ",
    "the merge key ",
    "the key ",
    "duplicate key ",
    "%YAML and",
    "a second document",
    "a list or a mapping cannot be a key",
    "expected a finite number",
)


def documents(text: str) -> list[Any]:
    decoder, found = json.JSONDecoder(), []
    while text := text.lstrip():
        value, end = decoder.raw_decode(text)
        text = text[end:]
        found.append(value)
    return found


def is_beyond_mtf(document: Document) -> bool:
    return any(p.message.startswith(NOT_ALLOWED) for p in document.problems)


def test_the_suite_is_whole() -> None:
    assert len(CASES) == 402
    assert sum("error" in case for case in CASES.values()) == 94
    assert {*EXCEPTIONS["accepted"], *EXCEPTIONS["refused"]} <= {*CASES}


@pytest.mark.parametrize("case", [name for name, case in CASES.items() if "error" in case])
def test_an_invalid_document_is_an_error_at_a_place(case: str) -> None:
    document = read(CASES[case]["yaml"].encode(), "a.yaml")
    assert bool(document.problems) == (case not in EXCEPTIONS["accepted"])
    assert all(problem.line and problem.column for problem in document.problems)


@pytest.mark.parametrize("case", [name for name, case in CASES.items() if "error" not in case])
def test_a_valid_document_has_the_values_of_the_suite(case: str) -> None:
    document = read(CASES[case]["yaml"].encode(), "a.yaml")
    if is_beyond_mtf(document):
        assert case not in EXCEPTIONS["refused"]
        return
    assert bool(document.problems) == (case in EXCEPTIONS["refused"]), document.problems
    if not document.problems and "json" in CASES[case]:
        assert [document.value] == (documents(CASES[case]["json"]) or [None])


def test_most_of_the_suite_is_within_what_mtf_reads() -> None:
    read_whole = [
        name for name, c in CASES.items() if not read(c["yaml"].encode(), "a.yaml").problems
    ]
    assert len(read_whole) > 180
