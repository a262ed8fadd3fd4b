"""The number of samples in a batch: as the data knows it, or else by the shape of the batch.

The rule for a batch whose data does not know it, such as an item of an IterableDataset that is a
whole batch:

- A tensor or array holds as many samples as its first dimension is long. A PackedSequence, and a
  batch of graphs with ``num_graphs`` or ``ptr``, say it themselves.
- A dict, dataclass, named tuple or tuple holds fields, which must agree. Numbers, texts, None and
  tensors without a dimension are the same for the whole batch, and say nothing.
- A list of numbers or texts, and a list of dicts or of images [1, 3 or 4, H, W], holds samples. Any
  other list holds fields if its items differ in type, and else whichever agrees with its siblings.

A batch of nothing but numbers, texts and tensors without a dimension is one sample. Any other
object in a batch says nothing; a batch in which nothing says anything is unknown.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from numbers import Number
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.utils.rnn import PackedSequence

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_DEPTH = 16  # of nested containers: deeper ones may contain themselves
_CHANNELS = (1, 3, 4)
_TENSOR = torch.Tensor


def known_samples(batches: Any, epoch: int, batch: int) -> int | None:
    """Return the number of samples in a batch as its data knows it, None if it does not.

    Data that knows it has the method ``num_samples(epoch, batch)``. If only the batch itself tells,
    it returns None until the batch has been made.
    """
    num_samples = getattr(batches, "num_samples", None)
    return None if num_samples is None else num_samples(epoch, batch)


def count_samples(batch: Any) -> int | None:
    """Return the number of samples in a batch by its shape, see the rule; None: unknown.

    A tuple of tensors, which most batches are, is counted first: it takes 0.6 µs a step, and the
    whole rule 10.
    """
    if type(batch) is tuple:
        size = -1
        for field in batch:
            shape = field.shape if type(field) is _TENSOR else ()
            if not shape or shape[0] != size != -1:
                break
            size = shape[0]
        else:
            if size != -1:
                return size
    if (number := _count_tensors(batch)) is not None:
        return number
    readings = _readings(batch, 0)
    if readings is None:
        return 1 if _is_one_sample(batch) else None
    return readings[0] if len(readings) == 1 else None


class CountedBatches:
    """Separates batches from the numbers of samples that come beside them, and keeps the newest."""

    def __init__(self) -> None:
        self._newest: tuple[int, int, int | None] | None = None  # epoch, batch, number of samples

    def opened(self, pairs: Iterator[Any], epoch: int, start: int) -> Iterator[Any]:
        """Yield the batches of an epoch, from batch ``start`` on."""
        for batch, (number, content) in enumerate(pairs, start):
            self._newest = epoch, batch, number
            yield content

    def of(self, epoch: int, batch: int) -> int | None:
        """Return the number of samples in a batch if it is the newest one and says it."""
        if self._newest is None or self._newest[:2] != (epoch, batch):
            return None
        return self._newest[2]


def _count_tensors(batch: Any) -> int | None:
    """Return the number of samples in a list or dict of tensors, None if it is not clear."""
    kind = type(batch)
    if kind is dict:
        if "edge_index" in batch:
            return None
        batch = batch.values()
    elif kind is not list:
        return None
    size, kinds = -1, set()
    for field in batch:
        if type(field) is not _TENSOR or not field.dim():
            return None
        first = field.size(0)
        if first != size != -1:
            return None
        size = first
        if kind is list:
            kinds.add((field.dim(), field.dtype))
    return None if size == -1 or (kind is list and len(kinds) == 1) else size


# The possible numbers of samples in a value; an empty list: contradictory; None: it says nothing.
_Readings = list[int] | None


def _readings(value: Any, depth: int) -> _Readings:
    if value is None or _is_scalar(value):
        return None
    if depth > _MAX_DEPTH:
        return []
    if isinstance(value, PackedSequence):
        return [int(value.batch_sizes[0])]
    if _field(value, "edge_index") is not None or _field(value, "num_graphs") is not None:
        return _of_graphs(value)
    fields = _fields_of(value)
    if fields is not None:
        return _agreed(fields, depth)
    return _of_items(value, depth) if isinstance(value, Sequence) else _of_array(value)


def _of_array(value: Any) -> _Readings:
    """Return the first dimension of a tensor, an array or a table."""
    if isinstance(value, torch.Tensor):
        return [value.size(0)] if value.dim() else None
    shape = getattr(value, "shape", None)
    return [int(shape[0])] if isinstance(shape, tuple) and shape else None


def _fields_of(value: Any) -> Sequence[Any] | None:
    """Return the values of a dict, a dataclass or a named tuple, None for anything else."""
    if isinstance(value, Mapping):
        return list(value.values())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name) for field in dataclasses.fields(value)]
    return value if isinstance(value, tuple) and hasattr(value, "_fields") else None


def _agreed(fields: Sequence[Any], depth: int) -> _Readings:
    """Return the readings that all fields allow which say anything."""
    known = [r for field in fields if (r := _readings(field, depth + 1)) is not None]
    if not known:
        return None
    return [number for number in known[0] if all(number in readings for readings in known)]


def _of_items(items: Sequence[Any], depth: int) -> _Readings:
    """Return the readings of a list or tuple, which holds samples or fields."""
    length = [len(items)]
    is_top_tuple = depth == 0 and isinstance(items, tuple)
    if all(item is None or _is_scalar(item) for item in items):
        is_fields = is_top_tuple and not all(isinstance(item, str) for item in items)
        says_nothing = bool(items) and all(item is None for item in items)
        return None if is_fields or says_nothing else length
    fields = _agreed(items, depth)
    if is_top_tuple or len({_kind(item) for item in items}) > 1:
        return fields
    first = items[0]
    if isinstance(first, Mapping) or dataclasses.is_dataclass(first) or _is_image(first):
        return length
    is_table = isinstance(first, Sequence) and _agreed(first, depth + 1) is None
    if is_table and depth > 0:  # such as the tokens of each text
        return length
    return sorted({*length, *(fields or ())})


def _of_graphs(value: Any) -> _Readings:
    """Return the number of graphs; the first dimensions of their tensors count nodes and edges."""
    number, starts = _field(value, "num_graphs"), _field(value, "ptr")
    if isinstance(number, int):
        return [number]
    return [len(starts) - 1] if isinstance(starts, torch.Tensor) else []


def _field(value: Any, name: str) -> Any:
    """Return a key of a dict or an attribute of an object; None if there is none."""
    if isinstance(value, Mapping):
        return value.get(name)
    try:
        return getattr(value, name, None)
    except (ValueError, RuntimeError, TypeError, KeyError):  # a property of graphs without batches
        return None


def _is_one_sample(value: Any) -> bool:
    """Return True for what has no dimension, and for a dict or tuple of such values."""
    if isinstance(value, Mapping | tuple):
        parts = value.values() if isinstance(value, Mapping) else value
        return len(value) > 0 and all(_is_one_sample(part) for part in parts)
    return _is_scalar(value) or getattr(value, "shape", None) == ()


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | bytes | Number)


def _is_image(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dim() == 3 and value.shape[0] in _CHANNELS


def _kind(value: Any) -> Any:
    """Return the type that samples of one list share."""
    if isinstance(value, torch.Tensor):
        return value.dtype, value.dim()
    if isinstance(value, list | tuple) and value and _is_scalar(value[0]):
        return type(value), isinstance(value[0], str | bytes)
    return type(value)
