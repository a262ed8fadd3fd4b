"""Optimizers of torch by their lower-case names, built with the keys that each one takes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from mtf.errors import MtfError
from mtf.trainer.components.registry import call, load, unknown_name
from mtf.trainer.runtime.console import say

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtf.spec.schema.sections import OptimizerConfig

Optimizers = torch.optim.Optimizer | Mapping[str, torch.optim.Optimizer]
OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    name.lower(): found
    for name, found in vars(torch.optim).items()
    if isinstance(found, type) and issubclass(found, torch.optim.Optimizer)
    if found is not torch.optim.Optimizer
}


OPTIMIZER = "optimizer"  # the name of a single optimizer


def optimizers_by_name(given: Optimizers) -> dict[str, torch.optim.Optimizer]:
    """Return one or several optimizers as a dict from name to optimizer.

    Raises:
        MtfError: the dict is empty.
    """
    if isinstance(given, Mapping) and not given:
        raise MtfError("the dict of optimizers is empty: return at least one optimizer")
    return dict(given) if isinstance(given, Mapping) else {OPTIMIZER: given}


def learning_rates(optimizers: Mapping[str, torch.optim.Optimizer]) -> dict[str, float]:
    """Return the learning rates as a row of scalars names them.

    ``lr`` is the rate of the first group of the first optimizer. Beside it stands the rate of each
    parameter group, unless it is the only one: ``lr/<group>``, and of several optimizers
    ``lr/<optimizer>/<group>`` or, if the optimizer has one group, ``lr/<optimizer>``. A group is
    called by its key ``name`` if all groups of the optimizer have different ones, else by its
    index.
    """
    found: dict[str, float] = {}
    for name, optimizer in optimizers.items():
        groups = optimizer.param_groups
        names = [str(group.get("name", index)) for index, group in enumerate(groups)]
        if len(set(names)) < len(names):
            names = [str(index) for index in range(len(groups))]
        for group, own in zip(groups, names, strict=True):
            parts = [name] * (len(optimizers) > 1) + [own] * (len(groups) > 1)
            found["/".join(["lr", *parts])] = float(group["lr"])
    return {"lr": next(iter(found.values())), **found}


def build_optimizer(config: OptimizerConfig, model: torch.nn.Module) -> Optimizers:
    """Return the optimizer that a configuration names, for the parameters of a model.

    If the model has a method ``configure_optimizers(config)``, it is called with the section
    instead. It returns an optimizer, or a dict of optimizers by name.

    Raises:
        MtfError: a name or key is unknown, or the model has no parameters to train.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise MtfError(f"the model {type(model).__name__} has no parameters to train")
    configure: Callable[[OptimizerConfig], Any] | None
    if (configure := getattr(model, "configure_optimizers", None)) is not None:
        return _checked(_call_configure(configure, config, model), model)
    if ":" in config.type:
        factory = load(config.type, key="optimizer.type")
    elif (factory := OPTIMIZERS.get(config.type.lower())) is None:
        raise unknown_name("optimizer.type", config.type, OPTIMIZERS)
    if factory is torch.optim.Muon and any(parameter.dim() != 2 for parameter in parameters):
        raise MtfError(
            "optimizer.type: Muon trains matrices alone, and the model has parameters of other"
            " shapes: let its configure_optimizers(config) return two optimizers by name, Muon for"
            " the matrices and another one, such as AdamW, for the rest"
        )
    offered = {name: getattr(config, name) for name in config.defaulted - config.left_out}
    optimizer: torch.optim.Optimizer = call(
        factory,
        key="optimizer",
        asked=config.further,
        offered=offered,
        parts={"params": parameters},
    )
    _report_unused_settings(optimizer, config)
    return optimizer


def _call_configure(
    configure: Callable[[OptimizerConfig], Any], config: OptimizerConfig, model: torch.nn.Module
) -> Any:
    """Call a model's ``configure_optimizers``.

    Raises:
        MtfError: it does not take the section alone.
    """
    try:
        inspect.signature(configure).bind(config)
    except TypeError as e:
        raise MtfError(
            f"{type(model).__name__}.configure_optimizers gets the section optimizer: define it"
            f" with (self, config) ({e})"
        ) from e
    except ValueError:  # not written in Python
        pass
    return configure(config)


def _checked(returned: Any, model: torch.nn.Module) -> Optimizers:
    optimizers = list(returned.values()) if isinstance(returned, Mapping) else [returned]
    if not optimizers or not all(isinstance(o, torch.optim.Optimizer) for o in optimizers):
        raise MtfError(
            f"{type(model).__name__}.configure_optimizers returned a {type(returned).__name__}:"
            " return a torch optimizer, or a dict of optimizers by name (the spec's section"
            " scheduler names the schedulers)"
        )
    checked: Optimizers = returned
    return checked


def _report_unused_settings(optimizer: torch.optim.Optimizer, config: OptimizerConfig) -> None:
    fields = type(config).model_fields
    for name in ("lr", "weight_decay", "betas"):
        value = getattr(config, name)
        if name not in optimizer.defaults and value not in (fields[name].default, 0):
            kind = type(optimizer).__name__
            say(f"optimizer.{name}: {value} is ignored: {kind} has no such setting")
