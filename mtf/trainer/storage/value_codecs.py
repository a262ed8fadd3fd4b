"""How values of numpy, of the standard library and of plain classes are saved and made again.

A codec turns a value into a kind and an inner value; ``decoded`` makes the value of both. A kind is
a name, and what else it takes to make the value. No constructor of a user's class is called, and no
module is imported: the class must be there.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import fractions
import pathlib
import random
import sys
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from enum import Enum, Flag
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

if TYPE_CHECKING:
    from collections.abc import Callable

Kind = tuple[Any, ...]  # its name, then plain values

_TORCH_DTYPES = frozenset("?bBhHiIlLqQefdFD")  # numpy's characters of the types that torch has
_FACTORIES = {f.__name__: f for f in (int, float, str, bool, list, dict, set, tuple, deque)}


def codec_of(value: Any) -> Callable[[Any], tuple[Kind, Any]] | None:
    """Return the codec of a value, None where there is none."""
    cls = type(value)
    if (found := _BY_TYPE.get(cls)) is not None:
        return found if cls is not defaultdict or _has_known_factory(value) else None
    if isinstance(value, np.generic):
        return _numpy_scalar
    if isinstance(value, np.dtype):
        return _dtype
    if isinstance(value, datetime.datetime | datetime.time):
        return _time if type(value.tzinfo) in (type(None), datetime.timezone) else None
    return _codec_of_class(cls) if _class_at(cls.__module__, cls.__qualname__) is cls else None


def _codec_of_class(cls: type) -> Callable[[Any], tuple[Kind, Any]] | None:
    """Return the codec of a class that other processes can find by its name."""
    if issubclass(cls, Enum):
        return _enum
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return _named_tuple
    return _dataclass if dataclasses.is_dataclass(cls) else None


def decoded(kind: Kind, inner: Any) -> Any:
    """Return the value that a codec has turned into a kind and an inner value.

    Raises:
        LookupError: its class is not there.
        AttributeError: likewise.
        TypeError: its class has changed.
        ValueError: likewise.
    """
    name, *more = kind
    return _DECODERS[name](inner, *more)


# -- numpy -----------------------------------------------------------------------------------------


def _numpy_scalar(value: np.generic) -> tuple[Kind, Any]:
    plain = value.item()
    if type(plain) in (bool, int, float, complex, str, bytes) and value.dtype.kind not in "mM":
        return ("numpy scalar", value.dtype.str), plain
    (_, *kind), raw = _array_of_bytes(np.asarray(value))
    return ("numpy value", *kind), raw


def _array(value: np.ndarray[Any, Any]) -> tuple[Kind, Any]:
    if value.dtype.hasobject:
        return ("numpy objects", value.shape), value.ravel().tolist()
    if value.dtype.char not in _TORCH_DTYPES or not value.dtype.isnative:
        return _array_of_bytes(value)
    if any(stride < 0 for stride in value.strides) or not value.flags.writeable:
        value = value.copy()  # torch shares the memory of any other array
    return ("numpy array", value.dtype.str), torch.from_numpy(np.asarray(value))


def _array_of_bytes(value: np.ndarray[Any, Any]) -> tuple[Kind, Any]:
    descr = np.lib.format.dtype_to_descr(value.dtype)
    return ("numpy bytes", descr, value.shape), value.tobytes()


def _from_array(inner: torch.Tensor, dtype: str) -> np.ndarray[Any, Any]:
    return inner.numpy().astype(dtype, copy=False)


def _from_objects(inner: list[Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    array = np.empty(len(inner), dtype=object)
    for index, part in enumerate(inner):  # an assignment of all would look into sequences
        array[index] = part
    return array.reshape(shape)


def _from_bytes(inner: bytes, descr: Any, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    dtype = np.lib.format.descr_to_dtype(descr)
    return np.frombuffer(bytearray(inner), dtype=dtype).reshape(shape)


def _dtype(value: np.dtype[Any]) -> tuple[Kind, Any]:
    return ("numpy dtype",), np.lib.format.dtype_to_descr(value)


# -- generators ------------------------------------------------------------------------------------


def _numpy_generator(value: np.random.Generator) -> tuple[Kind, Any]:
    return ("numpy generator",), value.bit_generator.state


def _from_numpy_generator(inner: dict[str, Any]) -> np.random.Generator:
    bits = getattr(np.random, inner["bit_generator"])
    if not issubclass(bits, np.random.BitGenerator):
        raise TypeError(f"{bits} is no generator")
    generator = np.random.Generator(bits())
    generator.bit_generator.state = inner
    return generator


def _random_state(value: np.random.RandomState) -> tuple[Kind, Any]:
    return ("numpy RandomState",), value.get_state(legacy=False)


def _from_random_state(inner: dict[str, Any]) -> np.random.RandomState:
    state = np.random.RandomState()
    state.set_state(inner)
    return state


def _python_generator(value: random.Random) -> tuple[Kind, Any]:
    return ("Random",), value.getstate()


def _from_python_generator(inner: tuple[Any, ...]) -> random.Random:
    generator = random.Random()  # noqa: S311 -- not for cryptography
    generator.setstate(inner)
    return generator


def _torch_generator(value: torch.Generator) -> tuple[Kind, Any]:
    return ("torch generator", str(value.device)), value.get_state()


def _from_torch_generator(inner: torch.Tensor, device: str) -> torch.Generator:
    return torch.Generator(device).set_state(inner)


# -- classes of the user ---------------------------------------------------------------------------


def _place_of(value: Any) -> tuple[str, str]:
    return type(value).__module__, type(value).__qualname__


def _class_at(module: str, name: str) -> Any:
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def _known_class(module: str, name: str) -> Any:
    found = _class_at(module, name)
    if isinstance(found, type):
        return found
    raise LookupError(f"{module}.{name} is not imported")


def _enum(value: Enum) -> tuple[Kind, Any]:
    inner = value.value if isinstance(value, Flag) else value.name
    return ("Enum", *_place_of(value)), inner


def _from_enum(inner: Any, *place: str) -> Any:
    cls = _known_class(*place)
    if not issubclass(cls, Enum):
        raise TypeError(f"{cls} is no Enum")
    return cls(inner) if issubclass(cls, Flag) else cls[inner]


def _named_tuple(value: tuple[Any, ...]) -> tuple[Kind, Any]:
    return ("named tuple", *_place_of(value)), list(value)


def _from_named_tuple(inner: list[Any], *place: str) -> Any:
    cls = _known_class(*place)
    if not issubclass(cls, tuple) or len(getattr(cls, "_fields", ())) != len(inner):
        raise TypeError(f"{cls} has other fields")
    return tuple.__new__(cls, inner)


def _dataclass(value: Any) -> tuple[Kind, Any]:
    names = [field.name for field in dataclasses.fields(value) if hasattr(value, field.name)]
    held = {name: getattr(value, name) for name in names} | getattr(value, "__dict__", {})
    return ("dataclass", *_place_of(value)), held


def _from_dataclass(inner: dict[str, Any], *place: str) -> Any:
    cls = _known_class(*place)
    if not hasattr(cls, "__dataclass_fields__"):
        raise TypeError(f"{cls} is no dataclass")
    made = object.__new__(cls)
    for name, held in inner.items():
        object.__setattr__(made, name, held)  # a frozen one has no other way
    return made


# -- containers and the standard library -----------------------------------------------------------


def _has_known_factory(value: defaultdict[Any, Any]) -> bool:
    factory = value.default_factory
    return factory is None or _FACTORIES.get(getattr(factory, "__name__", "")) is factory


def _default_dict(value: defaultdict[Any, Any]) -> tuple[Kind, Any]:
    return ("defaultdict", getattr(value.default_factory, "__name__", None)), dict(value)


def _pairs(value: dict[Any, Any]) -> tuple[Kind, Any]:
    """Save a dict some of whose keys are not plain."""
    return ("pairs", type(value).__name__), [[key, part] for key, part in value.items()]


def _path(value: pathlib.PurePath) -> tuple[Kind, Any]:
    return ("path", type(value).__name__), str(value)


def _time(value: datetime.datetime | datetime.time) -> tuple[Kind, Any]:
    return (type(value).__name__,), value.isoformat()


def _as(name: str, inner: Callable[[Any], Any]) -> Callable[[Any], tuple[Kind, Any]]:
    return lambda value: ((name,), inner(value))


def _uninitialized(value: UninitializedParameter | UninitializedBuffer) -> tuple[Kind, Any]:
    return (type(value).__name__, value.requires_grad, value.dtype), None


def _from_uninitialized(cls: Any) -> Callable[..., Any]:
    return lambda _, *facts: cls(**dict(zip(("requires_grad", "dtype"), facts, strict=True)))


_PATHS = {
    cls.__name__: cls
    for cls in (
        pathlib.PosixPath,
        pathlib.WindowsPath,
        pathlib.PurePosixPath,
        pathlib.PureWindowsPath,
    )
}
_MAPPINGS = {"dict": dict, "OrderedDict": OrderedDict, "Counter": Counter}
_BY_TYPE: dict[type, Callable[[Any], tuple[Kind, Any]]] = {
    np.ndarray: _array,
    np.memmap: _array,
    np.random.Generator: _numpy_generator,
    np.random.RandomState: _random_state,
    random.Random: _python_generator,
    torch.Generator: _torch_generator,
    **dict.fromkeys(_PATHS.values(), _path),
    UninitializedParameter: _uninitialized,
    UninitializedBuffer: _uninitialized,
    defaultdict: _default_dict,
    **dict.fromkeys(_MAPPINGS.values(), _pairs),
    deque: lambda value: (("deque", value.maxlen), list(value)),
    set: _as("set", list),
    frozenset: _as("frozenset", list),
    range: _as("range", lambda value: [value.start, value.stop, value.step]),
    slice: _as("slice", lambda value: [value.start, value.stop, value.step]),
    datetime.date: _as("date", datetime.date.isoformat),
    datetime.timedelta: _as("timedelta", lambda v: [v.days, v.seconds, v.microseconds]),
    decimal.Decimal: _as("Decimal", str),
    fractions.Fraction: _as("Fraction", str),
    uuid.UUID: _as("UUID", str),
}
_DECODERS: dict[str, Callable[..., Any]] = {
    "numpy scalar": lambda inner, dtype: np.dtype(dtype).type(inner),
    "numpy value": lambda *kind: _from_bytes(*kind)[()],
    "numpy bytes": _from_bytes,
    "numpy array": _from_array,
    "numpy objects": _from_objects,
    "numpy dtype": np.lib.format.descr_to_dtype,
    "numpy generator": _from_numpy_generator,
    "numpy RandomState": _from_random_state,
    "Random": _from_python_generator,
    "torch generator": _from_torch_generator,
    "Enum": _from_enum,
    "named tuple": _from_named_tuple,
    "dataclass": _from_dataclass,
    "UninitializedParameter": _from_uninitialized(UninitializedParameter),
    "UninitializedBuffer": _from_uninitialized(UninitializedBuffer),
    "defaultdict": lambda inner, name: defaultdict(name and _FACTORIES[name], inner),
    "pairs": lambda inner, name: _MAPPINGS[name]((key, part) for key, part in inner),
    "deque": deque,
    "set": set,
    "frozenset": frozenset,
    "range": lambda inner: range(*inner),
    "slice": lambda inner: slice(*inner),
    "path": lambda inner, name: _PATHS[name](inner),
    "datetime": datetime.datetime.fromisoformat,
    "date": datetime.date.fromisoformat,
    "time": datetime.time.fromisoformat,
    "timedelta": lambda inner: datetime.timedelta(*inner),
    "Decimal": decimal.Decimal,
    "Fraction": fractions.Fraction,
    "UUID": uuid.UUID,
}
