"""Metrics of an epoch over all ranks: means, and values of torchmetrics objects.

The states of objects are gathered by mtf and merged by each metric's own ``dist_reduce_fx``. The
way of torchmetrics exchanges a message for each tensor: ranks whose lists differ in length, or that
never updated an object, would wait for each other for ever.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch

from mtf.errors import MtfError
from mtf.trainer.loop.metric_objects import device_of, mapped
from mtf.trainer.loop.state import means_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from mtf.trainer.compute.rank_sync import RankSync
    from mtf.trainer.loop.metric_objects import MetricObjects, State
    from mtf.trainer.loop.state import ResumeState

_MOST_VALUES = 100  # of a metric with a value for each class


def metrics_of_epoch(
    state: ResumeState, objects: MetricObjects, rank_sync: RankSync
) -> dict[str, float]:
    """Return the metrics of an epoch whose batches are done; all ranks must call it.

    The value of an object is right for the whole epoch, so it takes precedence over a mean of batch
    values with the same name.

    Args:
        state: with the sums of this rank.
        objects: those of the validated module.
        rank_sync: reaches the other ranks.
    """
    pairs = {**state.train.epoch_sums(), **state.val.pairs()}
    means = means_of(pairs, rank_sync)
    of_objects = values_over_ranks(objects, rank_sync, "val_", state.val.returned)
    return means | state.train.metrics | of_objects


def values_over_ranks(
    objects: MetricObjects, rank_sync: RankSync, prefix: str, returned: Mapping[str, str]
) -> dict[str, float]:
    """Compute the objects that were updated on any rank, over all ranks.

    All ranks must call it, and get the same values. The objects keep their state.

    Args:
        objects: those of the module that was trained or validated.
        rank_sync: reaches the other ranks.
        prefix: what the names of metrics begin with, such as ``val_``.
        returned: names and paths of the objects that a step returned; the others are named by their
            path.

    Raises:
        MtfError: an object has no value that can be logged, or its ``compute`` fails.
    """
    updated = [path for path, found in objects.outermost().items() if _is_updated(found)]
    every = rank_sync.gather((dict(returned), updated, _states_of(objects, rank_sync)))
    values: dict[str, float] = {}
    if every is not None:
        named = {name: path for of_rank in every for name, path in of_rank[0].items()}
        found_updated = dict.fromkeys(path for of_rank in every for path in of_rank[1])
        present = objects.all()
        with _merged(present, [of_rank[2] for of_rank in every]):
            for name, path, is_returned in _named(named, found_updated):
                for each, value in _computed(present.get(path), name).items():
                    numbers = _numbers(prefixed(each, prefix), value)
                    if numbers is None:
                        _leave_out(each, value, objects, rank_sync, is_returned=is_returned)
                    _refuse_twice(values.keys() & (numbers or {}).keys())
                    values |= numbers or {}
    shared: dict[str, float] = rank_sync.broadcast(values)
    return shared


def prefixed(name: str, prefix: str) -> str:
    """Return a metric's name, with a prefix such as ``val_`` unless it has it."""
    return name if name.startswith(prefix) else prefix + name


def _named(returned: Mapping[str, str], updated: Iterable[str]) -> Iterator[tuple[str, str, bool]]:
    """Yield name and path of the metrics to compute, and if a step has asked for them.

    Of a collection, parts of which were returned, the others are left out.
    """
    for name, path in returned.items():
        yield name, path, True
    for path in updated:
        if not any(f"{other}.".startswith(f"{path}.") for other in returned.values()):
            yield path.replace(".", "_"), path, False


def _is_updated(found: Any) -> bool:
    """Return True if an object was updated since its last reset.

    ``Running`` counts its updates itself.
    """
    if hasattr(found, "increment"):  # a tracker, which keeps the metrics of earlier epochs
        found = found[-1]
    return any(
        getattr(part, "_update_count", 0) or getattr(part, "_num_vals_seen", 0)
        for part in found.modules()
    )


def _refuse_twice(names: Collection[str]) -> None:
    """Refuse names that two objects have.

    Raises:
        MtfError: there are such names.
    """
    if names:
        raise MtfError(
            f"two torchmetrics objects are called {', '.join(sorted(names))}: give one of the"
            " collections a prefix, or return the objects under other names"
        )


def _leave_out(
    name: str, value: Any, objects: MetricObjects, rank_sync: RankSync, *, is_returned: bool
) -> None:
    """Say once that a metric is not logged.

    Raises:
        MtfError: a step has returned it.
    """
    what = f"the metric {name!r} is {_describe(value)}, not a number"
    if is_returned:
        raise MtfError(
            f"{what}: return numbers, or leave it out of the step's dict and use it in the"
            " on_validation_end of a callback"
        )
    if name not in objects.left_out:
        objects.left_out.add(name)
        rank_sync.say(f"{what}: it is not logged")


