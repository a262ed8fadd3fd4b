"""Facts that a model learns from its data: the shape of an input, and the number of classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import ChainDataset, ConcatDataset, DataLoader, IterableDataset, Subset

from mtf.trainer.compute.rng import TemporarilySeeded, seed_at

if TYPE_CHECKING:
    from collections.abc import Sequence


def facts_of(data: Any) -> dict[str, Any]:
    """Return ``input_shape`` and ``num_classes`` of a data set or DataLoader, where known.

    A data set says them by attributes (``num_classes`` also by ``classes``, as those of torchvision
    do); the data sets inside of a ``Subset`` or ``ConcatDataset`` say them for it, if they agree.
    Else the shape is that of the first sample.
    """
    dataset = data.dataset if isinstance(data, DataLoader) else data
    facts = {"input_shape": _input_shape(dataset), "num_classes": _num_classes(dataset)}
    return {name: value for name, value in facts.items() if value is not None}


def _input_shape(dataset: Any) -> Any:
    for shape in (getattr(dataset, "input_shape", None), _first_shape(dataset)):
        if shape is not None:
            return shape
    return _agreed([_input_shape(part) for part in _parts(dataset)])


def _num_classes(dataset: Any) -> Any:
    number = getattr(dataset, "num_classes", None)
    if number is None and hasattr(dataset, "classes"):
        number = len(dataset.classes)
    if number is None:
        number = _agreed([_num_classes(part) for part in _parts(dataset)])
    return number


def _first_shape(dataset: Any) -> tuple[int, ...] | None:
    if not hasattr(dataset, "__getitem__") or isinstance(dataset, IterableDataset):
        return None
    with TemporarilySeeded(seed_at("facts")):
        sample = dataset[0]
    if isinstance(sample, tuple | list) and sample and isinstance(sample[0], torch.Tensor):
        return tuple(sample[0].shape)
    return None


def _parts(dataset: Any) -> Sequence[Any]:
    """Return the data sets that one of torch's containers, or a class derived from it, holds."""
    if isinstance(dataset, Subset):
        return [dataset.dataset]
    parts = dataset.datasets if isinstance(dataset, ConcatDataset | ChainDataset) else []
    return parts if isinstance(parts, list | tuple) else []  # iterators can be read only once


def _agreed(values: Sequence[Any]) -> Any:
    """Return the value that all have, None if they differ or there is none."""
    return values[0] if values and all(value == values[0] for value in values) else None
