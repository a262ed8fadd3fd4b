"""References between keys: the same values as OmegaConf gives, with a bound on the work."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import ConfigTypeError, OmegaConfBaseException

from mtf.spec.compose.interpolations import InterpolationError, parse, refused
from mtf.spec.compose.references import TreeError, resolved
from mtf.spec.compose.tree import merged

KEYS = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(KEYS | st.sampled_from(["0", "1"]), min_size=1, max_size=3).map(".".join)
REFERENCES = st.builds("${{{}{}}}".format, st.sampled_from(["", "", ".", ".."]), PATHS)
TEXTS = st.lists(REFERENCES | st.sampled_from(["x", " ", "$", "-"]), min_size=1, max_size=3)
LEAVES = st.none() | st.booleans() | st.integers(-9, 9) | st.just("plain") | TEXTS.map("".join)


def trees(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return a strategy for configurations with these values."""

    def containers(inside: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        mappings = st.dictionaries(KEYS, inside, min_size=1, max_size=3)
        return st.lists(inside, max_size=2) | mappings

    return st.dictionaries(KEYS, st.recursive(leaves, containers, max_leaves=6), min_size=1)


TREES = trees(LEAVES)
PLAIN_TREES = trees(st.none() | st.integers(-9, 9) | st.sampled_from(["plain", "???"]))


def ours(tree: dict[str, Any]) -> Any:
    try:
        return resolved(tree)
    except TreeError:
        return None


def theirs(tree: dict[str, Any]) -> Any:
    try:
        return OmegaConf.to_container(OmegaConf.create(tree), resolve=True)
    except (OmegaConfBaseException, RecursionError):
        return None


@settings(max_examples=200)
@given(TREES)
def test_a_tree_resolves_as_omegaconf_resolves_it(tree: dict[str, Any]) -> None:
    mine, other = ours(tree), theirs(tree)
    if mine is not None:
        assert mine == other
    elif other is not None:  # refused here alone: containers within a text, and what they contain
        assert "{" in str(other) or "[" in str(other), other


@settings(max_examples=100)
@given(PLAIN_TREES, PLAIN_TREES)
def test_trees_merge_as_omegaconf_merges_them(under: dict[str, Any], over: dict[str, Any]) -> None:
    try:
        both = OmegaConf.merge(OmegaConf.create(under), OmegaConf.create(over))
    except ConfigTypeError:
        with pytest.raises(TreeError):
            merged(under, over)
    else:
        assert merged(under, over) == OmegaConf.to_container(both)


@pytest.mark.parametrize("old", ["${c}", [1]])
def test_a_mapping_is_not_merged_into_something_else(old: Any) -> None:
    with pytest.raises(TreeError, match="Keep one of them") as caught:
        merged({"a": {"b": old}}, {"a": {"b": {"d": 1}}})
    assert caught.value.loc == ("a", "b")


def test_a_reference_may_lead_through_another_one_and_into_lists() -> None:
    tree = {
        "model": {"width": 8, "same": "${.width}", "up": "${..data.sizes[1]}"},
        "data": {"sizes": [1, 2]},
        "copy": "${model}",
        "through": "${copy.same}",
        "text": "w${through}/${data.sizes.0}/${none}/${yes}",
        "none": None,
        "yes": True,
    }
    value = resolved(tree)
    assert value["model"] == {"width": 8, "same": 8, "up": 2}
    assert value["copy"] == value["model"]
    assert value["through"] == 8
    assert value["text"] == "w8/1/None/True"


def test_what_has_no_interpolation_is_not_copied() -> None:
    tree = {"a": {"big": list(range(9))}, "b": {"c": "${a.big.3}"}}
    value = resolved(tree)
    assert value["a"] is tree["a"]
    assert value["b"] == {"c": 3}


@pytest.mark.parametrize(
    ("tree", "loc", "words"),
    [
        ({"a": "${b}", "b": "${a}"}, ("b",), "leads back to itself"),
        ({"a": {"b": "${a}"}}, ("a", "b"), "leads back to itself"),
        ({"a": "${b.c}", "b": 1}, ("a",), "'b.c' not found"),
        ({"a": ["${..b}"]}, ("a", 0), "'..b' not found"),
        ({"a": "${...b}"}, ("a",), "above the root"),
        ({"a": "${b}", "b": "???"}, ("a",), "is missing"),
        ({"a": "x${b}", "b": {"c": 1}}, ("a",), "b is a mapping"),
        ({"a": "x${b}", "b": [1]}, ("a",), "b is a list"),
    ],
)
def test_a_reference_without_a_value_is_an_error_at_its_place(
    tree: dict[str, Any], loc: tuple[str | int, ...], words: str
) -> None:
    with pytest.raises(TreeError, match=words) as caught:
        resolved(tree)
    assert caught.value.loc == loc


def levels(number: int, make: Any, first: Any) -> dict[str, Any]:
    return {"b0": first, **{f"b{i}": make(f"${{b{i - 1}}}") for i in range(1, number)}}


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        (levels(60, lambda r: r * 10, "x" * 10), "a text of more than 10,000 characters"),
        (levels(60, lambda r: [r] * 10, [1]), "too large"),
        (levels(60, lambda r: {"p": r, "q": r}, {"x": 1}), "too large"),
        (levels(60, lambda r: {"p": r}, {"x": 1}), "too large"),  # one value, but deeply nested
        ({"a": "x" * 9_000, "b": ["${a}"] * 200}, "too large"),
        ({f"b{i}": f"${{b{i + 1}}}" for i in range(5000)}, "too many references"),
    ],
    ids=["texts", "lists", "mappings", "depth", "one long text", "chain"],
)
def test_references_cannot_make_more_than_is_allowed(tree: dict[str, Any], words: str) -> None:
    with pytest.raises(TreeError, match=words):
        resolved(tree)


@pytest.mark.parametrize(
    "text",
    [
        "${oc.env:HOME}",
        "${ oc.env : HOME }",
        "a ${b} ${oc.env:HOME,x} c",
        "${oc.decode:'1'}",
        "${oc.create:{a:1}}",
        "${oc.select:a}",
        "${oc.dict.keys:a}",
        "${now:%Y}",
        "${x:}",
        "${:}",
        "${oc.${a}:HOME}",
        "${${a}:HOME}",
        "${${a}}",
        "${a.${b}}",
        "${a[${b}]}",
        "${oc.env:${oc.env:${a}}}",
        "${",
        "${}",
        "${a",
        "${a}${",
        "${" * 300,
        "${a:" * 200 + "}" * 200,
        "${a}" * 300,
    ],
)
def test_everything_but_a_reference_is_refused(text: str) -> None:
    with pytest.raises(InterpolationError):
        parse(text)
    assert [loc for loc, _ in refused({"k": [text]})] == [("k", 0)]


@settings(max_examples=200)
@given(st.text(st.sampled_from("${}[]:.,'\"\\ abo_0-\n\u00e9\0"), max_size=40).map("${".__add__))
def test_any_text_is_references_or_refused(text: str) -> None:
    try:
        references = parse(text).references
    except InterpolationError:
        return
    assert ":" not in "".join(map(str, references))


def test_the_whole_of_a_file_s_interpolations_is_bounded() -> None:
    found = list(refused({"k": [f"${{a}}{i}" for i in range(50_000)]}))
    assert len(found) == 1
    assert "more than 20,000 characters" in found[0][1]
