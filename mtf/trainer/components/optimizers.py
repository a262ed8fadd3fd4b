"""Optimizers of torch by their lower-case names, each given the keys that it has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from mtf.errors import MtfError
from mtf.trainer.components.registry import call, load, unknown
from mtf.trainer.runtime.console import say

if TYPE_CHECKING:
    from mtf.spec.schema.sections import OptimizerConfig

Optimizers = torch.optim.Optimizer | Mapping[str, torch.optim.Optimizer]
OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    name.lower(): found
    for name, found in vars(torch.optim).items()
    if isinstance(found, type) and issubclass(found, torch.optim.Optimizer)
    # LBFGS wants a function that computes the loss again, which this loop has not
    if found not in (torch.optim.Optimizer, torch.optim.LBFGS)
}


OPTIMIZER = "optimizer"  # the name of the one there is, where there are not several


def by_name(given: Optimizers) -> dict[str, torch.optim.Optimizer]:
    """Return one or several optimizers by name.

    Raises:
        MtfError: an empty dict.
    """
    if isinstance(given, Mapping) and not given:
        raise MtfError("there must be at least one optimizer")
    return dict(given) if isinstance(given, Mapping) else {OPTIMIZER: given}


def build_optimizer(config: OptimizerConfig, model: torch.nn.Module) -> Optimizers:
    """Return the optimizer of a configuration over a model's parameters.

    A model's own ``configure_optimizers(config)`` is called where it has one, with the section; it
    returns an optimizer, or a dict of several by name.

    Raises:
        MtfError: the name or a key is unknown, or the model has no parameters to train.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise MtfError(f"the model {type(model).__name__} has no parameters to train")
    if hasattr(model, "configure_optimizers"):
        return _checked(model.configure_optimizers(config), model)  # type: ignore[operator]
    if ":" in config.type:
        factory = load(config.type, key="optimizer.type")
    elif (factory := OPTIMIZERS.get(config.type.lower())) is None:
        raise unknown("optimizer.type", config.type, OPTIMIZERS)
    offered = {"lr": config.lr, "weight_decay": config.weight_decay, "betas": config.betas}
    made = call(
        factory, key="optimizer", asked=config.further, offered={"params": parameters, **offered}
    )
    _say_what_is_not_used(made, config)
    return made  # type: ignore[no-any-return]  # a user's factory is taken at its word


def _checked(made: Any, model: torch.nn.Module) -> Optimizers:
    several = list(made.values()) if isinstance(made, Mapping) else [made]
    if not several or not all(isinstance(one, torch.optim.Optimizer) for one in several):
        raise MtfError(
            f"{type(model).__name__}.configure_optimizers returned a {type(made).__name__}: return"
            " an optimizer of torch, or a dict of several by name"
        )
    return made  # type: ignore[no-any-return]  # just checked


def _say_what_is_not_used(made: Any, config: OptimizerConfig) -> None:
    fields = type(config).model_fields
    for name in ("lr", "weight_decay", "betas"):
        value = getattr(config, name)
        if name not in made.defaults and value not in (fields[name].default, 0):
            say(f"optimizer.{name}: {type(made).__name__} has none, so {value} is not used")
