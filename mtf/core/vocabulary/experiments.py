"""Resolved specs: experiments, the specs that ask for them, and the keys of their runs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from mtf.core.vocabulary import json_text
from mtf.core.vocabulary.ids import RunKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mtf.core.vocabulary.ids import CommitId, RunId
    from mtf.core.vocabulary.jobs import Resources
    from mtf.core.vocabulary.records import Origin

# Sections about how a run is executed or watched, not what it computes: not part of its key.
EXECUTION = frozenset({"slurm", "logging", "checkpoint", "experiment_name", "description", "owner"})
_OPEN = frozenset({"model", "data", "optimizer", "scheduler"})  # accept keys of the user's own
SourcePosition = tuple[str, int, int]  # path, line and column
DIRECT = "(asked for directly)"  # instead of a path, if there is no committed spec


@dataclass(frozen=True)
class Experiment:
    """One fully resolved configuration with a name."""

    name: str  # unique within its grid; a legal ref component and file name
    grid: str | None
    config: Mapping[str, Any]  # JSON values; the job gets this and the place of its code
    resources: Resources
    parameters: Mapping[str, Any]  # the values its grid set, by dotted path
    generation: int
    rerun_on: tuple[str, ...]  # paths whose git tree ids belong to the key

    @property
    def owner_name(self) -> str:
        """Return the name used in submission ids and keys: the grid's, or its own."""
        return self.grid or self.name

    @property
    def member(self) -> str | None:
        """Return the name in the grid, None for a single experiment."""
        return None if self.grid is None else self.name


@dataclass(frozen=True)
class Asked:
    """What a person asked for, of runs that are outside of the committed specs."""

    snapshot_of: CommitId | None = None  # the commit below the snapshot that they are pinned to
    reproduces: RunId | None = None
    origin: Origin | None = None  # the checkpoint that the reproduced run began from
    trial: bool = False  # a few steps, to see that all fits; never tried again
    # the code counts: the runs are new ones unless the same code has run with these values
    by_code: bool = False


@dataclass(frozen=True)
class Desired:
    """Everything that one spec asks for: the members of a grid, or a single experiment."""

    name: str
    path: str
    experiments: tuple[Experiment, ...]
    max_parallel: int | None
    cluster: str | None
    named_at: Mapping[str, SourcePosition] = field(
        default_factory=dict
    )  # init_from: where it names a run
    # positions for policies: by key, by key=JSON for a grid's values; "" is the spec's name
    places: Mapping[str, SourcePosition] = field(default_factory=dict)
    canary: int | None = None  # members that are submitted first; the others wait for them
    max_failed: int | None = None  # failures after which no more members are started
    on_change: Literal["keep", "cancel"] = "keep"  # what to do with runs of an older version
    asked: Asked | None = None  # by a person, at once

    @property
    def is_committed(self) -> bool:
        """Return True if a committed spec asks for this, False if a person or a program does."""
        return self.path != DIRECT and self.asked is None


def axes_of(parameters: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return each parameter with its values, in the order of their first use."""
    axes: dict[str, dict[str, Any]] = {}
    for values in parameters:
        for name, value in values.items():
            axes.setdefault(name, {}).setdefault(json_text.dumps(value, sort_keys=True), value)
    return {name: list(values.values()) for name, values in axes.items()}


JointAxis = tuple[tuple[str, ...], list[tuple[Any, ...]]]  # keys, and their values together


def joint_axes(parameters: Sequence[Mapping[str, Any]]) -> list[JointAxis]:
    """Return the parameters with their values; those that depend on each other are one axis.

    Two keys are independent if each value of one goes with each value of the other. A key that some
    runs lack has the value ``ABSENT`` there.
    """
    keys = list(dict.fromkeys(key for values in parameters for key in values))
    texts: dict[str, list[str]] = {}
    for key in keys:
        found = (values.get(key, ABSENT) for values in parameters)
        texts[key] = ["" if v is ABSENT else json_text.dumps(v, sort_keys=True) for v in found]
    counts = {key: len(set(column)) for key, column in texts.items()}
    axes: list[list[str]] = []
    for key in keys:
        dependent = [axis for axis in axes if any(_depend(texts, counts, key, k) for k in axis)]
        merged = [k for axis in dependent for k in axis]
        axes = [axis for axis in axes if axis not in dependent]
        axes.append(sorted([*merged, key], key=keys.index))
    return [
        _joint(axis, parameters, texts) for axis in sorted(axes, key=lambda a: keys.index(a[0]))
    ]


ABSENT = object()  # instead of a value


def _depend(texts: Mapping[str, list[str]], counts: Mapping[str, int], a: str, b: str) -> bool:
    if 1 in (counts[a], counts[b]):
        return False
    return len(set(zip(texts[a], texts[b], strict=True))) < counts[a] * counts[b]


def _joint(
    keys: list[str], parameters: Sequence[Mapping[str, Any]], texts: Mapping[str, list[str]]
) -> JointAxis:
    first: dict[tuple[str, ...], tuple[Any, ...]] = {}
    for row, values in zip(zip(*(texts[k] for k in keys), strict=True), parameters, strict=True):
        first.setdefault(row, tuple(values.get(key, ABSENT) for key in keys))
    return tuple(keys), list(first.values())


def run_key(experiment: Experiment, trees: Mapping[str, str], apart: str = "") -> RunKey:
    """Return the identity of a run: equal keys are the same run, never submitted twice.

    The key is made of the owner's name and the values. The spec's path and a member's name or index
    are not part of it: a ``sequential`` name changes when a value is added. Null, false and empty
    values in a section with a fixed set of keys are left out, so that a later mtf can add such a
    key without changing every run's key.

    Args:
        experiment: resolved.
        trees: the git object id of each of its ``rerun_on`` paths at the pinned commit.
        apart: what makes it another run than that of a committed spec with the same values.
    """
    values = {
        k: _without_defaults(k, v) for k, v in experiment.config.items() if k not in EXECUTION
    }
    identity = {
        "name": experiment.owner_name,
        "config": {section: value for section, value in values.items() if value},
        "generation": experiment.generation,
        "trees": {path: trees[path] for path in experiment.rerun_on},
    }
    if apart:
        identity["apart"] = apart
    text = json_text.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return RunKey(hashlib.sha256(text.encode()).hexdigest())


def former_run_key(experiment: Experiment, trees: Mapping[str, str]) -> RunKey:
    """Return the key that a run has in records of mtf 0.1.

    That version added the defaults below to every model and optimizer, also to the user's own.
    """
    filled = {
        section: {**defaults, **value}
        for section, defaults in _FORMER_DEFAULTS.items()
        if isinstance(value := experiment.config.get(section), dict)
    }
    return run_key(replace(experiment, config={**experiment.config, **filled}), trees)


_FORMER_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "model": {"hidden_size": 512, "num_layers": 6, "dropout": 0.1, "activation": "relu"},
    "optimizer": {"lr": 1e-4, "weight_decay": 0.01, "betas": [0.9, 0.999]},
}


def _without_defaults(section: str, value: Any) -> Any:
    if section in _OPEN or not isinstance(value, dict):
        return value
    empty: tuple[Any, ...] = ([], {})
    return {k: v for k, v in value.items() if v is not None and v is not False and v not in empty}
