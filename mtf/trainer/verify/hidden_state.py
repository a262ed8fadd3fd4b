"""Finds state outside the checkpoint: attributes and globals of the user's objects and modules."""

from __future__ import annotations

import gc
import random
from collections import deque
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from mtf.trainer.loop.metric_objects import MetricObjects, is_metric_object
from mtf.trainer.verify.batch_records import digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from mtf.trainer.verify.user_code import UserCode

_MAX_DEPTH, _MAX_ITEMS = 6, 20_000
_SHORT = 40  # characters; longer values are shown as a digest
_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_TORCH_OWN = frozenset({"_parameters", "_buffers", "_modules", "training"})
ABSENT = "missing"
GENERATOR = "generator"
METRIC, OPTIMIZER, WEIGHTS = "metric", "optimizer", "weights"  # objects with a state of their own
REQUIRES_GRAD = "requires_grad"


def hidden_state(roots: Iterable[object], user_code: UserCode) -> dict[str, str]:
    """Return the names and values of state that the user's code keeps outside the checkpoint.

    Args:
        roots: the objects of the training to search: model, data, objective.
        user_code: decides which objects, modules and classes are the user's.
    """
    roots = list(roots)
    modules = [root for root in roots if isinstance(root, nn.Module)]
    search = _ObjectSearch(user_code, registered=chain.from_iterable(m.modules() for m in modules))
    found = {
        f"{type(module).__name__}.{name}.{REQUIRES_GRAD}": str(parameter.requires_grad)
        for module in modules
        for name, parameter in module.named_parameters()
    }
    found |= dict(search.from_roots(roots)) | dict(search.single_instances())
    for name, module in user_code.modules():
        found |= _of_namespace(name, vars(module))
    for cls in user_code.classes():
        found |= _of_namespace(f"{cls.__module__}.{cls.__qualname__}", vars(cls))
    return found


def _of_namespace(path: str, names: Mapping[str, Any]) -> dict[str, str]:
    return {
        f"{path}.{name}": text
        for name, value in names.items()
        if not name.startswith("__") and (text := summary(value)) is not None
    }


