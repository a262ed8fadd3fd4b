"""Where the keys that policies and checks are about stand in the files of a spec."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from mtf.spec.schema.error_messages import located

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mtf.core.vocabulary.experiments import SourcePosition
    from mtf.spec.grid.definition import GridDefinition
    from mtf.spec.resolve import Base
    from mtf.spec.yaml.positions import Loc, Positions

# whose places are kept: what policies and checks may be about, and the sections around it
_FIELDS = {
    "slurm": (
        "partition", "account", "qos", "time", "nodes", "ntasks_per_node", "gpus_per_node",
        "cpus_per_task", "mem",
    ),
    "data": ("num_workers",),
    "training": ("batch_size",),
    "scheduler": ("warmup_epochs", "warmup_steps", "num_warmup_steps", "total_iters"),
    "checkpoint": ("every_n_minutes", "every_n_epochs"),
    "callbacks": ("early_stopping",),
    "logging": ("use_wandb",),
}  # fmt: skip
_SAID = ("owner", "description", "max_parallel")


def position_of(places: Mapping[str, SourcePosition], key: str) -> SourcePosition:
    """Return the place of a key, of the section around it, or that of the spec's name."""
    for wish in (key, key.partition("=")[0], key.partition(".")[0], ""):
        if wish in places:
            return places[wish]
    return "", 1, 1


class LazyPositions(Mapping[str, "SourcePosition"]):
    """Places that are looked up when the first is asked for: most specs break no rule."""

    def __init__(self, look: Callable[[], dict[str, SourcePosition]]) -> None:
        """Take what looks all of them up."""
        self._look = look

    @cached_property
    def _found(self) -> dict[str, SourcePosition]:
        return self._look()

    def __getitem__(self, key: str) -> SourcePosition:
        """Return the place of a key."""
        return self._found[key]

    def __iter__(self) -> Iterator[str]:
        """Return the keys that stand somewhere."""
        return iter(self._found)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._found)


def positions_in_experiment(positions: Callable[[], Positions]) -> LazyPositions:
    """Return where an experiment's file says what policies may be about; "" is its name."""
    return LazyPositions(lambda: _in_file(positions(), "experiment_name"))


def positions_in_grid(base: Base, parts: GridDefinition, positions: Positions) -> LazyPositions:
    """Return the same for a grid: its own keys and values before those of its base."""
    return LazyPositions(lambda: _in_grid(base, parts, positions))


def _in_file(positions: Positions, name_key: str) -> dict[str, SourcePosition]:
    return {"": (positions.path, *positions.value((name_key,))), **_positions_under(positions, ())}


def _in_grid(base: Base, parts: GridDefinition, positions: Positions) -> dict[str, SourcePosition]:
    found = _positions_under(base.positions, base.prefix) | _in_file(positions, "name")
    for setting in parts.settings():
        if setting.path[0] not in _FIELDS:
            continue
        inside = setting.value.items() if isinstance(setting.value, dict) else ()
        for key, value, loc in [
            (setting.key, setting.value, setting.loc),
            *((f"{setting.key}.{field}", value, (*setting.loc, field)) for field, value in inside),
        ]:
            found[f"{key}={json.dumps(value)}"] = (positions.path, *positions.value(loc))
    return found


def _positions_under(positions: Positions, prefix: Loc) -> dict[str, SourcePosition]:
    found = {key: positions.find((*prefix, key)) for key in _SAID}
    for section, fields in _FIELDS.items():
        here = located((*prefix, section), positions)
        found[section] = positions.find(here)
        if found[section] is not None:
            found |= {f"{section}.{field}": positions.find((*here, field)) for field in fields}
    return {key: (positions.path_of(at), *at) for key, at in found.items() if at is not None}
