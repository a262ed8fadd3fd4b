"""The ``policies`` of ``mtf.yaml``: limits and rules for specs, and exceptions by path."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from mtf.spec.schema.patterns import matches, matches_path
from mtf.spec.schema.strict import Strict
from mtf.spec.schema.text_types import OneLine, Word

Hours = Annotated[int | float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Required = Literal["owner", "description", "slurm.account", "slurm.partition", "slurm.time"]


def _regex(text: str) -> str:
    matches(text, "")  # says what is wrong with it
    return text


def _pattern(text: str) -> str:
    if not text or text.startswith("/") or "\\" in text or ".." in text.split("/"):
        raise ValueError(f"{text[:60]!r} is not a path pattern like experiments/prod/**")
    return text


Regex = Annotated[OneLine, Field(max_length=200), AfterValidator(_regex)]
Pattern = Annotated[OneLine, AfterValidator(_pattern)]


class Limits(Strict):
    """The rules that one spec is held to. Null: no such rule."""

    max_gpu_hours: Hours | None = None
    """GPU-hours that all runs of one spec may take together, each up to its time limit."""
    max_cpu_hours: Hours | None = None
    """CPU-hours that all runs of one spec may take together, each up to its time limit."""
    max_runs: Count | None = None
    """Runs that one grid may have."""
    max_parallel: Count | None = None
    """Runs of one grid that may be at the cluster at a time: a larger grid's own max_parallel."""
    partitions: list[Word] | None = None
    """Partitions that may be asked for; a spec that names none is told to."""
    accounts: list[Word] | None = None
    """Accounts that may be charged; a spec that names none is told to."""
    require: list[Required] | None = None
    """What every spec must say."""
    names: Regex | None = None
    """Regular expression (as Rust has them: no look-around) that the whole name of every experiment
    and grid matches."""


class Exemption(Limits):
    """Other rules for the specs at some paths. Only what is written here is replaced."""

    paths: Annotated[list[Pattern], Field(min_length=1)]
    """Patterns from the repository's root: ``*`` within a folder, ``**`` across folders."""


class PullRequestLimits(Strict):
    """The rules that all changes of one pull request are held to together."""

    max_gpu_hours: Hours | None = None
    """GPU-hours of all runs that it adds."""
    max_cpu_hours: Hours | None = None
    """CPU-hours of all runs that it adds."""
    max_runs: Count | None = None
    """Runs that it adds."""


class Policies(Limits):
    """Limits and rules for every spec."""

    exceptions: list[Exemption] = Field(default_factory=list)
    """Other rules by path; of several that match, the last that says something of a rule counts."""
    require_signed: bool = False
    """Whether only commits are submitted that an allowed signer has signed (git verifies)."""
    pull_request: PullRequestLimits = Field(default_factory=PullRequestLimits)
    """Limits for all that one pull request adds."""

    def at(self, path: str) -> Limits:
        """Return the rules for the spec at a path."""
        rules: dict[str, Any] = {name: getattr(self, name) for name in Limits.model_fields}
        for one in self.exceptions:
            if any(matches_path(pattern, path) for pattern in one.paths):
                rules |= {n: getattr(one, n) for n in one.model_fields_set if n in rules}
        return Limits.model_construct(**rules)
