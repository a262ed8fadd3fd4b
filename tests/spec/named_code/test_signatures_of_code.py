"""The keys that classes and functions of the user's take, as far as their source tells them."""

from __future__ import annotations

import pytest

from tests.spec.named_code.test_name_check import DATA, HEAD, files_of, problems

NETS = """
from functools import partial
from typing import Literal, Optional
import torch
from torch import nn

class Base(nn.Module):
    def __init__(self, width=3, *, act: Literal["relu", "gelu"] = "relu"): ...

class Handing(Base):
    def __init__(self, heads, **kwargs):
        super().__init__(**kwargs)

class Twice(Handing):
    def __init__(self, **rest):
        super().__init__(heads=2, **rest)
        self.more = 1

class Placed(Base):
    def __init__(self, depth=1, **kwargs):
        super().__init__(depth, **kwargs)

class Reading(Base):
    def __init__(self, **kwargs):
        self.depth = kwargs.pop("depth", 1)
        super().__init__(**kwargs)

class Dropping(nn.Module):
    def __init__(self, **kwargs):
        super().__init__()

class Sometimes(Base):
    def __init__(self, **kwargs):
        if torch.cuda.is_available():
            super().__init__(**kwargs)

class Outer:
    class Inner(nn.Module):
        def __init__(self, size=1): ...

class Derived(Outer):
    pass

small = partial(Base, width=2)
made = lambda width, depth=1: Base(width)
table = {"a": Base}
later = None

def choose():
    global later
    later = Base
"""


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("Handing, heads: 1, width: 2, act: gelu", None),
        ("Handing, heads: 1, widht: 2", "Handing takes no such key. Did you mean 'width'?"),
        ("Handing, width: 2", "model: Handing needs heads"),
        ("Handing, heads: 1, act: rleu", 'model.act: Handing expects gelu or relu, got "rleu"'),
        ("Twice, width: 2", None),
        ("Twice, heads: 2", "model.heads: Twice takes no such key"),
        ("Placed, depth: 2, act: gelu", None),
        ("Placed, width: 2", "model.width: Placed takes no such key"),
        ("Reading, depth: 2, anything: 3", None),
        ("Dropping, anything: 3", None),
        ("Sometimes, anything: 3", None),
        ("Outer.Inner, size: 2", None),
        ("Outer.Inner, sice: 2", "model.sice: Inner takes no such key. Did you mean 'size'?"),
        ("Outer.Iner", "Outer in lab.py has no 'Iner'. Did you mean 'Inner'?"),
        ("Derived.Anything", None),
        ("small, act: gelu", None),
        ("small, actt: gelu", "model.actt: Base takes no such key. Did you mean 'act'?"),
        ("made, width: 1, depth: 2", None),
        ("made, depth: 2", "model: made needs width"),
        ("table", "'table' in lab.py is a value, not a class or function"),
        ("later", None),
    ],
)
def test_only_keys_that_a_call_would_refuse_are_mistakes(model: str, expected: str | None) -> None:
    name, comma, keys = model.partition(",")
    spec = f"{HEAD}model: {{type: 'lab:{name}'{comma}{keys}}}\n{DATA}"
    found = problems(spec, files_of({"lab.py": NETS}))
    assert (expected or "") in "".join(found)
    assert len(found) == (expected is not None), found


def test_a_star_imports_no_name_with_an_underscore() -> None:
    code = files_of({"lab/__init__.py": "from .nets import *\n", "lab/nets.py": "class _N: ...\n"})
    spec = f"{HEAD}model: {{type: 'lab:_N'}}\n{DATA}"
    assert "lab/__init__.py defines no '_N'" in problems(spec, code)[0]
    listed = files_of(
        {
            "lab/__init__.py": "from .nets import *\n",
            "lab/nets.py": "__all__ = ['_N']\nclass _N: ...\n",
        }
    )
    assert problems(spec, listed) == []


def test_a_callback_that_resembles_a_built_in_one_names_it() -> None:
    spec = f"{HEAD}model: {{type: mlp}}\n{DATA}callbacks: {{early_stoping: {{patience: 3}}}}\n"
    assert problems(spec) == [
        "one.yaml:5:12: callbacks: early_stoping needs a type. Did you mean 'early_stopping'? "
        "Write early_stoping: {type: package.module:Name}"
    ]
