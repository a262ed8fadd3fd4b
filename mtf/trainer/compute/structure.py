"""The structure of a module and its optimizers: names, shapes, groups. What mtf cannot train.

A training may change its structure, such as by a group of parameters that is added in its third
epoch; a resume must build it again before the state fits.
"""

from __future__ import annotations

import copy
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, is_lazy

from mtf.errors import MtfError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from torch.optim import Optimizer

Shape = tuple[int, ...]
Names = list[list[str | None]]  # of the parameters in each group; None: not one of the module's


@dataclass(frozen=True)
class Structure:
    """Names and shapes of a module's state as it was at one moment.

    Attributes:
        shapes: of the tensors in its state; None where a lazy module has none yet.
        modules: names of its modules.
        adapting: names of the modules that fit themselves or the state when it is loaded.
        requires_grad: of each parameter.
        parameters: references to the parameters, which do not keep them.
        groups: the parameters in the groups of each optimizer.
    """

    shapes: Mapping[str, Shape | None]
    modules: frozenset[str]
    adapting: tuple[str, ...]
    requires_grad: Mapping[str, bool]
    parameters: Mapping[str, weakref.ref[nn.Parameter]]
    groups: Mapping[str, Names]

    @classmethod
    def of(cls, module: nn.Module, optimizers: Mapping[str, Optimizer]) -> Structure:
        """Return the present structure."""
        return cls(
            shapes={name: shape_of(value) for name, value in module.state_dict().items()},
            modules=frozenset(name for name, _ in module.named_modules()),
            adapting=tuple(n for n, part in module.named_modules() if _adapts(part)),
            requires_grad=requires_grad_of(module),
            parameters={name: weakref.ref(p) for name, p in module.named_parameters()},
            groups=names_by_group(module, optimizers),
        )

    def adapts(self, name: str) -> bool:
        """Return True if the module that holds a name decides itself what fits."""
        return any(name.startswith(f"{part}." if part else "") for part in self.adapting)


def shape_of(value: Any) -> Shape | None:
    """Return a tensor's shape; None for any other value, and for a tensor that has none yet."""
    if not isinstance(value, torch.Tensor) or is_lazy(value):
        return None
    return tuple(value.shape)


def _adapts(part: nn.Module) -> bool:
    loads_itself = type(part)._load_from_state_dict is not nn.Module._load_from_state_dict  # noqa: SLF001
    is_torchs = type(part).__module__.startswith("torch.nn.modules.")  # such as BatchNorm
    return (loads_itself and not is_torchs) or bool(part._load_state_dict_pre_hooks)  # noqa: SLF001


def names_by_group(module: nn.Module, optimizers: Mapping[str, Optimizer]) -> dict[str, Names]:
    """Return the names of the parameters in each group of each optimizer."""
    by_id = {id(parameter): name for name, parameter in module.named_parameters()}
    return {
        optimizer_name: [[by_id.get(id(p)) for p in g["params"]] for g in optimizer.param_groups]
        for optimizer_name, optimizer in optimizers.items()
    }


def requires_grad_of(module: nn.Module) -> dict[str, bool]:
    """Return the ``requires_grad`` of each parameter; a shared one has several names."""
    named = module.named_parameters(remove_duplicate=False)
    return {name: parameter.requires_grad for name, parameter in named}


def put_requires_grad(module: nn.Module, saved: Mapping[str, bool]) -> None:
    """Freeze and unfreeze the parameters as ``requires_grad_of`` said."""
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if name in saved:
            parameter.requires_grad = saved[name]  # its method refuses lazy ones


