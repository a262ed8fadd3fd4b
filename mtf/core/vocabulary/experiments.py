"""What is committed, resolved: experiments, and the submittables (one a spec) they come in."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from mtf.core.vocabulary.ids import RunKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mtf.core.vocabulary.jobs import Resources

# Sections that say how a run is executed or watched, not what it computes: not part of its key.
EXECUTION = frozenset({"slurm", "logging", "checkpoint", "experiment_name", "description", "owner"})
_OPEN = frozenset({"model", "data", "optimizer", "scheduler"})  # these take keys of the user's
SourcePosition = tuple[str, int, int]  # path, line and column
DIRECT = "(asked for directly)"  # stands for the path where there is no committed spec


@dataclass(frozen=True)
class Experiment:
    """One fully resolved configuration with a name."""

    name: str  # unique within its grid; a legal ref component and file name
    grid: str | None
    config: Mapping[str, Any]  # JSON values; the trainer gets just this, and where its code is
    resources: Resources
    parameters: Mapping[str, Any]  # the values its grid set, by dotted path
    generation: int
    rerun_on: tuple[str, ...]  # paths whose git tree ids belong to the key

    @property
    def owner_name(self) -> str:
        """Return the name that submissions and keys go by: the grid's, or its own."""
        return self.grid or self.name

    @property
    def member(self) -> str | None:
        """Return the name within the grid, None for a single experiment."""
        return None if self.grid is None else self.name


@dataclass(frozen=True)
class Desired:
    """All that one committed spec asks for. ``experiments`` holds one for a single experiment."""

    name: str
    path: str
    experiments: tuple[Experiment, ...]
    max_parallel: int | None
    cluster: str | None
    named_at: Mapping[str, SourcePosition] = field(
        default_factory=dict
    )  # init_from: where it names a run
    # where what policies are about is said: by key, by key=JSON for a grid's values, "": the name
    places: Mapping[str, SourcePosition] = field(default_factory=dict)
    on_change: Literal["keep", "cancel"] = "keep"  # what becomes of a former configuration's runs

    @property
    def is_committed(self) -> bool:
        """Return whether a committed spec asks for this; else a program did."""
        return self.path != DIRECT


def axes_of(parameters: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return each parameter with the values it takes, in the order of their first use."""
    axes: dict[str, dict[str, Any]] = {}
    for values in parameters:
        for name, value in values.items():
            axes.setdefault(name, {}).setdefault(json.dumps(value, sort_keys=True), value)
    return {name: list(values.values()) for name, values in axes.items()}


def run_key(experiment: Experiment, trees: Mapping[str, str]) -> RunKey:
    """Return the identity of a run: equal keys are the same run, never submitted twice.

    Neither the spec's path nor a member's name or index belongs to it (a ``sequential`` name
    moves when a value is added), only the owner's name and the values. A key that is null, false
    or empty in a section that knows all its keys is left out, so that a later mtf may add such a
    key without running everything anew: each such section holds all its keys, so nothing is lost.

    Args:
        experiment: resolved.
        trees: the git object id of each of its ``rerun_on`` paths at the pinned commit.
    """
    values = {k: _said(k, v) for k, v in experiment.config.items() if k not in EXECUTION}
    identity = {
        "name": experiment.owner_name,
        "config": {section: value for section, value in values.items() if value},
        "generation": experiment.generation,
        "trees": {path: trees[path] for path in experiment.rerun_on},
    }
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return RunKey(hashlib.sha256(text.encode()).hexdigest())


def _said(section: str, value: Any) -> Any:
    if section in _OPEN or not isinstance(value, dict):
        return value
    silent: tuple[Any, ...] = ([], {})
    return {k: v for k, v in value.items() if v is not None and v is not False and v not in silent}
