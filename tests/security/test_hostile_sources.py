"""Code that a pull request brings is read, and no text of it ends or holds up a validation."""

from __future__ import annotations

import pytest

from mtf.spec.load import load_specs
from mtf.spec.named_code.source_files import EntryKind, SourceFiles
from mtf.spec.schema.settings import parse_settings
from tests.spec.samples import STAMP

SPEC = """\
kind: experiment
experiment_name: one
model: {{type: "nets:Net", {keys}}}
data: {{dataset_name: digits}}
"""
DOTS, SUM = f"a{'.a' * 900}", f"1{'+1' * 900}"
MANY = ", ".join(f"p{i}" for i in range(8_000))
NET = "class Net:\n    def __init__(self, {}): pass\n"


def messages(code: str, keys: str = "zzz: 1") -> list[str]:
    """Return the mistakes in a spec whose model is in this code."""
    files = SourceFiles(
        lambda folder: {} if folder else {"nets.py": EntryKind.FILE},
        lambda _, most: code.encode()[:most],
    )
    texts = {"one.yaml": SPEC.format(keys=keys).encode()}
    found = load_specs(texts, parse_settings(b""), STAMP, code=files)
    return [p.message for p in found.problems]


@pytest.mark.parametrize(
    "code",
    [
        NET.format(f"p: {DOTS}"),
        NET.format(f"p: {SUM} = {SUM}"),
        NET.format("p: " + "a[" * 150 + "b" + "]" * 150),
        f"class Net({DOTS}):\n    x: {SUM}\n",
        f"@{DOTS}\nclass Net: pass\n",
        f"import dataclasses\n@dataclasses.dataclass\nclass Net:\n    p: {DOTS} = {DOTS}\n",
        f"class Meta(type): pass\nclass Net(metaclass={DOTS}): pass\n",
        f"Net = {DOTS}\n",
        "-" * 100_000 + "1\nclass Net: pass\n",
        "(" * 1000 + "\nclass Net: pass\n",
        "class Net: pass\n\0",
    ],
    ids=lambda code: code[:40],
)
def test_expressions_that_are_nested_too_deeply_end_nothing(code: str) -> None:
    assert all(len(message) < 5000 for message in messages(code))


def test_a_class_with_very_many_parameters_makes_short_messages() -> None:
    keys = ", ".join(f"q{i}: 1" for i in range(200))
    found = messages(NET.format(MANY), keys)
    assert len(found) == 201
    assert max(map(len, found)) < 500
    assert "and 7976 more" in found[0]


def test_a_text_that_takes_too_long_to_parse_is_left_alone() -> None:
    """Python 3.11 takes minutes for the first of them."""
    assert messages("x = f'" + "{a}" * 80_000 + "'\n" + NET.format("")) == []
    assert messages("x=1\n" * 100_000 + NET.format("")) == []
    assert messages("x = 1\n" * 20_000 + NET.format("")) != []