def refuse_untrained(
    module: nn.Module, optimizers: Mapping[str, Optimizer], built: Structure
) -> None:
    """Refuse parameters that were made after the optimizers, none of which has them.

    Others that no optimizer has may be meant to stay as they are.

    Raises:
        MtfError: there are such parameters.
    """
    held = {id(p) for o in optimizers.values() for g in o.param_groups for p in g["params"]}
    then = built.parameters
    found = [
        name
        for name, parameter in module.named_parameters()
        if id(parameter) not in held and parameter.requires_grad
        if name not in then or then[name]() is not parameter
    ]
    if found:
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise MtfError(
            f"no optimizer has {', '.join(found[:_SHOWN])}{more}, made after the optimizers were:"
            " such parameters stay as they are. Make them where the model is built (torch has"
            " nn.LazyLinear and others for unknown sizes), or give them to an optimizer by its"
            " add_param_group"
        )


_SHOWN = 5


def refuse_sharded(module: nn.Module, optimizers: Mapping[str, Optimizer], strategy: str) -> None:
    """Refuse a training whose state is spread over its processes.

    Only the first process writes checkpoints, so they would hold its shards alone.

    Raises:
        MtfError: the state is sharded.
    """
    if (found := _sharded(module, optimizers, strategy)) is not None:
        raise MtfError(
            f"{found}, so each process has only a part of the state, and mtf cannot save such a"
            " state yet: train with whole copies of the model (DDP, which mtf sets up itself)"
        )


def refuse_lazy(module: nn.Module) -> None:
    """Refuse parameters without a shape, which several processes cannot train.

    Raises:
        MtfError: there are such parameters.
    """
    lazy = [name for name, p in module.named_parameters() if shape_of(p) is None]
    if lazy:
        raise MtfError(
            f"{lazy[0]} has no shape before the first batch, and several processes (DDP) need it at"
            " the start: pass an example through the model where it is built, or train with one"
            " process"
        )


def overwrite(tensor: torch.Tensor, value: torch.Tensor) -> None:
    """Give a tensor another's values, type and shape; it stays the same object."""
    with torch.no_grad():
        if is_lazy(tensor):
            cast("Any", tensor).materialize(value.shape, dtype=value.dtype)
        if tensor.shape == value.shape and tensor.dtype == value.dtype:
            tensor.copy_(value)
        else:
            tensor.data = value.to(tensor.device, copy=True)


def put_buffer(
    owner: nn.Module, name: str, value: torch.Tensor | None, *, persistent: bool
) -> None:
    """Give a module's buffer a value of any type and shape, or None; make it if it is missing."""
    present = owner._buffers.get(name)  # noqa: SLF001 -- torch has no public name for one that is None
    if value is not None and present is not None:
        overwrite(present, value)
    elif name in owner._buffers:  # noqa: SLF001 -- as above
        setattr(owner, name, value)
    elif value is not None:
        owner.register_buffer(name, value, persistent=persistent)


def put_saved_buffers(
    module: nn.Module,
    saved: Mapping[str, Any],
    parameters: Collection[str],
    device: torch.device | None = None,
) -> None:
    """Give a module the persistent buffers that a saved state has, of whatever type and shape.

    Args:
        module: the module.
        saved: the state, whose parameters are left alone.
        parameters: names of the parameters in it.
        device: for buffers that the module lacks.
    """
    present = dict(module.named_parameters(remove_duplicate=False))
    owners = dict(module.named_modules(remove_duplicate=False))
    for name, value in saved.items():
        path, _, last = name.rpartition(".")
        is_buffer = name not in present and name not in parameters and shape_of(value) is not None
        if is_buffer and path in owners:
            put_buffer(owners[path], last, value.to(device), persistent=True)
    for name in module.state_dict().keys() - saved.keys() - present.keys():
        path, _, last = name.rpartition(".")
        put_buffer(owners[path], last, None, persistent=True)


# -- copies of a module ----------------------------------------------------------------------------


def copy_of(module: nn.Module) -> nn.Module:
    """Return a copy of a module, which may be lazy.

    Raises:
        MtfError: something in it cannot be copied, such as a lock or a tensor with a graph.
    """
    lazy = (buffer for buffer in module.buffers() if is_lazy(buffer))
    # torch cannot copy them
    made: Any = UninitializedBuffer
    memo = {id(buffer): made(dtype=buffer.dtype) for buffer in lazy}
    try:
        return copy.deepcopy(module, memo)
    except (TypeError, RuntimeError) as e:
        raise MtfError(
            f"callbacks.ema: {type(module).__name__} cannot be copied"
            f" ({str(e).partition('. ')[0].rstrip('.')}): keep locks and open files out of it,"
            " detach tensors that it keeps, and use torch.nn.utils.parametrizations.weight_norm in"
            " place of torch.nn.utils.weight_norm"
        ) from e