# -- merging ---------------------------------------------------------------------------------------


@contextmanager
def merged_over_ranks(objects: MetricObjects, rank_sync: RankSync) -> Iterator[None]:
    """Let all ranks hold the objects' state of all ranks for a while; all ranks must call it."""
    every: list[State] = rank_sync.broadcast(rank_sync.gather(_states_of(objects, rank_sync)))
    with _merged(objects.all(), every):
        yield


def _states_of(objects: MetricObjects, rank_sync: RankSync) -> State:
    """Return the states to merge with those of other ranks; none if there is no other rank."""
    if rank_sync.is_alone:
        return {}
    return {path: _shared_state(m) for path, m in objects.all().items() if _is_shared(m)}


@contextmanager
def _merged(present: Mapping[str, Any], of_ranks: list[State]) -> Iterator[None]:
    """Give objects the state of all ranks, as torchmetrics would merge it."""
    with ExitStack() as stack:
        for path, found in present.items():
            states = [state[path] for state in of_ranks if path in state]
            if states:
                stack.enter_context(_holding(found, states))
        yield


def _is_shared(found: Any) -> bool:
    """Return True for a metric whose state is merged; its parts merge that of a collection."""
    return hasattr(found, "_reductions") and bool(found.sync_on_compute)


def _shared_state(found: Any) -> dict[str, Any]:
    """Return the part of a metric's state that is merged, on the CPU."""
    states = {name: getattr(found, name) for name in found._reductions}  # noqa: SLF001 -- as declared
    host = torch.device("cpu")
    return {"updates": found._update_count, "states": mapped(states, host)}  # noqa: SLF001


@contextmanager
def _holding(found: Any, of_ranks: list[dict[str, Any]]) -> Iterator[None]:
    """Give a metric the merged state of some ranks, then its own again."""
    device, own = device_of(found), copy.copy(vars(found))
    for name, reduce in found._reductions.items():  # noqa: SLF001
        setattr(found, name, _merge([mapped(r["states"][name], device) for r in of_ranks], reduce))
    vars(found).update(_update_count=max(rank["updates"] for rank in of_ranks), _computed=None)
    try:
        yield
    finally:
        names = (*found._reductions, "_update_count")  # noqa: SLF001
        vars(found).update({name: own[name] for name in names}, _computed=None)


def _merge(values: list[Any], reduce: Callable[[Any], Any] | None) -> Any:
    """Return one state of all ranks, reduced by the metric's own ``dist_reduce_fx``."""
    if all(isinstance(value, torch.Tensor) for value in values):
        merged: Any = torch.stack(values)
    else:
        merged = [part for v in values for part in (v if isinstance(v, list) else [v])]
    return merged if reduce is None or len(merged) == 0 else reduce(merged)


# -- numbers ---------------------------------------------------------------------------------------


def _computed(found: Any, name: str) -> dict[str, Any]:
    """Return the values of an object by name: a collection has its own names for them.

    Raises:
        MtfError: there is no such object in this process, or its ``compute`` fails.
    """
    if found is None:
        raise MtfError(f"the metric {name!r} exists on some ranks only: make it in the __init__")
    try:
        value = found.compute()
    except (ValueError, RuntimeError, TypeError, IndexError, AttributeError) as e:
        raise MtfError(f"the metric {name!r} cannot be computed: {e}") from e
    is_collection = isinstance(value, Mapping) and not hasattr(found, "_reductions")
    return {str(key): part for key, part in value.items()} if is_collection else {name: value}


def _numbers(name: str, value: Any) -> dict[str, float] | None:
    """Return a metric's value as numbers by name; None if it is none and no short list of them."""
    if hasattr(value, "__array__") and not isinstance(value, torch.Tensor):  # of numpy
        value = torch.as_tensor(value)
    if isinstance(value, Mapping):
        parts = [_numbers(f"{name}_{key}", part) for key, part in value.items()]
    elif isinstance(value, torch.Tensor):
        if value.is_complex():
            return None
        if value.numel() == 1:
            return {name: float(value)}
        if value.dim() != 1 or len(value) > _MOST_VALUES:
            return None
        return {f"{name}_{i}": float(part) for i, part in enumerate(value.tolist())}
    elif isinstance(value, bool | int | float):
        return {name: float(value)}
    else:
        return None
    if any(part is None for part in parts):
        return None
    return {name: number for part in parts if part is not None for name, number in part.items()}


def _describe(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {list(value.shape)}"
    return f"a {type(value).__name__}"
