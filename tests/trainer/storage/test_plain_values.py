"""A state comes back from a file as it was, whatever numbers and containers it holds."""

from __future__ import annotations

import datetime
import decimal
import enum
import fractions
import io
import pathlib
import random
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from mtf.errors import MtfError
from mtf.trainer.storage.plain_values import KINDS, find_unreadable, restored, simplified

if TYPE_CHECKING:
    from collections.abc import Callable


class Colour(enum.Enum):
    RED = "red"


class Bits(enum.IntFlag):
    A = 1
    B = 2


class Point(NamedTuple):
    x: int
    y: Any


@dataclass(frozen=True)
class Frozen:
    x: int
    y: Any


@dataclass(slots=True)
class Slotted:
    x: Any


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state as a resume reads it."""
    file = io.BytesIO()
    torch.save(simplified(state), file)
    file.seek(0)
    return restored(torch.load(file, weights_only=True))


def frozen(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    array.flags.writeable = False
    return array


# their text says type and value
PLAIN = [
    np.float64(0.1),
    np.float32(0.1),
    np.float16(0.1),
    np.longdouble("0.1"),
    np.int64(-3),
    np.uint64(2**63 + 5),
    np.bool_(True),
    np.complex64(1 + 2j),
    np.str_("text"),
    np.bytes_(b"bytes"),
    np.datetime64("2025-01-01", "ns"),
    np.timedelta64(5, "s"),
    np.dtype("float32"),
    float("nan"),
    2**200,
    (1, [2, {"a": np.float32(1)}]),
    Colour.RED,
    Bits.A | Bits.B,
    Point(1, np.float32(2)),
    Frozen(1, {"recent": deque([1, 2], maxlen=3)}),
    Slotted((2, np.int8(3))),
    defaultdict(list, {"a": [1]}),
    defaultdict(None, {np.int64(3): 1}),
    {Colour.RED: 1, Point(1, 2): 2, (1, "a"): 3},
    OrderedDict(b=np.float32(1), a=2),
    Counter("aab"),
    deque([np.float16(1)]),
    {1, 2},
    {np.float32(1)},
    frozenset("a"),
    range(1, 9, 2),
    slice(1, None),
    pathlib.Path("/data"),
    pathlib.PureWindowsPath("C:/data"),
    datetime.datetime(2025, 1, 2, 3, 4, 5, 6, tzinfo=datetime.UTC),
    datetime.date(2025, 1, 2),
    datetime.time(3, 4),
    datetime.timedelta(1, 2, 3),
    decimal.Decimal("0.10"),
    fractions.Fraction(1, 3),
    uuid.UUID(int=5),
    torch.Size([1, 2]),
    torch.bfloat16,
    torch.device("cpu"),
    bytearray(b"bytes"),
]


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: type(value).__name__)
def test_a_value_comes_back_as_it_was(value: Any) -> None:
    back = through_a_file({"callbacks": {"own": [value]}})["callbacks"]["own"][0]
    assert type(back) is type(value)
    assert repr(back) == repr(value)


ARRAY = np.arange(6.0).reshape(2, 3)


@pytest.mark.parametrize(
    "array",
    [
        ARRAY,
        np.asfortranarray(ARRAY),
        ARRAY[::-1],
        frozen(np.arange(3)),
        np.arange(3, dtype=">f4"),
        np.arange(3, dtype=np.uint16),
        np.zeros((0, 3)),
        np.array(5.0),
        np.array(["a", "bc"]),
        np.array(["2025-01-01"], dtype="M8[D]"),
        np.array([1, [2], np.float32(3)], dtype=object),
        np.zeros(2, dtype=[("a", "i4"), ("b", "f8")]),
        np.arange(2000),  # its text leaves numbers out
    ],
    ids=lambda array: f"{array.dtype} {array.shape}",
)
def test_an_array_comes_back_as_it_was(array: np.ndarray[Any, Any]) -> None:
    back = through_a_file({"a": array})["a"]
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert back.tolist() == array.tolist()
    back[...] = back  # it can be written to


@pytest.mark.parametrize(
    ("generator", "draw"),
    [
        (np.random.default_rng(3), lambda g: g.random()),
        (np.random.Generator(np.random.MT19937(3)), lambda g: g.random()),
        (np.random.RandomState(3), lambda g: g.normal()),
        (random.Random(3), lambda g: g.gauss(0, 1)),
        (torch.Generator().manual_seed(3), lambda g: torch.rand(1, generator=g).item()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_generator_goes_on_with_the_same_numbers(
    generator: Any, draw: Callable[[Any], float]
) -> None:
    draw(generator)
    back = through_a_file({"generator": generator})["generator"]
    assert [draw(back) for _ in range(3)] == [draw(generator) for _ in range(3)]


def test_numbers_and_arrays_are_numbers_and_tensors_in_the_file() -> None:
    plain = simplified({"lr": np.float32(0.5), "history": ARRAY, "seen": deque([1])})
    assert type(plain["lr"]) is float
    assert plain["lr"] == 0.5
    assert torch.equal(plain["history"], torch.from_numpy(ARRAY))
    assert plain["seen"] == [1]


def test_no_tensor_and_no_array_is_copied() -> None:
    tensor, array = torch.zeros(3), np.zeros(3)
    plain = simplified({"a": {"tensor": tensor, "array": array}})
    assert plain["a"]["tensor"] is tensor
    assert plain["a"]["array"].data_ptr() == array.ctypes.data


def test_a_plain_state_is_not_touched() -> None:
    model = nn.BatchNorm1d(2).state_dict()
    state = {"model": model, "groups": [{"lr": 0.1, "betas": (0.9, 0.99)}], "text": None}
    assert simplified(state) is state
    assert restored(state) == state


def test_the_versions_of_modules_stay_beside_a_converted_state() -> None:
    model: Any = nn.BatchNorm1d(2).state_dict()
    model["_extra_state"] = np.float32(1)
    back = through_a_file({"model": model})["model"]
    assert back["_extra_state"] == np.float32(1)
    assert back._metadata == model._metadata


def test_a_parameter_without_a_shape_comes_back_without_one() -> None:
    back = through_a_file({"model": dict(nn.LazyLinear(3).state_dict())})["model"]
    assert isinstance(back["weight"], nn.UninitializedParameter)


class Other:
    pass


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Other(), "tests.trainer.storage.test_plain_values.Other"),
        (lambda: 0, "function"),
        (np.ma.array([1], mask=[True]), "numpy.ma.MaskedArray"),
        (defaultdict(lambda: 0), "collections.defaultdict"),
        (nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
        (int, "type"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_cannot_be_saved_is_refused_by_its_key(value: Any, words: str) -> None:
    with pytest.raises(MtfError) as raised:
        simplified({"callbacks": {"own": {"seen": [1, value]}}})
    assert f"callbacks/own/seen/1 is of type {words}, which no resume" in str(raised.value)


def test_a_class_inside_of_a_function_is_refused_with_the_cure() -> None:
    class Local(enum.Enum):
        A = 1

    with pytest.raises(MtfError, match="Define that class at the top level of a module"):
        simplified({"state": Local.A})


def test_a_class_that_is_gone_is_named_with_its_key() -> None:
    plain = simplified({"own": {"mode": Colour.RED}})
    ((place, ((name, module, _),)),) = plain[KINDS].items()
    plain[KINDS][place] = ((name, module, "Color"),)
    with pytest.raises(MtfError, match="a value at own/mode that cannot be made again here"):
        restored(plain)


def test_no_table_of_kinds_makes_anything_but_values_of_a_class() -> None:
    for kind in (("Enum", "os", "system"), ("dataclass", "subprocess", "Popen"), ("exec",)):
        with pytest.raises(MtfError, match="cannot be made again"):
            restored({"a": "true", KINDS: {("a",): (kind,)}})


def test_the_innermost_unreadable_value_is_found() -> None:
    state = {"model": {"w": torch.zeros(2)}, "own": [1, {"x": Other()}]}
    assert find_unreadable(state) == "own/1/x"
    assert find_unreadable({"model": {"w": torch.zeros(2)}}) is None
