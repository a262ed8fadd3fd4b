"""Checks that a model and its optimizers can be trained, before they are moved or wrapped."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import torch

from mtf.errors import MtfError
from mtf.trainer.compute.structure import names_by_group

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn
    from torch.optim import Optimizer

    from mtf.spec.schema.sections import TrainingConfig

_SHOWN = 5


def refuse_untrainable(module: nn.Module, optimizers: Mapping[str, Optimizer]) -> None:
    """Refuse a model without values, and optimizers of other parameters than the model's.

    Raises:
        MtfError: the training would fail, or would train nothing that is saved.
    """
    tensors = [*module.named_parameters(), *module.named_buffers()]
    if found := [name for name, tensor in tensors if tensor.is_meta]:
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise MtfError(
            f"{', '.join(found[:_SHOWN])}{more} of the model are on the device meta, without"
            " values: build the model on the CPU, or call to_empty(device='cpu') and load weights"
        )
    if next(module.parameters(), None) is None:
        raise MtfError(f"the model {type(module).__name__} has no parameters to train")
    for name, groups in names_by_group(module, optimizers).items():
        names = [parameter for group in groups for parameter in group]
        if None in names:
            raise MtfError(
                f"{names.count(None)} of {len(names)} parameters of {name} are not the model's, so"
                " no checkpoint would hold them: build the optimizer after the model is complete"
                " (moved, converted, parametrized), and make losses with parameters part of it"
            )


def takes_closure(
    optimizers: Mapping[str, Optimizer], training: TrainingConfig, *, is_plain: bool
) -> bool:
    """Return True for LBFGS, whose step computes the loss again and again.

    Args:
        optimizers: by name.
        training: the section.
        is_plain: one process computes in full precision.

    Raises:
        MtfError: an optimizer needs a closure, and it is another one or cannot get it.
    """
    needing = [optimizer for optimizer in optimizers.values() if _needs_closure(optimizer)]
    if not needing:
        return False
    name = type(needing[0]).__name__
    if not all(isinstance(optimizer, torch.optim.LBFGS) for optimizer in needing):
        raise MtfError(
            f"{name}.step needs a closure: of such optimizers only torch's LBFGS is supported. Use"
            " another one, or a training loop of your own (entrypoint)"
        )
    unfit = {
        "one optimizer": len(optimizers) > 1,
        "a single process in full precision (training.use_amp: false)": not is_plain,
        "training.gradient_accumulation_steps: 1": training.gradient_accumulation_steps > 1,
        "training.on_nonfinite: null": training.on_nonfinite is not None,
    }
    if needed := [what for what, is_missing in unfit.items() if is_missing]:
        raise MtfError(
            f"{name} computes the loss of a batch again and again, which needs"
            f" {' and '.join(needed)}"
        )
    return True


def _needs_closure(optimizer: Optimizer) -> bool:
    try:
        parameter = inspect.signature(optimizer.step).parameters.get("closure")
    except (TypeError, ValueError):
        return False
    return parameter is not None and parameter.default is parameter.empty
