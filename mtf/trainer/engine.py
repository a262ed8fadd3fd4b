"""How a step is computed: on the raw module and optimizer where nothing else is needed.

Fabric's wrappers of module, optimizer and backward take 70 µs and more a step. They are used for
several ranks and for mixed precision, which cannot do without them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import torch

from mtf.trainer.fabric import FabricModule, FabricOptimizer

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightning.fabric import Fabric
    from torch import nn
    from torch.optim import Optimizer

T = TypeVar("T")


class Engine:
    """Module and optimizer in place on their device, and the operations of a step on them.

    Attributes:
        module: the raw module; its state is what checkpoints hold.
        optimizer: the raw optimizer, likewise.
        forward: what computes: the module, or Fabric's wrapper of it.
        parameters: those of the module, in its order.
    """

    def __init__(self, fabric: Fabric, model: nn.Module, optimizer: Optimizer) -> None:
        self._fabric = fabric
        self._is_wrapped = isinstance(model, FabricModule) or needs_wrappers(fabric)
        self.module: nn.Module = model.module if isinstance(model, FabricModule) else model
        self.optimizer = _raw(optimizer)
        self.forward, self._stepping = model, optimizer
        if not self._is_wrapped:
            self.module.to(fabric.device)
        elif not isinstance(model, FabricModule):
            self.forward, self._stepping = fabric.setup(model, optimizer)
        self.parameters = list(self.module.parameters())
        self._moves = fabric.device.type != "cpu"

    def placed(self, batch: Any) -> Any:
        """Return the batch on the device."""
        return self._fabric.to_device(batch) if self._moves else batch

    def compute(self, function: Callable[[Any], T], batch: Any) -> T:
        """Call a function of a batch in the precision asked for."""
        if not self._is_wrapped:
            return function(batch)
        with self._fabric.autocast():
            return function(batch)

    def backward(self, loss: torch.Tensor) -> None:
        """Add the loss's gradients."""
        if self._is_wrapped:
            self._fabric.backward(loss)
        else:
            loss.backward()  # type: ignore[no-untyped-call]

    def commit(self, max_grad_norm: float | None) -> None:
        """Unscale, clip, step, update the scaler, and drop the gradients: all or nothing."""
        if max_grad_norm is not None:
            self._clip(max_grad_norm)
        self._stepping.step()
        self.optimizer.zero_grad()

    def _clip(self, max_norm: float) -> None:
        if self._is_wrapped:  # it unscales first
            self._fabric.clip_gradients(
                self.forward, self._stepping, max_norm=max_norm, error_if_nonfinite=False
            )
        else:
            torch.nn.utils.clip_grad_norm_(self.parameters, max_norm)

    @property
    def scaler(self) -> Any | None:
        """Return the gradient scaler of 16-bit mixed precision, else None."""
        return getattr(self._fabric.strategy.precision, "scaler", None)

    def gradients(self) -> list[torch.Tensor | None]:
        """Return the gradients by parameter; None stays None, since an optimizer skips those."""
        return [parameter.grad for parameter in self.parameters]

    def put_gradients(self, gradients: list[torch.Tensor | None]) -> None:
        """Put gradients back that ``gradients`` returned."""
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = None if gradient is None else gradient.to(parameter.device)


def needs_wrappers(fabric: Fabric) -> bool:
    """Return whether a step needs more than the raw module and optimizer."""
    return fabric.world_size > 1 or fabric.strategy.precision.precision != "32-true"


def _raw(optimizer: Optimizer) -> Optimizer:
    return optimizer.optimizer if isinstance(optimizer, FabricOptimizer) else optimizer
