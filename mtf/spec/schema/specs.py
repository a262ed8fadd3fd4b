"""Pydantic models of the two kinds of spec files: experiments (and bases), and grids."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from mtf.spec.schema.sections import Count, Positive, Sections
from mtf.spec.schema.strict import Strict
from mtf.spec.schema.text_types import Name, OneLine, RelativePath


class _Control(Strict):
    """What a spec says beyond configurations."""

    generation: Count = 1
    """Raise it to run what has run already once more."""
    rerun_on: list[RelativePath] = Field(default_factory=list)
    """Paths of the repository whose change makes this run anew."""
    cluster: Name | None = None
    """Cluster that runs it; null: the one of the settings."""
    on_change: Literal["keep", "cancel"] = "keep"
    """What becomes of active runs of the former configuration when a changed one is submitted."""


class ExperimentSpec(Sections, _Control):
    """A file of ``kind: experiment``, or of ``kind: base``, which only grids build on."""

    kind: Literal["experiment", "base"] = "experiment"
    experiment_name: Name
    """Name of the experiment, unique in the repository."""


Values = Annotated[list[JsonValue], Field(min_length=1)]
Match = Annotated[dict[str, JsonValue], Field(min_length=1)]


class Conditional(Strict):
    """Values that only some members of a grid get."""

    set: dict[str, Values] = Field(min_length=1)
    """Keys with their values, multiplied into the members that match."""
    when: Match
    """Keys with the value that a member must have."""


DISTRIBUTIONS = {
    "uniform": {"low", "high"},
    "loguniform": {"low", "high"},
    "normal": {"mean", "std"},
    "int": {"low", "high"},
    "choice": {"values"},
}


class Sample(Strict):
    """One randomly drawn key. Each distribution needs its own parameters."""

    distribution: Literal["uniform", "loguniform", "normal", "int", "choice"]
    """How it is drawn."""
    low: float | None = None
    """Least value (uniform, loguniform, int)."""
    high: float | None = None
    """Greatest value (uniform, loguniform; included for int)."""
    mean: float | None = None
    """Mean (normal)."""
    std: Positive | None = None
    """Standard deviation (normal)."""
    values: list[JsonValue] | None = None
    """What to choose from (choice)."""
    n: Count | None = None
    """Number of draws; all sampled keys are drawn together, so it is needed only once."""
    seed: int = 0
    """Seed of this key's draws; a greater ``n`` keeps the draws there are."""

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        needed = DISTRIBUTIONS[self.distribution]
        given = {"low", "high", "mean", "std", "values"} & self.model_fields_set
        if given != needed:
            raise ValueError(f"{self.distribution} takes {' and '.join(sorted(needed))}")
        low, high = self.low or 0.0, self.high or 0.0
        if "low" in needed and not low < high:
            raise ValueError(f"low, {low:g}, must be less than high, {high:g}")
        if self.distribution == "loguniform" and low <= 0:
            raise ValueError("low must be greater than 0 for loguniform")
        if self.distribution == "int" and not (low.is_integer() and high.is_integer()):
            raise ValueError("low and high must be whole numbers for int")
        if self.values == []:
            raise ValueError("values must not be empty")
        return self


class GridSpec(_Control):
    """A file of ``kind: grid``: many experiments from one base."""

    kind: Literal["grid"] = "grid"
    name: Name
    """Name of the grid, unique in the repository."""
    base: JsonValue
    """Path of the base, relative to this file, or an experiment written here."""
    parameters: dict[str, Values] = Field(default_factory=dict)
    """Dotted keys with the values that are combined in every way."""
    linked: list[Annotated[list[Match], Field(min_length=1)]] = Field(default_factory=list)
    """Groups of values that vary together; the groups are combined in every way."""
    conditional: list[Conditional] = Field(default_factory=list)
    """Values for the members that match."""
    sample: dict[str, Sample] = Field(default_factory=dict)
    """Randomly drawn keys; the draws are combined with everything else."""
    exclude: list[Match] = Field(default_factory=list)
    """Combinations that are left out."""
    naming: Literal["hash", "parameters", "timestamp", "sequential"] = "parameters"
    """How members are named."""
    max_parallel: Count | None = None
    """How many members run at the same time; null: as many as the cluster gives."""
    max_runs: Annotated[int, Field(ge=1, le=100_000)] = 10_000
    """Greatest number of members that is not a mistake."""
    description: str | None = None
    """What this is about, for people."""
    owner: OneLine | None = None
    """Who answers for it."""
