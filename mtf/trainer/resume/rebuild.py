"""Brings a training, as it is built, to the structure of a saved state, where that is certain.

A training may have changed its structure since it was built: buffers have grown, were replaced or
came later, tensors have another type, an optimizer got further groups. The names in the state say
how. New parameters and modules are for the user's code, see ``Callback.before_load``.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from mtf.errors import MtfError
from mtf.trainer.compute.structure import (
    Structure,
    names_by_group,
    overwrite,
    put_saved_buffers,
    shape_of,
)
from mtf.trainer.resume.compatibility import BEFORE_LOAD, fit_after_rebuild

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import nn
    from torch.optim import Optimizer

    from mtf.trainer.compute.step import StepEngine
    from mtf.trainer.compute.structure import Names


def rebuild(engine: StepEngine, content: Mapping[str, Any]) -> None:
    """Give module and optimizers the structure that a saved state of the same run has.

    A state that an earlier version saved has no names to go by; then nothing is changed.

    Raises:
        MtfError: the module lacks parameters, or has other ones.
    """
    if "requires_grad" not in content:
        return
    fit = fit_after_rebuild(Structure.of(engine.module, engine.optimizers), content)
    if not fit.is_whole:
        raise MtfError(f"the checkpoint is of another model: {fit}. {BEFORE_LOAD}")
    _rebuild_tensors(engine, content["model"], content["requires_grad"])
    for name, names in content["groups"].items():
        built = engine.built.groups.get(name, [])
        # else it is another optimizer, which is refused later
        if name in engine.optimizers and _are_alike(built, content["built_groups"][name]):
            _rebuild_groups(engine.module, name, engine.optimizers[name], names)


def _are_alike(left: Names, right: Names) -> bool:
    """Return True if groups hold the same parameters, whose order may depend on a set's."""
    return list(map(Counter, left)) == list(map(Counter, right))


# -- tensors ---------------------------------------------------------------------------------------


def _rebuild_tensors(
    engine: StepEngine, saved: Mapping[str, Any], requires_grad: Mapping[str, bool]
) -> None:
    """Prepare parameters and buffers for a state that has other types, shapes or buffers."""
    module = engine.module
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if _has_other_type(parameter, saved.get(name)):  # torch would load it as it is built
            overwrite(parameter, saved[name])
    put_saved_buffers(module, saved, requires_grad, engine.device)


def _has_other_type(parameter: nn.Parameter, saved: Any) -> bool:
    if shape_of(saved) is None or shape_of(parameter) is None:
        return False
    is_other: bool = parameter.dtype != saved.dtype
    return is_other


# -- groups of parameters --------------------------------------------------------------------------


def _rebuild_groups(module: nn.Module, name: str, optimizer: Optimizer, saved: Names) -> None:
    """Give an optimizer the groups that it had, each with its parameters in their order.

    Torch matches saved state with parameters by their place alone.
    """
    present = names_by_group(module, {name: optimizer})[name]
    if present == saved:
        return
    known = dict(module.named_parameters())
    others = _others(optimizer, present)
    wanted: list[list[torch.Tensor]] = []
    for index, names in enumerate(saved):
        found = [known.get(n) if n else others.get((index, i)) for i, n in enumerate(names)]
        wanted.append([parameter for parameter in found if parameter is not None])
        if len(wanted[-1]) < len(names):
            lost = names[next(i for i, parameter in enumerate(found) if parameter is None)]
            what = f"{lost}, which the model lacks" if lost else "one that is not the model's"
            raise MtfError(
                f"the checkpoint's {name} has, among the parameters of group {index}, {what}"
                f". {BEFORE_LOAD}"
            )
    if present == saved[: len(present)]:
        for names, parameters in zip(saved[len(present) :], wanted[len(present) :], strict=True):
            is_named = "param_names" in optimizer.param_groups[0]
            given: Any = list(zip(names, parameters, strict=True)) if is_named else parameters
            optimizer.add_param_group({"params": given})
        return
    groups = [*optimizer.param_groups, *([optimizer.defaults] * len(wanted))]
    optimizer.param_groups[:] = [
        {**group, "params": parameters} for group, parameters in zip(groups, wanted, strict=False)
    ]


def _others(optimizer: Optimizer, present: Names) -> dict[tuple[int, int], torch.Tensor]:
    """Return the parameters that are not the module's, by group and place."""
    return {
        (i, j): optimizer.param_groups[i]["params"][j]
        for i, names in enumerate(present)
        for j, name in enumerate(names)
        if name is None
    }