def follow(copied: nn.Module, module: nn.Module) -> None:
    """Give a copy of a module the structure that the module has now.

    It stays the same object, and parameters that had their shape before keep their values.
    """
    mine, theirs = ([*m.parameters(), *m.buffers()] for m in (copied, module))
    if len(mine) == len(theirs) and all(map(_is_alike, mine, theirs)):
        return
    kept = dict(copied.named_parameters())
    present = dict(module.named_parameters())
    if _names(copied) != _names(module) or not all(
        is_lazy(kept[name]) or _is_alike(kept[name], present[name]) for name in present
    ):
        vars(copied).clear()
        vars(copied).update(vars(copy_of(module)))
        copied.eval()
    for name, parameter in copied.named_parameters():
        old = kept.get(name)
        source = old if old is not None and _is_alike(old, present[name]) else present[name]
        if shape_of(source) is not None and source is not parameter:
            overwrite(parameter, source)
    _follow_buffers(copied, module)


def _is_alike(left: torch.Tensor, right: torch.Tensor) -> bool:
    return shape_of(left) == shape_of(right) and left.dtype == right.dtype


def _names(module: nn.Module) -> tuple[list[str], list[str]]:
    modules = [name for name, _ in module.named_modules()]
    return modules, [name for name, _ in module.named_parameters()]


def _follow_buffers(copied: nn.Module, module: nn.Module) -> None:
    owners = dict(copied.named_modules())
    for path, part in module.named_modules():
        buffers, own = part._buffers, owners[path]._buffers  # noqa: SLF001 -- as above
        for name, value in buffers.items():
            unsaved = name in part._non_persistent_buffers_set  # noqa: SLF001 -- as above
            if value is None or not is_lazy(value):
                value_now = None if value is None else value.clone()
                put_buffer(owners[path], name, value_now, persistent=not unsaved)
        for name in own.keys() - buffers.keys():
            delattr(owners[path], name)


# -- sharding --------------------------------------------------------------------------------------


def _sharded(module: nn.Module, optimizers: Mapping[str, Optimizer], strategy: str) -> str | None:
    if strategy in _SHARDING_STRATEGIES:
        return f"Fabric's {strategy} shards the model"
    for name, part in module.named_modules():
        if is_from(part, _SHARDING_MODULES):
            return f"{name or 'the model'} is wrapped by FSDP or DeepSpeed"
    tensors = [*module.named_parameters(), *module.named_buffers()]
    for name, tensor in tensors:
        if is_sharded(tensor):
            return f"{name} is a {type(tensor).__name__}"
    for name, optimizer in optimizers.items():
        if is_from(optimizer, ("torch.distributed.optim", "deepspeed")):
            return f"{name} is a {type(optimizer).__name__}"
    return None


def is_sharded(tensor: torch.Tensor) -> bool:
    """Return True if a tensor is one process's part of a greater one."""
    return is_from(tensor, _SHARDING_TENSORS) or is_from(tensor.data, _SHARDING_TENSORS)


_SHARDING_STRATEGIES = {
    "FSDPStrategy",
    "ModelParallelStrategy",
    "DeepSpeedStrategy",
    "XLAFSDPStrategy",
}
_SHARDING_MODULES = ("torch.distributed.fsdp", "torch.distributed._composable.fsdp", "deepspeed")
_SHARDING_TENSORS = ("torch.distributed.tensor", "torch.distributed._shard")


def is_from(value: object, packages: tuple[str, ...]) -> bool:
    """Return True if a value's class comes from one of the packages, which stay unimported."""
    return any(cls.__module__.startswith(packages) for cls in type(value).__mro__)
