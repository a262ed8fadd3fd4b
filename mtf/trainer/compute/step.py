"""How a step is computed: on the raw module and optimizers where nothing else is needed.

Fabric's wrappers of module, optimizer and backward take 70 µs and more a step. They are used for
several ranks and for mixed precision, which cannot do without them.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch.nn.utils import clip_grad_norm_, clip_grad_value_, get_total_norm

from mtf.trainer.compute.digests import digest_of
from mtf.trainer.compute.fabric import FabricModule, FabricOptimizer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from lightning.fabric import Fabric
    from torch import nn
    from torch.optim import Optimizer

    from mtf.spec.schema.sections import TrainingConfig

T = TypeVar("T")


class StepEngine:
    """Module and optimizers in place on their device, and the operations of a step on them.

    Attributes:
        module: the raw module; its state is what checkpoints hold.
        optimizers: the raw optimizers by name, likewise.
        forward: what computes: the module, or Fabric's wrapper of it.
        parameters: those of the module, in its order.
    """

    def __init__(
        self,
        fabric: Fabric,
        model: nn.Module,
        optimizers: Mapping[str, Optimizer],
        training: TrainingConfig,
    ) -> None:
        self._fabric = fabric
        self._training = training
        self._is_wrapped = isinstance(model, FabricModule) or needs_wrappers(fabric)
        self.module: nn.Module = model.module if isinstance(model, FabricModule) else model
        if training.compile:
            self.module.compile()  # in place: the names in its state stay as they are
        self.optimizers = {name: _raw(optimizer) for name, optimizer in optimizers.items()}
        self.forward, self._stepping = model, dict(optimizers)
        if not self._is_wrapped:
            self.module.to(fabric.device)
        elif not isinstance(model, FabricModule):
            self.forward, *wrapped = fabric.setup(model, *optimizers.values())
            self._stepping = dict(zip(optimizers, wrapped, strict=True))
        self.parameters = list(self.module.parameters())
        self._as_built = dict(self._built(self.module.state_dict().keys()))
        self._moves = fabric.device.type != "cpu"
        self._unsynced: AbstractContextManager[None] = nullcontext()
        skips = training.on_nonfinite in ("skip", "stop")
        self._guards = skips and self.scaler is None  # the scaler leaves such steps out itself
        clips = training.max_grad_norm is not None or training.max_grad_value is not None
        self._looks = clips or self._guards  # at the gradients, before a step
        self._noted: dict[str, torch.Tensor] = {}  # values of buffers, see ``note_buffers``

    def _built(self, held: Collection[str]) -> Iterator[tuple[str, tuple[torch.Tensor, int, str]]]:
        """Yield each buffer with its version, and a digest of those that no state holds.

        Torch tells by the version that a tensor was written to, but for the kernels of BatchNorm.
        """
        for name, buffer in self.module.named_buffers():
            digest = "" if name in held else digest_of(buffer)
            yield name, (buffer, buffer._version, digest)  # noqa: SLF001 -- how torch tells itself

    def placed(self, batch: Any) -> Any:
        """Return the batch on the device."""
        return self._fabric.to_device(batch) if self._moves else batch

    def compute(self, function: Callable[[Any], T], batch: Any) -> T:
        """Call a function of a batch in the precision asked for."""
        if not self._is_wrapped:
            return function(batch)
        with self._fabric.autocast():
            return function(batch)

    def hold_back(self, *, held: bool) -> None:
        """Say, before a forward pass, whether its gradients stay on this rank for now.

        Inside an accumulation window nobody needs the other ranks' gradients yet.
        """
        self._unsynced = nullcontext()
        if held and self._fabric.world_size > 1:
            self._unsynced = self._fabric.no_backward_sync(self.forward, enabled=True)  # type: ignore[arg-type]
        self._unsynced.__enter__()

    def note_buffers(self) -> None:
        """Say, before a forward pass, that its loss may turn out to be no finite number.

        What it has then made of the buffers, such as running means, is taken back.
        """
        self._noted = {name: buffer.clone() for name, buffer in self.module.named_buffers()}

    def backward(self, loss: torch.Tensor) -> None:
        """Add the loss's gradients."""
        if self._is_wrapped:
            self._fabric.backward(loss)
            self._unsynced.__exit__(None, None, None)
        else:
            loss.backward()
        if self._noted and not loss.isfinite():
            self.put_buffers(self._noted, ())

    def commit(self, active: Collection[str]) -> bool:
        """Unscale, clip, step, update the scaler, and drop all gradients: all or nothing.

        Args:
            active: names of the optimizers whose turn it is.

        Returns:
            Whether the step was taken. It is left out where gradients are not finite and the
            configuration says to skip or to stop then; they are dropped all the same.
        """
        looks = self._looks
        finite = not looks or all(self._clipped(self.optimizers[name]) for name in active)
        if finite:
            for name in active:
                self._stepping[name].step()
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
        return finite

    def _clipped(self, optimizer: Optimizer) -> bool:
        """Clip what an optimizer steps on; return whether it may."""
        max_norm, max_value = self._training.max_grad_norm, self._training.max_grad_value
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if self.scaler is not None:
            self.scaler.unscale_(optimizer)
        finite = not self._guards or _finite(parameters)
        if max_value is not None:
            clip_grad_value_(parameters, max_value)
        if max_norm is not None:
            clip_grad_norm_(parameters, max_norm)
        return finite

    @property
    def scaler(self) -> Any | None:
        """Return the gradient scaler of 16-bit mixed precision, else None."""
        return getattr(self._fabric.strategy.precision, "scaler", None)

    @property
    def spreads_buffers(self) -> bool | None:
        """Return whether the next forward pass begins with the first rank's buffers; None: alone.

        DDP hands them out where the pass before was one that exchanged gradients.
        """
        ddp = getattr(self.forward, "_forward_module", None)
        return getattr(ddp, "require_forward_param_sync", None)

    @spreads_buffers.setter
    def spreads_buffers(self, value: bool) -> None:
        vars(self.forward._forward_module)["require_forward_param_sync"] = value  # noqa: SLF001

    def gradients(self) -> list[torch.Tensor | None]:
        """Return the gradients by parameter; None stays None, since an optimizer skips those."""
        return [parameter.grad for parameter in self.parameters]

    def unsaved_buffers(self) -> dict[str, torch.Tensor]:
        """Return the buffers that this process has changed and the module's state does not hold.

        They are not persistent in torch's sense: no part of a trained model, but of a training.
        """
        held = self.module.state_dict().keys()
        return {
            name: buffer
            for name, buffer in self.module.named_buffers()
            if name not in held and self._is_changed(name, buffer)
        }

    def _is_changed(self, name: str, buffer: torch.Tensor) -> bool:
        built, version, digest = self._as_built.get(name, (None, 0, ""))
        is_same = buffer is built and buffer._version == version  # noqa: SLF001 -- as above
        return not is_same or digest_of(buffer) != digest

    def replaced_buffers(self) -> list[str]:
        """Return the names of those buffers that are no longer the tensors they were built with.

        DDP gives the first rank's values to the tensors it was built with, and to no others.
        """
        return [
            name
            for name, buffer in self.module.named_buffers()
            if buffer is not self._as_built.get(name, (None,))[0]
        ]

    def put_buffers(self, buffers: Mapping[str, torch.Tensor], replaced: Collection[str]) -> None:
        """Put buffers back that are not in the module's state, or otherwise on this rank."""
        with torch.no_grad():
            for name, value in buffers.items():
                owner, last = self._owner(name)
                there = getattr(owner, last, None)
                if isinstance(there, torch.Tensor) and there.shape == value.shape:
                    there.copy_(value)
                else:
                    setattr(owner, last, value.to(self._fabric.device))
            for name in replaced:
                owner, last = self._owner(name)
                setattr(owner, last, getattr(owner, last).clone())

    def _owner(self, name: str) -> tuple[nn.Module, str]:
        path, _, last = name.rpartition(".")
        return self.module.get_submodule(path), last

    def put_gradients(self, gradients: list[torch.Tensor | None]) -> None:
        """Put gradients back that ``gradients`` returned."""
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = None if gradient is None else gradient.to(parameter.device)


def _finite(parameters: list[nn.Parameter]) -> bool:
    norm = get_total_norm([p.grad for p in parameters if p.grad is not None])
    return math.isfinite(norm)


def needs_wrappers(fabric: Fabric) -> bool:
    """Return whether a step needs more than the raw module and optimizer."""
    return fabric.world_size > 1 or fabric.strategy.precision.precision != "32-true"


def _raw(optimizer: Optimizer) -> Optimizer:
    return optimizer.optimizer if isinstance(optimizer, FabricOptimizer) else optimizer
