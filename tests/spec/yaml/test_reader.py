"""The YAML reader: values, positions, and what it refuses."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf.errors import SpecError
from mtf.spec.yaml.reader import MAX_BYTES, MAX_SLOW_BYTES, load_yaml, read

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=12,
)  # fmt: skip


def problems(raw: bytes) -> list[str]:
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


def test_values_and_keys_have_positions() -> None:
    _, positions = load_yaml(b"a: 1\r\nb:\r\n  - {c: 2}\r\n", "a.yaml")
    assert positions.value(("a",)) == (1, 4)
    assert positions.key(("b",)) == (2, 1)
    assert positions.key(("b", 0, "c")) == (3, 6)
    assert positions.value(("b", 0, "c")) == (3, 9)
    assert positions.value(("b", 0, "missing")) == (3, 5), (
        "a missing value has the position of what is around it"
    )


def test_a_byte_order_mark_is_ignored() -> None:
    assert load_yaml(b"\xef\xbb\xbfa: 1", "a.yaml")[0] == {"a": 1}


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"a: &x 1\nb: *x\n", "a.yaml:2:4: the alias *x is not allowed. Write the value again"),
        (b"a: !!python/object:os.x {}\n", "a.yaml:1:4: the tag tag:yaml.org,2002:python/object:"
         "os.x is not allowed. Remove it"),
        (b"a: !!str 1\n", "a.yaml:1:4: the tag tag:yaml.org,2002:str is not allowed. Remove it"),
        (b"a: 1\n<<: {b: 2}\n", "a.yaml:2:1: the merge key << is not allowed. Write the keys out"),
        (b"a: 1\nb: {c: 1, c: 2}\n", "a.yaml:2:11: duplicate key 'c', first used in line 2. Remove one"),
        (b"1: a\n", "a.yaml:1:1: the key 1 is not text. Put it in quotes"),
        (b"true: a\n", "a.yaml:1:1: the key true is not text. Put it in quotes"),
        (b"? [1]\n: a\n", "a.yaml:1:3: a list or a mapping cannot be a key. Keys are text"),
        (b"%YAML 1.1\n---\na: no\n", "a.yaml:1:1: %YAML and %TAG are not allowed. "
         "Remove the line"),
        (b"a: 1\n---\nb: 1\n", "a.yaml:2:1: a second document begins here. Put it in its own file"),
        (b"a: .nan\n", "a.yaml:1:4: expected a finite number, got .nan"),
        (b'a: "\\ud800"\n', "a.yaml:1:4: an escape like \\ud800 needs the second half of its "
         "surrogate pair"),
        (b"a: \xff\n", "a.yaml:1:4: not UTF-8 text. Save the file as UTF-8"),
        (b"a: 1\nb: \x00\n", "a.yaml:2:4: the character U+0000 is not allowed in YAML. Remove it"),
        (b"a: b: c\n", "a.yaml:1:5: invalid YAML: mapping values are not allowed here"),
        (b"a: [1\n", "a.yaml:2:1: invalid YAML: expected ',' or ']', but got '<stream end>' "
         "(while parsing a flow sequence that begins in line 1)"),
        (b"a:\n\t- 1\n", "a.yaml:2:1: invalid YAML: found character '\\t' that cannot start any token "
         "(while scanning for the next token)"),
        (b"# x\n\n%YAML 1.3\n---\n", "a.yaml:3:1: %YAML and %TAG are not allowed. Remove the line"),
        (b"a: 1\n...\n%YAML 1.3\n---\n", "a.yaml:2:1: invalid YAML: the parser cannot read on from here "
         "(version minor part can only be 2 or 1, got (1, 3))"),
        (b"a: " + b"9" * 5000, "a.yaml:1:4: the integer 99999999999999999999... is not in the range of "
         "64 bits"),
        (b"a: -0x" + b"f" * 40, "a.yaml:1:4: the integer -0xfffffffffffffffff... is not in the range of "
         "64 bits"),
        (b"a: 18446744073709551616", "a.yaml:1:4: the integer 18446744073709551616... is not in the range "
         "of 64 bits"),
        (b"a: +_", 'a.yaml:1:4: "+_" is not a valid number'),
        (b"a: 1e999", "a.yaml:1:4: expected a finite number, got 1e999"),
        (b"? " + b"b" * 1025 + b"\n: 1", "a.yaml:1:3: the key " + "b" * 40 + "... has 1,025 characters, at most "
         "1,024 are allowed. Shorten it"),
        (b"a: [x]#y\n", "a.yaml:2:1: invalid YAML: a comment before this place has no space before its #"),
        (b"a: [x,#y\n z]\n", "a.yaml:2:2: invalid YAML: a comment before this place has no space before its #"),
        (b"a: [-]\n", "a.yaml:1:5: invalid YAML: a lone dash. Put it in quotes"),
        (b"a: {?b: 1}\n", "a.yaml:1:6: invalid YAML: a value that begins with ?. Put it in quotes, or a "
         "space after the ?"),
        ("a: 1".encode("utf-16"), "a.yaml:1:1: not UTF-8 text. Save the file as UTF-8"),
        (b"[" * 100_000, "a.yaml:1:52: nested deeper than 50 levels"),
        (b"- 1\n" * 60_000, "a.yaml:50000:3: more than 50,000 values. Split the file"),
        (b"#" * (MAX_BYTES + 1), "a.yaml:1:1: the file has more than 1,048,576 bytes, which is too large. Split it"),
    ],
)  # fmt: skip
def test_what_a_reviewer_could_misread_is_refused_at_its_position(raw: bytes, problem: str) -> None:
    assert problems(raw) == [problem]


def test_all_mistakes_of_a_file_are_reported_at_once() -> None:
    document = read(b"a: &x 1\nb: *x\na: 2\nc: !t 3\n4: d\n", "a.yaml")
    assert [(p.line, p.column) for p in document.problems] == [(2, 4), (3, 1), (4, 4), (5, 1)]
    assert document.value["a"] == 1, "the first of two keys counts while the rest is checked"


def test_load_yaml_raises_every_problem() -> None:
    with pytest.raises(SpecError, match=r"a\.yaml:2:1: duplicate key 'a'"):
        load_yaml(b"a: 1\na: 2\n", "a.yaml")


@given(st.binary(max_size=60) | st.text(st.sampled_from("a:-{}[]*&!%#'\"|>?,\n \t<"), max_size=40))
def test_no_bytes_make_the_reader_fail(raw: bytes | str) -> None:
    document = read(raw if isinstance(raw, bytes) else raw.encode(), "a.yaml")
    assert document.problems or document.value is None or json.dumps(document.value)


@given(st.from_regex(r"[-+]?[0-9._][0-9a-fxobEeInN_.+-]{0,7}", fullmatch=True))
def test_plain_scalars_are_numbers_exactly_where_ruamel_reads_numbers(word: str) -> None:
    import ruamel.yaml

    try:
        theirs = ruamel.yaml.YAML(typ="safe", pure=True).load(f"[{word}, 0]")[0]
    except ValueError:
        theirs = word  # like "+_": reported
    ours = read(f"[{word}, 0]".encode(), "a.yaml").value[0]
    if ours not in (theirs, word):
        assert not -1e308 < theirs < 1e308, "infinite: reported, and read as 0"


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        ("b: [1", "invalid YAML"),
        ("b: &x 1", "can be read only in files of at most 50,000 bytes"),
        ("b: 1\nb: 2", "duplicate key 'b'"),
    ],
)
def test_large_files_are_refused_without_the_slow_parser(tail: str, message: str) -> None:
    lines = "".join(f"k{i}: [1, 2]\n" for i in range(12_000))
    assert len(lines) > MAX_SLOW_BYTES
    (problem,) = problems(f"{lines}{tail}\n".encode())
    assert message in problem
    assert int(problem.split(":")[1]) > 12_000
