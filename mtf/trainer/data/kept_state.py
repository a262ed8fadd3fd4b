"""State that a sampler or data set keeps in its attributes from one pass to the next."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler

from mtf.trainer.compute.digests import digest_of

_MAX_DEPTH = 4  # of containers and samplers in each other


def kept_state(value: Any) -> dict[str, object]:
    """Return a digest of each attribute of an object that may hold state, by name.

    These are numbers, texts, arrays, containers, iterators and further samplers. An iterator has
    another digest each time, since nothing shows how far it is. Random generators are left out:
    mtf seeds them.
    """
    return _attributes(value, 0)


def changed_attributes(before: dict[str, object], after: dict[str, object]) -> list[str]:
    """Return the names of the attributes whose digests differ, or that only one of both has."""
    names = sorted(before.keys() | after.keys())
    return [name for name in names if before.get(name) != after.get(name)]


def _attributes(value: Any, depth: int) -> dict[str, object]:
    return {
        name: _digest(inner, depth)
        for name, inner in list(getattr(value, "__dict__", {}).items())
        if name != "data_source"
    }


def _digest(value: Any, depth: int) -> object:
    """Return an object that equals the one of an equal value; None for what holds no state."""
    if isinstance(value, int | float | str | bytes | np.generic):
        return repr(value)
    if isinstance(value, torch.Tensor):
        return digest_of(value)
    if isinstance(value, np.ndarray):
        return hash(value.tobytes())
    if isinstance(value, Iterator):
        return object()
    return _digest_inside(value, depth) if depth < _MAX_DEPTH else None


def _digest_inside(value: Any, depth: int) -> object:
    if isinstance(value, list | tuple | deque):
        return _digest_of_items(value, depth)
    if isinstance(value, dict):
        return _digest_of_items([*value.keys(), *value.values()], depth)
    if isinstance(value, set | frozenset):
        return hash(frozenset(value))
    return _attributes(value, depth + 1) if isinstance(value, Sampler) else None


def _digest_of_items(items: list[Any] | tuple[Any, ...] | deque[Any], depth: int) -> object:
    if all(type(item) in (int, float, str, bool) for item in items):
        return hash(tuple(items))  # fast for millions
    return [_digest(item, depth + 1) for item in items]
