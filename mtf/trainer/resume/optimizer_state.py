"""The state of optimizers, loaded as it was saved: torch alone would change types in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer

from mtf.errors import MtfError

if TYPE_CHECKING:
    from collections.abc import Mapping

_NUMBERS = (bool, int, float, complex, type(None))


def optimizer_state(name: str, optimizer: Optimizer) -> dict[str, Any]:
    """Return an optimizer's state.

    Raises:
        MtfError: it holds the state of a parameter that was taken out of its groups.
    """
    try:
        return optimizer.state_dict()
    except KeyError as e:  # torch's numbers of the parameters lack it
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if held.issuperset(map(id, optimizer.state)):
            raise
        raise MtfError(
            f"the state of {name} cannot be saved: it is also of a parameter that none of its"
            " groups has any more. Remove it with the parameter: optimizer.state.pop(parameter)"
        ) from e


def load_optimizer(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Load the state that ``optimizer_state`` returned.

    Torch casts the floating-point tensors of a parameter's state to the parameter's type, and makes
    any other container, and text, from its parts. An optimizer may keep moments in another type.
    """
    if type(optimizer).load_state_dict is not Optimizer.load_state_dict:
        optimizer.load_state_dict(dict(state))
        return
    saved: dict[Any, Any] = state["state"]
    optimizer.load_state_dict({**state, "state": {k: _castable(v) for k, v in saved.items()}})
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    for number, parameter in zip(numbers, parameters, strict=True):
        if number in saved:
            optimizer.state[parameter] = _as_saved(saved[number], optimizer.state[parameter])


def _castable(value: Any) -> Any:
    """Return a value with None in place of what torch would make from its parts."""
    if type(value) is dict:
        return {key: _castable(part) for key, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_castable, value))
    return value if isinstance(value, (torch.Tensor, *_NUMBERS)) else None


def _as_saved(saved: Any, loaded: Any) -> Any:
    """Return a loaded state with the types that were saved."""
    if isinstance(saved, torch.Tensor):
        return loaded if loaded.dtype == saved.dtype else saved.to(loaded.device)
    if type(saved) is dict:
        kept = {key: _as_saved(part, loaded[key]) for key, part in saved.items() if key in loaded}
        return {**loaded, **kept}
    if type(saved) in (list, tuple):
        return type(saved)(map(_as_saved, saved, loaded))
    return loaded if isinstance(saved, _NUMBERS) else saved
