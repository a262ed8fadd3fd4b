"""torchmetrics objects of a model: find, reset, save and restore them.

torchmetrics is never imported here: where one of its objects exists, it has been imported.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mtf.errors import MtfError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

State = dict[str, dict[str, Any]]  # by the path of an object: its attributes

_KINDS = ("Metric", "MetricCollection", "MetricTracker")
_MOST_ITEMS = 1000  # of a container that is searched; greater ones hold data
_TRACKED = "number of metrics tracked"  # of a MetricTracker, which gets one more at each step
# attributes that hold settings, not state
_SETTINGS = frozenset({*vars(nn.Module()), "_defaults", "_persistent", "_reductions", "_cache"})


def is_metric_object(value: object) -> bool:
    """Return True for a metric of torchmetrics, or a collection or tracker of metrics."""
    torchmetrics = sys.modules.get("torchmetrics")
    kinds = (getattr(torchmetrics, name, None) for name in _KINDS)
    return any(isinstance(value, kind) for kind in kinds if kind is not None)


def has_metric_objects(module: nn.Module) -> bool:
    """Return True if a module holds any object of torchmetrics."""
    return any(True for _ in _search(module, "", {id(module)}))


class MetricObjects:
    """The torchmetrics objects in the attributes of a module and of its submodules.

    An object is named by its path, such as ``heads.0.f1``. Those in lists and dicts count too.

    Attributes:
        module: the module.
        left_out: names of metrics of which the log says already that they are not logged.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._returned: dict[int, tuple[Any, str]] = {}  # objects and paths, by id
        self.left_out: set[str] = set()
        self._keep_local()

    def outermost(self) -> dict[str, Any]:
        """Return the objects that are in no other, by path."""
        if "torchmetrics" not in sys.modules:
            return {}
        return dict(_search(self.module, "", {id(self.module)}))

    def all(self) -> dict[str, Any]:
        """Return all objects by path, also those inside of others."""
        return dict(_with_inner(self.outermost()))

    def _keep_local(self) -> None:
        """Keep the objects' own methods from exchanging states between the ranks.

        A step may call them on one rank more often than on another. ``metric_values`` merges the
        states where all ranks take part.
        """
        for found in self.all().values():
            if not getattr(found, "dist_sync_on_step", True):
                found.distributed_available_fn = _never

    def paths_of(self, returned: Mapping[str, Any]) -> dict[str, str]:
        """Return the paths of objects that a step returns as metrics, by name.

        Raises:
            MtfError: an object is not part of the module, so no checkpoint could hold it.
        """
        return {name: self._path_of(name, value) for name, value in returned.items()}

    def _path_of(self, name: str, value: Any) -> str:
        if id(value) not in self._returned:
            self._returned = {id(found): (found, path) for path, found in self.all().items()}
        _, path = self._returned.get(id(value), (None, None))
        if path is None:
            raise MtfError(
                f"the metric {name!r} is a torchmetrics object outside of the model: assign it to"
                f" an attribute in __init__ (self.{name} = {type(value).__name__}(...)), so that"
                " checkpoints hold its state"
            )
        return path

    def reset(self) -> None:
        """Reset all objects, and move those in lists and dicts to the device of the module."""
        self._keep_local()
        parameter = next(self.module.parameters(), None)
        for found in self.outermost().values():
            if parameter is not None and all(found is not m for m in self.module.modules()):
                found.to(parameter.device)
            if getattr(found, "_increment_called", True):  # a tracker that tracks nothing yet
                found.reset()

    # -- checkpoints -------------------------------------------------------------------------------

    def state(self) -> State:
        """Return the state of all objects; its tensors share memory with them."""
        return {path: _state_of(found) for path, found in self.all().items()}

    def put(self, state: State) -> None:
        """Restore the state that ``state`` returned.

        Raises:
            MtfError: an object is missing.
        """
        for path, found in self.all().items():
            for _ in range(state.get(path, {}).get(_TRACKED, 0) - _tracked(found)):
                found.increment()
        present = self.all()
        for path, attributes in state.items():
            if path not in present:
                raise MtfError(
                    f"the checkpoint holds the state of the metric {path}, which this model lacks:"
                    " make it in the model's __init__"
                )
            found = present[path]
            on_cpu = getattr(found, "compute_on_cpu", False)
            for name, value in attributes.items():
                if name != _TRACKED:
                    device = None if on_cpu and isinstance(value, list) else device_of(found)
                    setattr(found, name, mapped(value, device))


def _never() -> bool:
    return False


# -- finding ---------------------------------------------------------------------------------------


def _search(value: Any, path: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Yield path and object of the outermost metric objects in a module's or container's parts."""
    for name, part in _parts(value):
        where = f"{path}.{name}" if path else name
        if id(part) in seen:
            continue
        if is_metric_object(part):
            seen |= {id(part), *map(id, part.modules())}
            yield where, part
        elif isinstance(part, nn.Module | list | tuple | dict):
            seen.add(id(part))
            yield from _search(part, where, seen)


def _parts(value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, nn.Module):
        plain = ((name, part) for name, part in vars(value).items() if name not in _SETTINGS)
        kept = ((name, part) for name, part in plain if isinstance(part, list | tuple | dict))
        return [*value.named_children(), *kept]
    if len(value) > _MOST_ITEMS:
        return ()
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return [(str(name), part) for name, part in items]


def _with_inner(outermost: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for path, found in outermost.items():
        for inner_path, inner in found.named_modules():
            if is_metric_object(inner):
                yield (f"{path}.{inner_path}" if inner_path else path), inner


# -- state -----------------------------------------------------------------------------------------


def _state_of(found: Any) -> dict[str, Any]:
    """Return the attributes of an object that hold tensors, numbers, text or containers of these.

    Besides what it declares, a metric may keep counts, extremes or groups in other attributes.

    Raises:
        MtfError: a declared state holds something else.
    """
    attributes: dict[str, Any] = {}
    for name, value in vars(found).items():
        if name not in _SETTINGS and _is_data(value):
            attributes[name] = mapped(value, None)
        elif name in getattr(found, "_defaults", ()):
            raise MtfError(
                f"the state {name!r} of the metric {type(found).__name__} cannot be saved: keep"
                " only tensors, numbers, text, and lists, tuples and dicts of these in it"
            )
    return attributes | ({_TRACKED: _tracked(found)} if _tracked(found) else {})


def _tracked(found: Any) -> int:
    """Return the number of metrics that a ``MetricTracker`` has made, 0 for other objects."""
    return found.n_steps if hasattr(found, "increment") else 0


def _is_data(value: Any) -> bool:
    if isinstance(value, dict):
        return type(value) is dict and all(map(_is_data, (*value.keys(), *value.values())))
    if isinstance(value, list | tuple):
        return type(value) in (list, tuple) and all(map(_is_data, value))
    return isinstance(value, torch.Tensor) or type(value) in (bool, int, float, str, type(None))


def mapped(value: Any, device: torch.device | None) -> Any:
    """Return a copy of the containers, their tensors without graphs; None: where they are."""
    if isinstance(value, torch.Tensor):
        return value.detach() if device is None else value.detach().to(device)
    if isinstance(value, dict):
        return {name: mapped(part, device) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(mapped(part, device) for part in value)
    return value


def device_of(found: Any) -> torch.device | None:
    """Return the device of a metric, or of the first one of a collection."""
    return next((m.device for m in found.modules() if hasattr(m, "_reductions")), None)
