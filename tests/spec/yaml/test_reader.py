"""YAML bytes to JSON values, and the places of what must not be in a spec."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf.errors import SpecError
from mtf.spec.yaml import reader
from mtf.spec.yaml.reader import MAX_BYTES, MAX_CAREFUL_BYTES, load_yaml, read

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=12,
)  # fmt: skip


def told(raw: bytes) -> list[str]:
    return [str(problem) for problem in read(raw, "a.yaml").problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1e-4", 1e-4),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("12:30:45", "12:30:45"),
        ("00:10:00", "00:10:00"),
        ("2024-01-02", "2024-01-02"),
        ("010", 10),
        ("'12'", "12"),
        ("~", None),
        ("", None),
    ],
)
def test_scalars_are_read_as_yaml_1_2(text: str, value: object) -> None:
    read_value = read(f"a: {text}".encode(), "a.yaml").value["a"]
    assert read_value == value
    assert type(read_value) is type(value)


@given(JSON)
def test_json_reads_back_as_it_is(value: object) -> None:
    document = read(json.dumps({"a": value}).encode(), "a.yaml")
    assert not document.problems
    assert document.value == {"a": value}


def test_values_and_keys_have_their_places() -> None:
    _, positions = load_yaml(b"a: 1\r\nb:\r\n  - {c: 2}\r\n", "a.yaml")
    assert positions.value(("a",)) == (1, 4)
    assert positions.key(("b",)) == (2, 1)
    assert positions.key(("b", 0, "c")) == (3, 6)
    assert positions.value(("b", 0, "c")) == (3, 9)
    assert positions.value(("b", 0, "missing")) == (3, 5), "what is not there is told around it"


def test_a_byte_order_mark_is_passed_over() -> None:
    assert load_yaml(b"\xef\xbb\xbfa: 1", "a.yaml")[0] == {"a": 1}


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"a: &x 1\nb: *x\n", "a.yaml:2:4: the alias *x is not allowed: write the value again"),
        (b"a: !!python/object:os.x {}\n", "a.yaml:1:4: the tag tag:yaml.org,2002:python/object:"
         "os.x is not allowed"),
        (b"a: !!str 1\n", "a.yaml:1:4: the tag tag:yaml.org,2002:str is not allowed"),
        (b"a: 1\n<<: {b: 2}\n", "a.yaml:2:1: the merge key << is not allowed: write the keys out"),
        (b"a: 1\nb: {c: 1, c: 2}\n", "a.yaml:2:11: the key 'c' stands twice, first in line 2"),
        (b"1: a\n", "a.yaml:1:1: the key 1 is not text: put it in quotes"),
        (b"true: a\n", "a.yaml:1:1: the key true is not text: put it in quotes"),
        (b"? [1]\n: a\n", "a.yaml:1:3: a list or a mapping cannot be a key"),
        (b"%YAML 1.1\n---\na: no\n", "a.yaml:2:1: %YAML and %TAG lines are not allowed: "
         "the file is YAML 1.2"),
        (b"a: 1\n---\nb: 1\n", "a.yaml:2:1: a second document: a file holds one"),
        (b"a: .nan\n", "a.yaml:1:4: .nan is not a usable number: infinity and nan have no JSON"),
        (b'a: "\\ud800"\n', "a.yaml:1:4: half of a surrogate pair is not text"),
        (b"a: \xff\n", "a.yaml:1:4: not UTF-8 text. Save the file as UTF-8"),
        (b"a: 1\nb: \x00\n", "a.yaml:2:4: the character U+0000 is not allowed in YAML"),
        (b"a: b: c\n", "a.yaml:1:5: not YAML: mapping values are not allowed here"),
        (b"a: [1\n", "a.yaml:2:1: not YAML: expected ',' or ']', but got '<stream end>' "
         "(while parsing a flow sequence that begins in line 1)"),
        (b"a:\n\t- 1\n", "a.yaml:2:1: not YAML: found character '\\t' that cannot start any token "
         "(while scanning for the next token)"),
        (b"a: " + b"9" * 5000, 'a.yaml:1:4: "' + "9" * 40 + '" is not a usable number'),
        (b"[" * 100_000, "a.yaml:1:52: nested deeper than 50 levels"),
        (b"- 1\n" * 60_000, "a.yaml:50000:3: more than 50,000 values"),
        (b"#" * (MAX_BYTES + 1), "a.yaml:1:1: larger than 1,048,576 bytes"),
    ],
)  # fmt: skip
def test_what_a_reviewer_could_misread_is_told_where_it_stands(raw: bytes, problem: str) -> None:
    assert told(raw) == [problem]


def test_all_mistakes_of_a_file_are_told_at_once() -> None:
    document = read(b"a: &x 1\nb: *x\na: 2\nc: !t 3\n4: d\n", "a.yaml")
    assert [(p.line, p.column) for p in document.problems] == [(2, 4), (3, 1), (4, 4), (5, 1)]
    assert document.value["a"] == 1, "the first of two keys counts while the rest is checked"


def test_load_yaml_raises_them_all() -> None:
    with pytest.raises(SpecError, match=r"a\.yaml:2:1: the key 'a' stands twice"):
        load_yaml(b"a: 1\na: 2\n", "a.yaml")


@given(st.binary(max_size=60) | st.text(st.sampled_from("a:-{}[]*&!%#'\"|>?,\n \t<"), max_size=40))
def test_no_bytes_make_the_reader_fail(raw: bytes | str) -> None:
    document = read(raw if isinstance(raw, bytes) else raw.encode(), "a.yaml")
    assert document.problems or document.value is None or json.dumps(document.value)


PIECES = (
    "a: ", "b:", "- ", "{", "}", "[", "]", ", ", ":", " # c", "'x'", '"y: z"', "|\n", ">-\n", "\n",
    "\n  ", "\n    ", "\n- ", "1e-3", "00:10", "x", "-", "---", "...", "&x", "*x", "!t", "é", " ",
    "\r\n", "~", "a:b", "a#b", "\\", "''", "-1", "?", "%",
)  # fmt: skip


def known(document: reader.Document) -> tuple[object, ...]:
    return document.value, document.positions.values, document.positions.keys


@given(st.lists(st.sampled_from(PIECES), max_size=10).map("".join))
def test_the_quick_parser_reads_what_it_reads_as_the_other_one_does(text: str) -> None:
    quick = reader._read_quickly(text, "a.yaml")
    if quick is None or quick.problems:
        return  # the other one says
    careful = reader._read_carefully(text, "a.yaml")
    assert known(quick) == known(careful)
    assert not careful.problems


def test_plain_specs_are_read_by_the_quick_parser() -> None:
    text = (
        "# a spec\nmodel: {type: mlp, sizes: [1, -2]}\nnote: |\n  two\n  lines\n"
        "optimizer:\n  lr: 1e-3  # a number\n  betas:\n    - 0.9\ntime: '00:10:00'\r\n"
    )
    quick = reader._read_quickly(text, "a.yaml")
    assert quick is not None
    careful = reader._read_carefully(text, "a.yaml")
    assert known(quick) == known(careful)


@given(st.from_regex(r"[-+]?[0-9._][0-9a-fxobEeInN_.+-]{0,7}", fullmatch=True))
def test_words_are_numbers_where_ruamel_takes_them_for_numbers(word: str) -> None:
    import ruamel.yaml

    try:
        theirs = ruamel.yaml.YAML(typ="safe", pure=True).load(f"[{word}, 0]")[0]
    except ValueError:
        theirs = word  # like "+_": told
    ours = read(f"[{word}, 0]".encode(), "a.yaml").value[0]
    if ours not in (theirs, word):
        assert not -1e308 < theirs < 1e308, "infinite: told, and 0 in its place"


@pytest.mark.parametrize(
    ("tail", "told_so"),
    [
        ("b: [1", "not YAML"),
        ("b: &x 1", "needs a slow reader, which takes 50,000 bytes"),
        ("b: 1\nb: 2", "the key 'b' stands twice"),
    ],
)
def test_large_files_are_told_of_without_the_slow_parser(tail: str, told_so: str) -> None:
    lines = "".join(f"k{i}: [1, 2]\n" for i in range(12_000))
    assert len(lines) > MAX_CAREFUL_BYTES
    (problem,) = told(f"{lines}{tail}\n".encode())
    assert told_so in problem
    assert int(problem.split(":")[1]) > 12_000
