"""The state of learning-rate schedulers: all their attributes but code, and schedulers in them."""

from __future__ import annotations

from types import BuiltinFunctionType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any

from torch.optim.lr_scheduler import LRScheduler

if TYPE_CHECKING:
    from collections.abc import Mapping

_CODE = (FunctionType, BuiltinFunctionType, MethodType, type)


def scheduler_state(scheduler: LRScheduler) -> dict[str, Any]:
    """Return a scheduler's state.

    Torch's default takes every attribute. Functions and classes are code, which a resume has from
    the commit. A scheduler that drives another, such as a warm-up, holds it as an attribute.
    """
    state = scheduler.state_dict()
    if not _has_default_state(scheduler):
        return state
    return {
        name: scheduler_state(value) if isinstance(value, LRScheduler) else value
        for name, value in state.items()
        if not isinstance(value, _CODE)
    }


def load_scheduler(scheduler: LRScheduler, state: Mapping[str, Any]) -> None:
    """Load the state that ``scheduler_state`` returned."""
    inner: dict[str, LRScheduler] = {}
    if _has_default_state(scheduler):
        held = vars(scheduler)
        inner = {name: held[name] for name in state if isinstance(held.get(name), LRScheduler)}
    for name, driven in inner.items():
        load_scheduler(driven, state[name])
    scheduler.load_state_dict({k: v for k, v in state.items() if k not in inner})


def _has_default_state(scheduler: LRScheduler) -> bool:
    return type(scheduler).load_state_dict is LRScheduler.load_state_dict
