"""Finds state that no checkpoint holds: what the user's own objects and modules keep in Python."""

from __future__ import annotations

import gc
import random
import sys
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

import mtf
from mtf.trainer.verify.recorder import digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import ModuleType

    from mtf.trainer.loop.loop import Loop

_DEPTH, _MOST = 6, 20_000
_SHORT = 40  # characters: what is shown as it is
_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_TORCH_OWN = frozenset({"_parameters", "_buffers", "_modules", "training"})
_ABSENT = "not there"
GENERATOR = "generator"


class Own:
    """Which files and objects are the user's: those of the work tree that are not installed."""

    def __init__(self, root: Path) -> None:
        self._roots = (f"{root}/", f"{root.resolve()}/")
        self._others = (f"{Path(mtf.__file__).parent}/", f"{sys.prefix}/")

    def file(self, path: str | None) -> bool:
        """Return whether a source file is the user's."""
        if not path or not path.startswith(self._roots) or path.startswith(self._others):
            return False
        return "-packages/" not in path

    def module(self, name: str) -> bool:
        """Return whether a module is the user's."""
        return self.file(getattr(sys.modules.get(name), "__file__", None))

    def modules(self) -> Iterator[tuple[str, ModuleType]]:
        """Yield the user's modules by their names, in their order."""
        for name, module in sorted(sys.modules.items()):
            if self.module(name):
                yield name, module

    def classes(self) -> Iterator[type]:
        """Yield the classes that these define."""
        for name, module in self.modules():
            for kind in vars(module).values():
                if isinstance(kind, type) and kind.__module__ == name:
                    yield kind

    def short(self, path: str) -> str:
        """Return a file's path as the user knows it."""
        for root in self._roots:
            path = path.removeprefix(root)
        return path


def hidden_state(loop: Loop, own: Own) -> dict[str, str]:
    """Return what the user's code keeps beside the state that is saved, each with its value."""
    walk = _Walk(own)
    found = dict(walk.all_of(loop)) | dict(walk.elsewhere())
    for name, module in own.modules():
        found |= _of_namespace(name, vars(module))
    for kind in own.classes():
        found |= _of_namespace(f"{kind.__module__}.{kind.__qualname__}", vars(kind))
    return found


def _of_namespace(path: str, names: Mapping[str, Any]) -> dict[str, str]:
    return {
        f"{path}.{name}": said
        for name, value in names.items()
        if not name.startswith("__") and (said := summary(value)) is not None
    }


def unequal(left: Mapping[str, str], right: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return what has another value in one of two trainings, or is in one only, as both have it."""
    both = ((name, left.get(name, _ABSENT), right.get(name, _ABSENT)) for name in {**left, **right})
    return {name: (ours, theirs) for name, ours, theirs in both if ours != theirs}


def idle_generators(seen: Sequence[Mapping[str, str]]) -> set[str]:
    """Return the generators that are the same before each batch of a training."""
    if len(seen) < 2:  # before one batch, nothing can be told
        return set()
    always = set.intersection(*(set(each.items()) for each in seen))
    return {name for name, value in always if value.startswith(GENERATOR)}


def summary(value: Any) -> str | None:
    """Return a value in short, or its digest; None for what holds no state of its own."""
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
    return None


def _of_container(value: Any) -> str | None:
    items = list(value.items() if isinstance(value, dict) else value)[:_MOST]
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


class _Walk:
    """Visits the user's objects from a training's model and data on, each once."""

    def __init__(self, own: Own) -> None:
        self._own = own
        self._seen: set[int] = set()
        self._kinds: set[type] = set()

    def all_of(self, loop: Loop) -> Iterator[tuple[str, str]]:
        for value in (loop.engine.module, loop.train, loop.validation, loop.objective):
            yield from self._visit(value, "", 0)

    def elsewhere(self) -> Iterator[tuple[str, str]]:
        """Yield the state of the user's other objects (such as callbacks).

        Only objects that are alone in their class: others could not be told apart.
        """
        others: dict[type, list[Any]] = {kind: [] for kind in self._own.classes()}
        for value in gc.get_objects():
            if type(value) in others and id(value) not in self._seen:
                others[type(value)].append(value)
        for kind, found in others.items():
            if len(found) == 1:
                name = f"another {kind.__name__}" if kind in self._kinds else kind.__name__
                yield from self._visit(found[0], name, 0)

    def _visit(self, value: Any, path: str, depth: int) -> Iterator[tuple[str, str]]:
        if depth > _DEPTH or id(value) in self._seen or isinstance(value, type | torch.Tensor):
            return
        self._seen.add(id(value))
        self._kinds.add(type(value))
        if isinstance(value, nn.Module):
            yield from self._module(value, path, depth)
        elif isinstance(value, list | tuple | dict):
            inner = value.values() if isinstance(value, dict) else value
            for item in list(inner)[:_MOST]:
                yield from self._visit(item, path, depth + 1)
        elif self._own.module(type(value).__module__):
            yield from self._attributes(value, path or type(value).__name__, depth)
        elif _leads_on(value):
            for inner in vars(value).values():
                yield from self._visit(inner, path, depth + 1)

    def _module(self, module: nn.Module, path: str, depth: int) -> Iterator[tuple[str, str]]:
        path = path or type(module).__name__
        if self._own.module(type(module).__module__):
            yield from self._attributes(module, path, depth)
        for name, child in module.named_children():
            yield from self._visit(child, f"{path}.{name}", depth)

    def _attributes(self, value: Any, path: str, depth: int) -> Iterator[tuple[str, str]]:
        skipped = _TORCH_OWN if isinstance(value, nn.Module) else frozenset[str]()
        for name, inner in vars(value).items() if hasattr(value, "__dict__") else ():
            if name in skipped or (skipped and name.endswith("_hooks")):
                continue
            if (said := summary(inner)) is not None:
                yield f"{path}.{name}", said
            else:
                yield from self._visit(inner, f"{path}.{name}", depth + 1)


def _leads_on(value: Any) -> bool:
    """Return whether what is not the user's own may hold what is."""
    module = type(value).__module__
    return hasattr(value, "__dict__") and (
        module.startswith(("mtf.trainer", "torch.utils.data")) or isinstance(value, DataLoader)
    )
