"""Finds parts of a user's data sets and samplers: objects with ``set_epoch``, random generators.

Data sets wrap others, and transforms, samplers and collate functions keep generators of their own.
A search follows attributes, containers, partial functions, closures and bound methods.
"""

from __future__ import annotations

import functools
import random
import sys
import sysconfig
import types
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_MAX_DEPTH = 8
_MAX_ITEMS = 1_000  # of a container; longer ones hold samples, not parts
_MAX_OBJECTS = 20_000
_PLAIN = (
    *(int, float, complex, str, bytes, type(None), type, types.ModuleType),
    *(torch.Tensor, np.ndarray, np.generic),
)
_LIBRARIES = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))
GENERATORS = (
    random.Random,
    np.random.Generator,
    np.random.RandomState,
    np.random.BitGenerator,
    torch.Generator,
)


def parts_of(root: Any) -> Iterator[tuple[str, Any]]:
    """Yield all objects that can be reached from one, each once, with their paths.

    A path is like ``transform.rng``; that of the object itself is empty.
    """
    seen: dict[int, Any] = {}  # with the objects: an id may be used again when one is gone
    waiting: deque[tuple[str, Any, int]] = deque([("", root, 0)])
    while waiting and len(seen) < _MAX_OBJECTS:
        path, value, depth = waiting.popleft()
        if id(value) in seen:
            continue
        seen[id(value)] = value
        yield path, value
        if depth < _MAX_DEPTH and not isinstance(value, GENERATORS):
            waiting += [
                (f"{path}.{key}" if path else key, inner, depth + 1)
                for key, inner in _inside(value)
                if not isinstance(inner, _PLAIN)
            ]


def epoch_setters(root: Any) -> list[Callable[[int], Any]]:
    """Return the ``set_epoch`` methods of a data set or sampler.

    One that has the method tells its own parts. Otherwise the data sets and samplers in its
    attributes are asked; the data of a sampler is not, since it is told by itself.
    """
    return list(_epoch_setters(root, 0, set()))


def _epoch_setters(value: Any, depth: int, seen: set[int]) -> Iterator[Callable[[int], Any]]:
    if isinstance(value, _PLAIN) or id(value) in seen or depth > _MAX_DEPTH:
        return
    seen.add(id(value))
    try:
        method = getattr(value, "set_epoch", None)
    except (KeyError, TypeError, ValueError, RuntimeError):  # of a ``__getattr__`` of its own
        method = None
    if callable(method):
        yield method
    elif hasattr(type(value), "__getitem__") or hasattr(type(value), "__iter__"):
        for key, inner in _inside(value):
            if key != "data_source":
                yield from _epoch_setters(inner, depth + 1, seen)


def generators_of(root: Any) -> dict[str, Any]:
    """Return the random generators that a user's object may draw from, by their paths.

    Among them are those of its classes, and those in the modules of the user's functions and
    classes; not the generators of python, numpy and torch themselves.
    """
    found: dict[str, Any] = {}
    homes: dict[str, Any] = {}  # classes and modules, by their names
    for path, value in parts_of(root):
        _note(found, path, value)
        if isinstance(value, types.FunctionType):
            names = [value.__module__]
        else:
            kinds = [kind for kind in type(value).__mro__ if is_users(kind.__module__)]
            homes |= {kind.__qualname__: kind for kind in kinds}
            names = [kind.__module__ for kind in kinds]
        homes |= {name: sys.modules[name] for name in names if is_users(name)}
    for name, home in homes.items():
        for key, value in list(vars(home).items()):
            _note(found, f"{name}.{key}", value)
    return found


def _note(found: dict[str, Any], path: str, value: Any) -> None:
    is_known = any(value is known for known in found.values())
    if isinstance(value, GENERATORS) and not (is_known or _is_global(value)):
        found[path] = value


def _is_global(generator: Any) -> bool:
    shared = (vars(random)["_inst"], vars(np.random.mtrand)["_rand"], torch.default_generator)
    return any(generator is each for each in shared)


def _inside(value: Any) -> Iterable[tuple[str, Any]]:
    """Return the names and values of an object's parts."""
    if isinstance(value, dict | list | tuple | set | frozenset):
        if len(value) > _MAX_ITEMS:
            return ()
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return [(str(key), inner) for key, inner in pairs]
    if isinstance(value, functools.partial):
        return [("func", value.func), ("args", value.args), ("keywords", value.keywords)]
    if isinstance(value, types.MethodType):
        return [("self", value.__self__), ("func", value.__func__)]
    if isinstance(value, types.FunctionType):
        cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        defaults = [("defaults", value.__defaults__), ("kwdefaults", value.__kwdefaults__)]
        return [*defaults, *((name, _content(cell)) for name, cell in cells)]
    return list(getattr(value, "__dict__", {}).items())


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # the variable has no value yet
        return None


@functools.cache
def is_users(module: str) -> bool:
    """Return True for a module that is not installed as part of a library."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is not None and not file.startswith(_LIBRARIES)


def is_plain_sampler(sampler: Any) -> bool:
    """Return True if a sampler, and one inside it, are of torch, or lists: they keep no state."""
    inner = getattr(sampler, "sampler", None)
    is_known = isinstance(sampler, list | tuple) or type(sampler).__module__.startswith("torch.")
    return is_known and (inner is None or is_plain_sampler(inner))
