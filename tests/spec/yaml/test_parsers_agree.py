"""libyaml and ruamel.yaml give the same values, positions and errors behind the one reader."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from mtf.spec.yaml import event_parsers, reader

if TYPE_CHECKING:
    from collections.abc import Callable

KEYS = st.from_regex(r"[a-z_][a-z0-9_.]{0,6}", fullmatch=True)
SCALARS = st.sampled_from((
    "1", "-2", "1e-3", "0.5", "010", "0x1F", "1_000", "true", "no", "null", "~", "mlp", "a b",
    "00:10:00", "2024-01-02", "lab.models:ResNet", "'single''s'", '"double"',
    "'1'", "''", "x#y", "é", "日本",
))  # fmt: skip
BLOCK_TEXTS = st.sampled_from(("|\n{0}two\n{0}lines", ">-\n{0}folded\n{0}text"))
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3)
        | st.dictionaries(KEYS, inner, min_size=1, max_size=3)
    ),
    max_leaves=12,
)
DAMAGES = (
    "&x ", "*x", "!t ", "!!str ", "? ", "- ", ": ", ":", "{", "}", "[", "]", ",", "'", '"', "\t",
    "\r", "\n", "\n---\n", "...", "%YAML 1.1\n", "|2\n", ">", " #c", "#", "\\", "<<: ", "@", "`",
    "%A_%a", "a100&nvlink", "\x85", "\u2028", "\ufeff", "\x00",
    "\ud7ff", ".inf", "=", "k: 1\nk: 2\n", " ",
)  # fmt: skip
DAMAGE = st.tuples(st.integers(0, 400), st.sampled_from(DAMAGES))
PIECES = (
    "a: ", "b:", "- ", "{", "}", "[", "]", ", ", ":", " # c", "'x'", '"y: z"', "|\n", ">-\n", "\n",
    "\n  ", "\n    ", "\n- ", "1e-3", "00:10", "x", "-", "---", "...", "&x", "*x", "!t", "é", " ",
    "\r\n", "~", "a:b", "a#b", "\\", "''", "-1", "?", "%",
)  # fmt: skip


def flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(flow, value)) + "]"
    return str(value)


def block(value: Any, indent: str, draw: Callable[..., Any]) -> str:
    """Return lines of block style; inner values may be in flow style, comments stand in between."""
    lines = ""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        head = f"{indent}{key}:" if isinstance(value, dict) else f"{indent}-"
        if draw(st.integers(0, 7)) == 0:
            lines += draw(st.sampled_from(("\n", f"{indent}# a comment\n")))
        if isinstance(item, str) and draw(st.integers(0, 7)) == 0:
            lines += f"{head} {draw(BLOCK_TEXTS).format(indent + '  ')}\n"
        elif isinstance(item, str) or draw(st.booleans()):
            lines += f"{head} {flow(item)}{draw(st.sampled_from(('', '  # why')))}\n"
        else:
            lines += f"{head}\n{block(item, indent + '  ', draw)}"
    return lines


@st.composite
def documents(draw: Callable[..., Any]) -> str:
    """Return the text of a document as people write specs: plain, nested, with comments."""
    value = draw(st.dictionaries(KEYS, VALUES, min_size=1, max_size=4))
    text = draw(st.sampled_from(("", "# a spec\n", "---\n"))) + block(value, "", draw)
    return text.replace("\n", "\r\n") if draw(st.integers(0, 9)) == 0 else text


def contents(document: reader.Document) -> tuple[object, ...]:
    positions = document.positions
    return document.value, positions.values, positions.keys, document.problems


def assert_same(text: str) -> None:
    """Assert that the reader's answer does not depend on which parser it has used."""
    expected = reader._read_with_ruamel(reader._with_whole_lines(text), "a.yaml")
    assert contents(reader.read(text.encode(), "a.yaml")) == contents(expected)


@given(documents())
def test_plain_documents_are_read_by_libyaml_as_ruamel_reads_them(text: str) -> None:
    fast = reader._read_with_libyaml(text, "a.yaml")
    assert fast is not None, "libyaml reads everything that people usually write"
    slow = reader._read_with_ruamel(text, "a.yaml")
    assert contents(fast) == contents(slow)
    json.dumps(fast.value)


@given(documents(), st.lists(DAMAGE, min_size=1, max_size=2))
def test_a_damaged_document_gives_the_same_errors(
    text: str, damages: list[tuple[int, str]]
) -> None:
    for place, damage in damages:
        at = place % (len(text) + 1)
        text = text[:at] + damage + text[at:]
    event(f"problems: {bool(reader.read(text.encode(), 'a.yaml').problems)}")
    assert_same(text)


@given(st.lists(st.sampled_from(PIECES), max_size=10).map("".join))
def test_any_sequence_of_yaml_indicators_is_read_alike(text: str) -> None:
    assert_same(text)


# The smallest documents found that libyaml reads, and reads differently: where a tab may stand,
# what a carriage return ends, what an anchor's name may hold, what may follow the header of a block
# scalar, a quoted key or a document.
DIFFERENT = {
    "a\t": 0,
    "|+\n \r  ": 0,
    "&0:b": 0,
    "- |#": 1,
    '["a":1]': 3,
    "a: 1\n...\n...\n": 5,
    "a:\n  -: 1\n": 6,
}


def only_libyaml(text: str, monkeypatch: pytest.MonkeyPatch) -> reader.Document | None:
    """Return a document as libyaml reads it without regard to what is ambiguous."""
    with monkeypatch.context() as patch:
        patch.setattr(reader, "first_ambiguity", lambda _: None)
        return reader._read_with_libyaml(text, "a.yaml")


@pytest.mark.parametrize(("text", "pattern"), DIFFERENT.items(), ids=map(repr, DIFFERENT))
def test_what_the_parsers_read_differently_is_kept_from_libyaml_by_one_pattern(
    text: str, pattern: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = only_libyaml(text, monkeypatch)
    assert fast is not None
    assert not fast.problems
    assert contents(fast) != contents(reader._read_with_ruamel(text, "a.yaml"))
    patterns = event_parsers._AMBIGUOUS
    assert [n for n, p in enumerate(patterns) if p.search(text)] == [pattern]
    assert not event_parsers._AMBIGUOUS_START.search(text)
    assert_same(text)


def test_line_breaks_that_one_parser_knows_are_kept_from_libyaml(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = "\x851"
    fast = only_libyaml(text, monkeypatch)
    assert fast is not None
    assert contents(fast) != contents(reader._read_with_ruamel(text, "a.yaml"))
    assert event_parsers.first_ambiguity(text) == 0
    assert_same(text)
