"""Check that weights fit a module and that a state fits an optimizer; describe what does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_SHOWN = 10


@dataclass(frozen=True)
class Fit:
    """The comparison of a checkpoint's weights with a module's, by name."""

    fitting: tuple[str, ...]
    other_shape: tuple[str, ...]  # each "name: shape in the checkpoint, shape in the model"
    missing: tuple[str, ...]  # in the module, and not in the checkpoint
    unexpected: tuple[str, ...]  # in the checkpoint, and not in the module

    @property
    def is_whole(self) -> bool:
        """Return True if all weights fit."""
        return not (self.other_shape or self.missing or self.unexpected)

    def __str__(self) -> str:
        parts = (
            ("other shapes", self.other_shape),
            ("not in the checkpoint", self.missing),
            ("not in the model", self.unexpected),
        )
        return "; ".join(f"{what}: {_listed(names)}" for what, names in parts if names)


def fit_of(module: torch.nn.Module, weights: Mapping[str, Any]) -> Fit:
    """Compare a checkpoint's weights with a module's parameters and buffers."""
    own = module.state_dict()
    common = {name for name in own if name in weights}
    other = {n for n in common if _shape(own[n]) != _shape(weights[n])}
    return Fit(
        fitting=tuple(name for name in own if name in common - other),
        other_shape=tuple(
            f"{n}: {_shape(weights[n])} in the checkpoint, {_shape(own[n])} in the model"
            for n in own
            if n in other
        ),
        missing=tuple(name for name in own if name not in common),
        unexpected=tuple(name for name in weights if name not in own),
    )


def misfit_of(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> str | None:
    """Return None if an optimizer can load a state, else the reason, as the end of a sentence."""
    kind, defaults = type(optimizer).__name__, optimizer.defaults.keys()
    saved, present = state["param_groups"], optimizer.param_groups
    more = sorted(saved[0].keys() - present[0].keys() - _OF_SCHEDULERS)
    fewer = sorted(defaults - saved[0].keys())
    if more and fewer:  # only one of them may be due to another version of torch
        return f" than {kind}: it has {_listed(more)}, and {kind} has {_listed(fewer)}"
    sizes = [[len(group["params"]) for group in groups] for groups in (saved, present)]
    if sizes[0] != sizes[1]:
        return (
            f": its groups have {_counts(sizes[0])} parameters, and those of {kind} have"
            f" {_counts(sizes[1])}"
        )
    return None


# keys that learning-rate schedulers add to an optimizer's groups
_OF_SCHEDULERS = {
    "params",
    "initial_lr",
    "max_lr",
    "min_lr",
    "max_momentum",
    "base_momentum",
    "swa_lr",
}


def _counts(sizes: list[int]) -> str:
    return " and ".join(map(str, sizes)) or "no"


def _shape(value: Any) -> list[int] | None:
    return list(value.shape) if isinstance(value, torch.Tensor) else None


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
