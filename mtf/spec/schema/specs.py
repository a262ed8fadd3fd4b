"""Pydantic models of the two kinds of spec files: experiments (and bases), and grids."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from mtf.spec.schema.sections import Count, Positive, Sections
from mtf.spec.schema.strict import Strict
from mtf.spec.schema.text_types import Name, OneLine, RelativePath


class Control(Strict):
    """Keys of a spec that are not part of a configuration."""

    generation: Count = 1
    """Increase it to run the same configuration again."""
    rerun_on: list[RelativePath] = Field(default_factory=list)
    """Paths in the repository. A change of their content starts a new run."""
    cluster: Name | None = None
    """Cluster to run on; null: the one of the settings."""
    on_change: Literal["keep", "cancel"] = "keep"
    """What happens to active runs of the former configuration when a changed one is submitted."""


class ExperimentSpec(Sections, Control):
    """A file of ``kind: experiment``, or of ``kind: base`` (sections for grids to build on)."""

    kind: Literal["experiment", "base"] = "experiment"
    experiment_name: Name
    """Name of the experiment, unique in the repository."""


Values = Annotated[list[JsonValue], Field(min_length=1)]
Match = Annotated[dict[str, JsonValue], Field(min_length=1)]


class Conditional(Strict):
    """Values for the members of a grid that match a condition."""

    set: dict[str, Values] = Field(min_length=1)
    """Keys with their values. Each member that matches is multiplied by them."""
    when: Match
    """Keys with the values that a member must have."""


DISTRIBUTIONS = {
    "uniform": {"low", "high"},
    "loguniform": {"low", "high"},
    "normal": {"mean", "std"},
    "int": {"low", "high"},
    "choice": {"values"},
}


class Sample(Strict):
    """A key with randomly drawn values. Each distribution needs its own parameters."""

    distribution: Literal["uniform", "loguniform", "normal", "int", "choice"]
    """Distribution to draw from."""
    low: float | None = None
    """Lowest value (uniform, loguniform, int)."""
    high: float | None = None
    """Highest value (uniform, loguniform, int)."""
    mean: float | None = None
    """Mean (normal)."""
    std: Positive | None = None
    """Standard deviation (normal)."""
    values: list[JsonValue] | None = None
    """Values to choose from (choice)."""
    n: Count | None = None
    """Number of draws. All sampled keys are drawn together, so that one of them gives it."""
    seed: int = 0
    """Seed of this key's draws. Increasing ``n`` keeps the existing draws."""

    @model_validator(mode="after")
    def _parameters_fit_the_distribution(self) -> Self:
        needed = DISTRIBUTIONS[self.distribution]
        given = {"low", "high", "mean", "std", "values"} & self.model_fields_set
        if given != needed:
            names = " and ".join(sorted(needed))
            raise ValueError(f"distribution {self.distribution} needs {names}, and nothing else")
        low, high = self.low or 0.0, self.high or 0.0
        if "low" in needed and not low < high:
            raise ValueError(f"low ({low:g}) must be less than high ({high:g})")
        if self.distribution == "loguniform" and low <= 0:
            raise ValueError("low must be greater than 0 for distribution loguniform")
        if self.distribution == "int" and not (low.is_integer() and high.is_integer()):
            raise ValueError("low and high must be integers for distribution int")
        if self.values == []:
            raise ValueError("values must not be empty")
        if not self._has_finite_draws(low, high):
            raise ValueError("the numbers are too large, or too far from each other")
        return self

    def _has_finite_draws(self, low: float, high: float) -> bool:
        match self.distribution:
            case "int":
                return max(-low, high) <= 2**53  # beyond it, not every integer is a float
            case "uniform":
                return math.isfinite(high - low)
            case "loguniform":
                return math.isfinite(high / low)
            case "normal":  # no draw is 100 times std away from mean
                return math.isfinite(abs(self.mean or 0.0) + 100 * (self.std or 0.0))
            case "choice":
                return True


class GridSpec(Control):
    """A file of ``kind: grid``: many experiments from one base."""

    kind: Literal["grid"] = "grid"
    name: Name
    """Name of the grid, unique in the repository."""
    base: JsonValue
    """Path of the base relative to this file, or the base itself."""
    parameters: dict[str, Values] = Field(default_factory=dict)
    """Dotted keys with their values. All combinations become members."""
    linked: list[Annotated[list[Match], Field(min_length=1)]] = Field(default_factory=list)
    """Groups of keys whose values vary together. All combinations of the groups become members."""
    conditional: list[Conditional] = Field(default_factory=list)
    """Further values for the members that match a condition."""
    sample: dict[str, Sample] = Field(default_factory=dict)
    """Keys with randomly drawn values. The draws are combined with all other values."""
    exclude: list[Match] = Field(default_factory=list)
    """Combinations to leave out."""
    naming: Literal["hash", "parameters", "timestamp", "sequential"] = "parameters"
    """How members get their names."""
    max_parallel: Count | None = None
    """Members that run at the same time; null: as many as the cluster allows."""
    canary: Count | None = None
    """Members that are submitted first. The others follow once these have saved a checkpoint."""
    max_failed: Count | None = None
    """Failures after which no more members start, until one is retried or the spec changes."""
    max_runs: Annotated[int, Field(ge=1, le=100_000)] = 10_000
    """Most members that the grid may have, as a guard against mistakes."""
    description: str | None = None
    """Free text about the grid."""
    owner: OneLine | None = None
    """Who is responsible for it."""
