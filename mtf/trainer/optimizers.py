"""Optimizers of torch by their lower-case names, each given the keys that it has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from mtf.errors import MtfError
from mtf.trainer.registry import call, load, unknown
from mtf.trainer.say import say

if TYPE_CHECKING:
    from mtf.spec.schema import OptimizerConfig

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    name.lower(): found
    for name, found in vars(torch.optim).items()
    if isinstance(found, type) and issubclass(found, torch.optim.Optimizer)
    # LBFGS wants a function that computes the loss again, which this loop has not
    if found not in (torch.optim.Optimizer, torch.optim.LBFGS)
}


def build_optimizer(config: OptimizerConfig, model: torch.nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer of a configuration over a model's parameters.

    Raises:
        MtfError: the name or a key is unknown, or the model has no parameters to train.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise MtfError(f"the model {type(model).__name__} has no parameters to train")
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


def _say_what_is_not_used(made: Any, config: OptimizerConfig) -> None:
    fields = type(config).model_fields
    for name in ("lr", "weight_decay", "betas"):
        value = getattr(config, name)
        if name not in made.defaults and value not in (fields[name].default, 0):
            say(f"optimizer.{name}: {type(made).__name__} has none, so {value} is not used")