def unequal(left: Mapping[str, str], right: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return both values of each name whose value differs, or that only one training has."""
    both = ((name, left.get(name, ABSENT), right.get(name, ABSENT)) for name in {**left, **right})
    return {name: (ours, theirs) for name, ours, theirs in both if ours != theirs}


def idle_generators(seen: Sequence[Mapping[str, str]]) -> set[str]:
    """Return the generators whose state is the same before each batch of a training."""
    if len(seen) < 2:  # one batch does not show which generators are used
        return set()
    always = set.intersection(*(set(state.items()) for state in seen))
    return {name for name, value in always if value.startswith(GENERATOR)}


def summary(value: Any) -> str | None:
    """Return a value as short text or as a digest; None if it holds no state of its own."""
    if isinstance(value, _PLAIN):
        text = repr(value)
        return text if len(text) <= _SHORT else f"{type(value).__name__} {digest(text)}"
    if (state := _generator_state(value)) is not None:
        return f"{GENERATOR} {digest(state)}"
    if isinstance(value, torch.Tensor):
        return f"tensor {list(value.shape)} {digest(value)}"
    if isinstance(value, np.ndarray | np.generic):
        return f"array {list(value.shape)} {digest(value.tobytes())}"
    if isinstance(value, list | tuple | set | frozenset | deque | dict):
        return _of_container(value)
    if is_metric_object(value):
        holder = nn.Module()
        vars(holder)["held"] = [value]
        return f"{METRIC} {digest(MetricObjects(holder).state())}"
    if isinstance(value, Optimizer | LRScheduler):
        return f"{OPTIMIZER} {digest(value.state_dict())}"
    return None


def _of_container(value: Any) -> str | None:
    items = list(value.items() if isinstance(value, dict) else value)[:_MAX_ITEMS]
    if isinstance(value, set | frozenset):
        items.sort(key=repr)
    parts = [summary(item) for item in items]
    if any(part is None for part in parts):
        return None
    text = "" if isinstance(value, set | frozenset) else repr(value)
    if 0 < len(text) <= _SHORT and "\n" not in text:
        return text
    return f"{type(value).__name__} of {len(value)}, {digest(parts)}"


def _generator_state(value: Any) -> Any | None:
    if isinstance(value, random.Random):
        return None if isinstance(value, random.SystemRandom) else value.getstate()
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state)
    if isinstance(value, np.random.RandomState):
        return repr(value.get_state())
    if isinstance(value, torch.Generator):
        return value.get_state()
    return None


class _ObjectSearch:
    """Visits each of the user's objects once and yields the names and values of its state."""

    def __init__(self, user_code: UserCode, registered: Iterable[nn.Module]) -> None:
        self._user_code = user_code
        self._registered = set(map(id, registered))  # modules whose weights checkpoints hold
        self._visited: set[int] = set()
        self._visited_classes: set[type] = set()

    def from_roots(self, roots: Iterable[object]) -> Iterator[tuple[str, str]]:
        """Yield the state of the objects that can be reached from some."""
        for value in roots:
            yield from self._visit(value, "", 0)

    def single_instances(self) -> Iterator[tuple[str, str]]:
        """Yield the state of other objects, such as callbacks, that are alone in their class.

        The names of several instances of a class would be the same.
        """
        instances: dict[type, list[Any]] = {cls: [] for cls in self._user_code.classes()}
        for value in gc.get_objects():
            if type(value) in instances and id(value) not in self._visited:
                instances[type(value)].append(value)
        for cls, found in instances.items():
            if len(found) == 1:
                is_second = cls in self._visited_classes
                name = f"another {cls.__name__}" if is_second else cls.__name__
                yield from self._visit(found[0], name, 0)

    def _visit(self, value: Any, path: str, depth: int) -> Iterator[tuple[str, str]]:
        if (
            depth > _MAX_DEPTH
            or id(value) in self._visited
            or isinstance(value, type | torch.Tensor)
        ):
            return
        self._visited.add(id(value))
        self._visited_classes.add(type(value))
        if isinstance(value, nn.Module):
            yield from self._module(value, path, depth)
        elif isinstance(value, list | tuple | dict):
            inner = value.values() if isinstance(value, dict) else value
            for item in list(inner)[:_MAX_ITEMS]:
                yield from self._visit(item, path, depth + 1)
        elif isinstance(value, Optimizer | LRScheduler):
            yield path, summary(value) or ""
        elif self._user_code.has_module(type(value).__module__):
            yield from self._attributes(value, path or type(value).__name__, depth)
        elif _may_hold_user_objects(value):
            for inner in vars(value).values():
                yield from self._visit(inner, path, depth + 1)

    def _module(self, module: nn.Module, path: str, depth: int) -> Iterator[tuple[str, str]]:
        path = path or type(module).__name__
        if is_metric_object(module):
            yield path, summary(module) or ""
            return
        if id(module) not in self._registered:
            self._registered |= set(map(id, module.modules()))
            yield path, f"{WEIGHTS} {digest(module.state_dict())}"
        if self._user_code.has_module(type(module).__module__):
            yield from self._attributes(module, path, depth)
        for name, child in module.named_children():
            yield from self._visit(child, f"{path}.{name}", depth)

    def _attributes(self, value: Any, path: str, depth: int) -> Iterator[tuple[str, str]]:
        skipped = _TORCH_OWN if isinstance(value, nn.Module) else frozenset[str]()
        for name, inner in vars(value).items() if hasattr(value, "__dict__") else ():
            if name in skipped or (skipped and name.endswith("_hooks")):
                continue
            if (text := summary(inner)) is not None:
                yield f"{path}.{name}", text
            else:
                yield from self._visit(inner, f"{path}.{name}", depth + 1)


def _may_hold_user_objects(value: Any) -> bool:
    """Return True for objects of mtf and torch that may hold objects of the user."""
    module = type(value).__module__
    return hasattr(value, "__dict__") and (
        module.startswith(("mtf.trainer", "torch.utils.data")) or isinstance(value, DataLoader)
    )
