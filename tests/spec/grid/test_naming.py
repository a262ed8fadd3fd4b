"""Names of members: valid as refs and file names, unique, and read back exactly."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf.spec.grid.naming import MAX_BYTES, NameTooLongError, experiment_name, parse_experiment_name
from mtf.spec.schema.text_types import name_problem

TEXT = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(
    ["1", "1.0", "-0.0", "1e3", "true", "null", "NaN", "Infinity", '"x"', "[1]", "a,b=c", "a/b",
     "100%", "%41", "..", ".lock", "x.lock", ".", "-", "~", "@{", " ", "", "ä", "😀", "\x7f"]
)  # fmt: skip
SCALAR = (
    st.none() | st.booleans() | st.integers() | TEXT
    | st.floats(allow_nan=False, allow_infinity=False)
)  # fmt: skip
KEY = st.sampled_from(["optimizer.lr", "model.type", "slurm.variables.A"]) | TEXT
PARAMETERS = st.dictionaries(KEY, SCALAR | st.lists(SCALAR, max_size=3), min_size=1, max_size=3)


def name_of(parameters: dict[str, Any]) -> str:
    return experiment_name("parameters", parameters, 0, 1, "")


def exact(value: object) -> str:
    """Return text that distinguishes 1, 1.0 and true, which are equal in Python."""
    return json.dumps(value, sort_keys=True)


def fits(parameters: dict[str, Any]) -> bool:
    try:
        name_of(parameters)
    except NameTooLongError:
        return False
    return True


@given(PARAMETERS.filter(fits))
def test_a_name_of_parameters_is_read_back_exactly(parameters: dict[str, Any]) -> None:
    name = name_of(parameters)
    assert exact(parse_experiment_name(name)) == exact(parameters)
    assert len(name.encode()) <= MAX_BYTES
    assert name.isascii()
    assert name.isprintable()
    assert "/" not in name


@given(st.lists(PARAMETERS.filter(fits), min_size=2, max_size=2, unique_by=exact))
def test_different_parameters_have_different_names(two: list[dict[str, Any]]) -> None:
    assert name_of(two[0]) != name_of(two[1])
    assert experiment_name("hash", two[0], 0, 2, "") != experiment_name("hash", two[1], 0, 2, "")


def test_a_name_of_parameters_is_readable() -> None:
    values = {"optimizer.lr": 1e-3, "model.hidden_size": 64, "model.type": "mlp", "data.x": [1, 2]}
    name = "optimizer.lr=0.001,model.hidden_size=64,model.type=mlp,data.x=%5B1%2C2%5D"
    assert name_of(values) == name
    assert name_of({"model.type": "64"}) == "model.type=%2264%22"


@pytest.mark.parametrize(
    "value",
    ["..", "...", "a.lock", ".lock", "a.", "@{x}", "~^:?*[\\", "a b", "\n", "ä/ö", "-", "@", "%",
     -0.0, 1e22, None, True, [".."], ".a/.b", "x.lock.lock", "a..lock"],
)  # fmt: skip
def test_every_name_is_a_valid_branch_name(value: object) -> None:
    name = name_of({"model.x": value})
    for ref in (f"refs/heads/{name}", f"refs/heads/x/{name}"):
        subprocess.run(("git", "check-ref-format", ref), check=True)
    subprocess.run(("git", "check-ref-format", "--branch", name), check=True, capture_output=True)


def test_a_name_is_valid_even_if_its_first_key_is_not() -> None:
    assert name_of({".a": 1}) == "%2Ea=1"
    assert name_of({"-a": 1}) == "%2Da=1"


def test_a_name_that_is_too_long_is_refused_with_a_fix() -> None:
    with pytest.raises(
        NameTooLongError, match=r"has 210 bytes, at most 200 are allowed\. Write naming: hash"
    ):
        name_of({"model.x": "y" * 202})


def test_sequential_names_are_padded_so_that_they_sort() -> None:
    assert experiment_name("sequential", {}, 0, 10, "") == "0001"
    assert experiment_name("sequential", {}, 9_999, 10_000, "") == "10000"
    assert experiment_name("sequential", {}, 0, 10_000, "") == "00001"
    assert experiment_name("timestamp", {}, 2, 3, "20250101T120000Z") == "20250101T120000Z-0003"


def test_a_hashed_name_depends_on_the_values_alone() -> None:
    one = experiment_name("hash", {"a": 1, "b": 2}, 0, 1, "")
    assert one == experiment_name("hash", {"b": 2, "a": 1}, 7, 9, "later")
    assert len(one) == 16


def test_a_name_that_was_not_made_from_parameters_is_refused() -> None:
    with pytest.raises(ValueError, match="'0001' has no '='"):
        parse_experiment_name("0001")


@pytest.mark.parametrize("name", ["a", "0", "a.b", "A_b-c.d", "x" * 100, "a.locked", "a.lock.b"])
def test_valid_experiment_names_are_accepted(name: str) -> None:
    assert name_problem(name) is None


@pytest.mark.parametrize(
    "name", ["", ".a", "-a", "_a", "a/b", "a b", "a..b", "a.", "a.lock", "ä", "x" * 101, "a\n"]
)
def test_invalid_experiment_names_are_refused(name: str) -> None:
    assert name_problem(name)


@given(st.text(st.sampled_from("ab1._-"), min_size=1, max_size=8))
def test_every_valid_experiment_name_is_a_valid_ref_component(name: str) -> None:
    if name_problem(name) is None:
        assert not name.startswith((".", "-"))
        assert ".." not in name
        assert not name.endswith((".", ".lock"))
