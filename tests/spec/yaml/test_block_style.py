"""What a program gives reads back as the same values, and fast."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mtf.spec.yaml.block_style import in_block_style
from mtf.spec.yaml.event_parsers import first_ambiguity
from mtf.spec.yaml.reader import load_yaml

TEXTS = st.text(max_size=6) | st.sampled_from(
    ["no", "1e-3", "a: b", "- x", "1:30", "null", "~", "#"]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | TEXTS
    | st.floats(allow_nan=False, allow_infinity=False)
)
KEYS = TEXTS | st.from_regex(r"[a-z]{1,3}(\.[a-z]{1,3})?", fullmatch=True)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_values_read_back_as_they_were(value: dict[str, Any]) -> None:
    read, _ = load_yaml(in_block_style(value).encode(), "value")
    assert read == value


def test_a_grid_of_thousands_is_read_by_the_fast_parser() -> None:
    linked = [[{"optimizer.lr": i / 1000, "model.type": "lab:Net"} for i in range(5000)]]
    value = {"kind": "grid", "base": {"slurm": {"time": "00:05:00"}}, "linked": linked}
    text = in_block_style(value)
    assert first_ambiguity(text) is None
    assert load_yaml(text.encode(), "value")[0] == value
