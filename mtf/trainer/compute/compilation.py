"""Compiles what is trained, with kernels that do not depend on the batches seen before.

By default torch compiles its second kernel for any batch size, and may use it from then on. A
resumed process meets the sizes in another order, and so gets other kernels, whose sums differ in
their last bits. With static shapes each size has a kernel of its own, in every process the same.
"""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

_STEPS = ("training_step", "validation_step")
# kernels of one function, for as many shapes of batches; beyond 8, torch's default, it would go on
# without compiling, in this process only
MOST_KERNELS = 64


def compile_in_place(module: nn.Module) -> None:
    """Compile a module's own steps, or its forward pass if it has none; its state keeps its names.

    A compiled ``forward`` alone would compile nothing where ``training_step`` calls submodules.
    """
    settings: Any = importlib.import_module("torch._dynamo.config")
    settings.recompile_limit, settings.fail_on_recompile_limit_hit = MOST_KERNELS, True
    steps = [name for name in _STEPS if callable(getattr(module, name, None))]
    for name in steps:
        if not isinstance(step := getattr(module, name), _CompiledStep):
            vars(module)[name] = _CompiledStep(step)
    if not steps:
        module.compile(dynamic=False)


def in_place(model: nn.Module) -> nn.Module:
    """Return the module in a ``torch.compile(model)``, compiled in place; any other as it is.

    The wrapper would add ``_orig_mod`` to the names in checkpoints, and compiles ``forward`` alone.
    """
    inner = getattr(model, "_orig_mod", None)
    if not isinstance(inner, torch.nn.Module):
        return model
    compile_in_place(inner)
    return inner


class _CompiledStep:
    """A module's method, compiled at its first call; a copy of the module compiles its own."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self._method = method
        self._compiled: Callable[..., Any] | None = None
        functools.update_wrapper(self, method)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._compiled is None:
            self._compiled = torch.compile(self._method, dynamic=False)
        return self._compiled(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_compiled": None}
