"""The step engine: forward, backward, clipping and optimizer step, on the raw module if possible.

Fabric's wrappers of module, optimizer and backward cost 70 µs and more a step. They are used only
for several ranks and for mixed precision, which need them.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from torch.nn.parameter import is_lazy
from torch.nn.utils import clip_grad_norm_, clip_grad_value_, get_total_norm
from torch.optim import Optimizer

from mtf.errors import MtfError
from mtf.trainer.compute.compilation import compile_in_place
from mtf.trainer.compute.digests import digest_of
from mtf.trainer.compute.fabric import FabricModule, FabricOptimizer
from mtf.trainer.compute.structure import (
    Structure,
    put_buffer,
    refuse_lazy,
    refuse_sharded,
    refuse_untrained,
    requires_grad_of,
)
from mtf.trainer.compute.trainable import refuse_untrainable, takes_closure

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    import torch
    from lightning.fabric import Fabric
    from torch import nn

    from mtf.spec.schema.sections import TrainingConfig

T = TypeVar("T")
_REQUIRES_GRAD = operator.attrgetter("requires_grad")


class StepEngine:
    """Module and optimizers on their device, and the operations of a step on them.

    Attributes:
        module: the raw module, whose state checkpoints hold.
        optimizers: the raw optimizers by name, likewise.
        forward: the module that computes: the raw one or Fabric's wrapper of it.
        takes_closure: whether the optimizer's step computes the loss again, as that of LBFGS.
        built: the structure of module and optimizers at the start of this process.
        device: the device of all of these.

    Raises:
        MtfError: the model is sharded.
    """

    def __init__(
        self,
        fabric: Fabric,
        model: nn.Module,
        optimizers: Mapping[str, Optimizer],
        training: TrainingConfig,
    ) -> None:
        self._fabric, self.device, self._training = fabric, fabric.device, training
        self._is_wrapped = isinstance(model, FabricModule) or needs_wrappers(fabric)
        self.module: nn.Module = model.module if isinstance(model, FabricModule) else model
        raw = {name: _raw(optimizer) for name, optimizer in optimizers.items()}
        self.optimizers = MappingProxyType(raw)  # another optimizer would not be the one that steps
        refuse_sharded(self.module, self.optimizers, type(fabric.strategy).__name__)
        refuse_untrainable(self.module, self.optimizers)
        self.takes_closure = takes_closure(
            self.optimizers, training, is_plain=not needs_wrappers(fabric)
        )
        if fabric.world_size > 1:
            refuse_lazy(self.module)
        if training.compile:
            compile_in_place(self.module)
        self.forward, self._stepping = model, dict(optimizers)
        if not self._is_wrapped:
            self.module.to(self.device)
        elif not isinstance(model, FabricModule):
            self.forward, *wrapped = fabric.setup(model, *optimizers.values())
            self._stepping = dict(zip(optimizers, wrapped, strict=True))
        self.built = Structure.of(self.module, self.optimizers)
        self._is_checked = False  # after the first step, see ``commit``
        # number of parameters whose gradients the ranks exchange; None: one rank
        needed = sum(map(_REQUIRES_GRAD, self.module.parameters()))
        self._exchanged = needed if fabric.world_size > 1 else None
        self._as_built = dict(self._buffers_as_built(self.module.state_dict().keys()))
        self._moves = self.device.type != "cpu"
        self._unsynced: AbstractContextManager[None] = nullcontext()
        skips = training.on_nonfinite in ("skip", "stop")
        self._guards = skips and self.scaler is None  # the scaler leaves such steps out itself
        clips = training.max_grad_norm is not None or training.max_grad_value is not None
        self._prepares = clips or self._guards  # something to do with gradients before a step
        self._noted: dict[str, torch.Tensor] = {}  # the buffers' values, see ``note_buffers``
        self._newest_loss: torch.Tensor | None = None  # see ``_step_with``
        self._modes: list[tuple[nn.Module, bool]] | None = None  # see ``enter_evaluation``

    def _buffers_as_built(
        self, saved: Collection[str]
    ) -> Iterator[tuple[str, tuple[torch.Tensor, int, str]]]:
        """Yield each buffer's name, tensor and version, and its digest if it is not in ``saved``.

        Torch counts writes to a tensor in its version, except those of the kernels of BatchNorm.
        """
        for name, buffer in self.module.named_buffers():
            digest = "" if name in saved or is_lazy(buffer) else digest_of(buffer)
            yield name, (buffer, buffer._version, digest)  # noqa: SLF001 -- torch has no public name

    def enter_evaluation(self) -> None:
        """Put the module in evaluation mode; ``leave_evaluation`` puts the modes back."""
        if self._modes is None:
            self._modes = [(module, module.training) for module in self.module.modules()]
        self.module.eval()

    def leave_evaluation(self) -> None:
        """Put each module back in the mode that it had before ``enter_evaluation``."""
        for module, training in self._modes or ():
            module.training = training
        self._modes = None

    def evaluating(self) -> list[str]:
        """Return the names of the modules that are in evaluation mode while the others train.

        Within an evaluation, these are the ones that will be in that mode after it.
        """
        modes = {id(module): training for module, training in self._modes or ()}
        return [
            name
            for name, module in self.module.named_modules()
            if not modes.get(id(module), module.training)
        ]

    def put_evaluating(self, names: Collection[str]) -> None:
        """Put the modules that ``evaluating`` returned in evaluation mode, the others in training.

        An evaluation, if there is one, is over.
        """
        self._modes = None
        for name, module in self.module.named_modules():
            module.training = name not in names

    def placed(self, batch: Any) -> Any:
        """Return the batch on the device."""
        return self._fabric.to_device(batch) if self._moves else batch

    def compute(self, function: Callable[[Any], T], batch: Any) -> T:
        """Call a function of a batch in the configured precision."""
        if not self._is_wrapped:
            return function(batch)
        with self._fabric.autocast():
            return function(batch)

    def delay_exchange(self, *, delayed: bool) -> None:
        """Let the next backward pass exchange gradients unless ``delayed``; call before forward.

        Inside an accumulation window the other ranks' gradients are not needed yet.
        """
        self._unsynced = nullcontext()
        if delayed and self._fabric.world_size > 1:
            self._unsynced = self._fabric.no_backward_sync(self.forward, enabled=True)  # type: ignore[arg-type]
        self._unsynced.__enter__()

    def note_buffers(self) -> None:
        """Remember the buffers, such as running means, before a forward pass.

        ``backward`` restores them if the loss is not finite.
        """
        buffers = self.module.named_buffers()
        self._noted = {name: buffer.clone() for name, buffer in buffers if not is_lazy(buffer)}

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of a loss."""
        if self._is_wrapped:
            self._fabric.backward(loss)
            self._unsynced.__exit__(None, None, None)
        else:
            loss.backward()
        if self.takes_closure:
            self._newest_loss = loss
        if self._noted and not loss.isfinite():
            self.put_buffers(self._noted, ())

    def divide_gradients(self, divisor: float | torch.Tensor, active: Collection[str]) -> None:
        """Divide the gradients of the optimizers named by a number, before a step."""
        groups = [group for name in active for group in self.optimizers[name].param_groups]
        parameters = {id(p): p for group in groups for p in group["params"]}  # some may share
        for parameter in parameters.values():
            if parameter.grad is not None:
                parameter.grad.div_(divisor)

    def commit(
        self, active: Collection[str], recompute: Callable[[], torch.Tensor] | None = None
    ) -> bool:
        """Unscale, clip, step, update the scaler, and drop all gradients.

        Args:
            active: names of the optimizers that step.
            recompute: computes the batch's loss again; needed where ``takes_closure``.

        Returns:
            True if the step was taken. It is skipped, its gradients dropped, if they are not
            finite and ``training.on_nonfinite`` is set.
        """
        finite = not self._prepares or all(self._prepare(self.optimizers[name]) for name in active)
        if finite:
            for name in active:
                if self.takes_closure and recompute is not None:
                    self._step_with(recompute, self.optimizers[name])
                else:
                    self._stepping[name].step()
        self.drop_gradients()
        if not self._is_checked:
            self.refuse_untrained()
            self._is_checked = True
        if self._exchanged is not None:
            self._refuse_unexchanged()
        return finite

    def drop_gradients(self) -> None:
        """Set the gradients of all optimizers' parameters to None.

        Torch's own method does the same under a record for its profiler, which costs 10 µs a step.
        """
        for optimizer in self.optimizers.values():
            if type(optimizer).zero_grad is not Optimizer.zero_grad:
                optimizer.zero_grad()  # it may do more
                continue
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None

    def _step_with(self, recompute: Callable[[], torch.Tensor], optimizer: Optimizer) -> None:
        """Take a step of LBFGS, which first asks for the loss where the weights still are.

        That loss and its gradients are there already.
        """
        newest, self._newest_loss = self._newest_loss, None

        def closure() -> torch.Tensor:
            nonlocal newest
            loss, newest = newest, None
            if loss is None:
                optimizer.zero_grad()
                loss = recompute()
                loss.backward()
                self._prepare(optimizer)
            return loss.detach()

        optimizer.step(closure)  # type: ignore[arg-type]

    def refuse_untrained(self) -> None:
        """Refuse parameters that the model has got since it was built, and that nothing trains.

        Raises:
            MtfError: there are such parameters.
        """
        refuse_untrained(self.module, self.optimizers, self.built)

    def _refuse_unexchanged(self) -> None:
        """Refuse parameters that need gradients now and did not when DDP was set up.

        DDP never exchanges their gradients, so the ranks' weights would drift apart.

        Raises:
            MtfError: there are such parameters.
        """
        assert self._exchanged is not None
        if sum(map(_REQUIRES_GRAD, self.module.parameters())) > self._exchanged:
            then, now = self.built.requires_grad, requires_grad_of(self.module)
            name = next(name for name, needed in now.items() if needed > then.get(name, False))
            raise MtfError(
                f"{name} needs gradients now and did not at the start, when the processes agreed"
                " which gradients to exchange: train with one process, or leave requires_grad on"
                " and give its group the learning rate 0 until then"
            )

    def _prepare(self, optimizer: Optimizer) -> bool:
        """Unscale and clip an optimizer's gradients; return False if it must not step on them."""
        max_norm, max_value = self._training.max_grad_norm, self._training.max_grad_value
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if self.scaler is not None:
            self.scaler.unscale_(optimizer)
        if any(p.grad is not None and p.grad.is_sparse for p in parameters):
            return self._prepare_sparse(parameters)
        finite = not self._guards or _finite(parameters)
        if max_value is not None:
            clip_grad_value_(parameters, max_value)
        if max_norm is not None:
            clip_grad_norm_(parameters, max_norm)
        return finite

    def _prepare_sparse(self, parameters: list[nn.Parameter]) -> bool:
        """Clip gradients some of which are sparse, as if they were dense; return as ``_prepare``.

        Torch clips dense gradients only. The values of a coalesced one are all that is not zero.
        """
        values = []
        for parameter in parameters:
            if parameter.grad is not None and parameter.grad.is_sparse:
                parameter.grad = parameter.grad.coalesce()
                values.append(parameter.grad._values())  # noqa: SLF001 -- torch's only view of them
            elif parameter.grad is not None:
                values.append(parameter.grad)
        max_norm, max_value = self._training.max_grad_norm, self._training.max_grad_value
        finite = not self._guards or math.isfinite(get_total_norm(values))
        if max_value is not None:
            for value in values:
                value.clamp_(-max_value, max_value)
        if max_norm is not None:
            scale = max_norm / (get_total_norm(values) + 1e-6)  # as torch computes it
            for value in values:
                value.mul_(scale.clamp(max=1.0))
        return finite

    @property
    def scaler(self) -> Any | None:
        """Return the gradient scaler of 16-bit mixed precision; None in any other precision."""
        return getattr(self._fabric.strategy.precision, "scaler", None)

    @property
    def spreads_buffers(self) -> bool | None:
        """Return True if the next forward pass broadcasts the first rank's buffers; None: one rank.

        DDP does so after a pass that exchanged gradients.
        """
        ddp = getattr(self.forward, "_forward_module", None)
        return getattr(ddp, "require_forward_param_sync", None)

    @spreads_buffers.setter
    def spreads_buffers(self, value: bool) -> None:
        vars(self.forward._forward_module)["require_forward_param_sync"] = value  # noqa: SLF001

    def gradients(self) -> dict[str, torch.Tensor | None]:
        """Return the gradient of each parameter; None stays None, since optimizers skip those."""
        return {name: parameter.grad for name, parameter in self.module.named_parameters()}

    def unsaved_buffers(self) -> dict[str, torch.Tensor | None]:
        """Return the non-persistent buffers that this process has changed; None: it is None now.

        They are not part of the module's state, but of the training's.
        """
        saved = self.module.state_dict().keys()
        present = dict(self.module.named_buffers())
        changed = {
            name: buffer
            for name, buffer in present.items()
            if name not in saved and self._is_changed(name, buffer)
        }
        gone = [name for name in self._as_built if name not in present and self._has(name)]
        return {**changed, **dict.fromkeys(gone)}

    def _has(self, name: str) -> bool:
        """Return True if the module has a buffer of that name, which may be None."""
        path, _, last = name.rpartition(".")
        owner = dict(self.module.named_modules()).get(path)
        return owner is not None and last in owner._buffers  # noqa: SLF001 -- torch skips None

    def _is_changed(self, name: str, buffer: torch.Tensor) -> bool:
        built, version, digest = self._as_built.get(name, (None, 0, ""))
        is_same = buffer is built and buffer._version == version  # noqa: SLF001 -- as above
        return not is_same or digest_of(buffer) != digest

    def replaced_buffers(self) -> list[str]:
        """Return the names of the buffers that are not the tensors of the built module any more.

        DDP broadcasts the first rank's values to the tensors it was built with, and to no others.
        """
        return [
            name
            for name, buffer in self.module.named_buffers()
            if buffer is not self._as_built.get(name, (None,))[0]
        ]

    def put_buffers(
        self, buffers: Mapping[str, torch.Tensor | None], replaced: Collection[str]
    ) -> None:
        """Restore buffers that are not in the module's state, or differ on this rank."""
        for name, value in buffers.items():
            on_device = None if value is None else value.to(self.device)
            put_buffer(*self._owner(name), on_device, persistent=False)
        for name in replaced:
            owner, last = self._owner(name)
            setattr(owner, last, getattr(owner, last).clone())

    def _owner(self, name: str) -> tuple[nn.Module, str]:
        path, _, last = name.rpartition(".")
        return self.module.get_submodule(path), last

    def put_gradients(
        self, gradients: Mapping[str, torch.Tensor | None] | list[torch.Tensor | None]
    ) -> None:
        """Restore the gradients that ``gradients`` returned; earlier versions saved a list."""
        named = dict(self.module.named_parameters())
        if not isinstance(gradients, Mapping):
            gradients = dict(zip(named, gradients, strict=True))
        for name, gradient in gradients.items():
            parameter = named[name]
            parameter.grad = None if gradient is None else gradient.to(parameter.device)


def _finite(parameters: list[nn.Parameter]) -> bool:
    norm = get_total_norm([p.grad for p in parameters if p.grad is not None])
    return math.isfinite(norm)


def needs_wrappers(fabric: Fabric) -> bool:
    """Return True if a step needs Fabric's wrappers of module and optimizer."""
    return fabric.world_size > 1 or fabric.strategy.precision.precision != "32-true"


def _raw(optimizer: Optimizer) -> Optimizer:
    return optimizer.optimizer if isinstance(optimizer, FabricOptimizer) else optimizer
