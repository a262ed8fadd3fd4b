"""Positions in a spec's files of the keys that policies, checks and warnings are about."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from mtf.core.vocabulary import json_text
from mtf.spec.schema.error_messages import written_loc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mtf.core.vocabulary.experiments import SourcePosition
    from mtf.spec.grid.definition import GridDefinition
    from mtf.spec.resolve import Base
    from mtf.spec.yaml.positions import Loc, Positions

# The keys whose positions are needed, by section.
_FIELDS = {
    "slurm": (
        "partition",
        "account",
        "qos",
        "time",
        "nodes",
        "ntasks_per_node",
        "gpus_per_node",
        "cpus_per_task",
        "mem",
        "requeue",
    ),
    "data": ("num_workers",),
    "training": ("batch_size",),
    "scheduler": ("warmup_epochs", "warmup_steps", "num_warmup_steps", "total_iters"),
    "checkpoint": ("every_n_minutes", "every_n_epochs"),
    "callbacks": ("early_stopping",),
    "logging": ("use_wandb",),
}
_TOP_LEVEL = ("owner", "description", "max_parallel", "canary", "max_failed")


def position_of(positions: Mapping[str, SourcePosition], key: str) -> SourcePosition:
    """Return the position of a key, else of its section, else of the spec's name."""
    for candidate in (key, key.partition("=")[0], key.partition(".")[0], ""):
        if candidate in positions:
            return positions[candidate]
    return "", 1, 1


class LazyPositions(Mapping[str, "SourcePosition"]):
    """Positions that are computed when the first one is needed: most specs have no findings."""

    def __init__(self, compute: Callable[[], dict[str, SourcePosition]]) -> None:
        """Take the function that computes all of them."""
        self._compute = compute

    @cached_property
    def _all(self) -> dict[str, SourcePosition]:
        return self._compute()

    def __getitem__(self, key: str) -> SourcePosition:
        """Return the position of a key."""
        return self._all[key]

    def __iter__(self) -> Iterator[str]:
        """Return the keys with a position."""
        return iter(self._all)

    def __len__(self) -> int:
        """Return the number of positions."""
        return len(self._all)


def positions_in_experiment(positions: Callable[[], Positions]) -> LazyPositions:
    """Return the positions in an experiment's file by key; ``""`` is the experiment's name."""
    return LazyPositions(lambda: _in_file(positions(), "experiment_name"))


def positions_in_grid(base: Base, grid: GridDefinition, positions: Positions) -> LazyPositions:
    """Return the positions in a grid's files by key; the grid's come before those of its base.

    ``key=JSON`` is the position of one value of a grid.
    """
    return LazyPositions(lambda: _in_grid(base, grid, positions))


def _in_file(positions: Positions, name_key: str) -> dict[str, SourcePosition]:
    return {"": (positions.path, *positions.value((name_key,))), **_positions_under(positions, ())}


def _in_grid(base: Base, grid: GridDefinition, positions: Positions) -> dict[str, SourcePosition]:
    found = _positions_under(base.positions, base.prefix) | _in_file(positions, "name")
    for setting in grid.settings():
        if setting.path[0] not in _FIELDS:
            continue
        inside = setting.value.items() if isinstance(setting.value, dict) else ()
        for key, value, loc in [
            (setting.key, setting.value, setting.loc),
            *((f"{setting.key}.{field}", value, (*setting.loc, field)) for field, value in inside),
        ]:
            found[f"{key}={json_text.dumps(value)}"] = (positions.path, *positions.value(loc))
    return found


def _positions_under(positions: Positions, prefix: Loc) -> dict[str, SourcePosition]:
    found = {key: positions.find((*prefix, key)) for key in _TOP_LEVEL}
    for section, fields in _FIELDS.items():
        here = written_loc((*prefix, section), positions)
        found[section] = positions.find(here)
        if found[section] is not None:
            found |= {f"{section}.{field}": positions.find((*here, field)) for field in fields}
    return {key: (positions.path_of(at), *at) for key, at in found.items() if at is not None}
