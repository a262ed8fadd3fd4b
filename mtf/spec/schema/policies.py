"""The ``policies`` section of ``mtf.yaml``: limits and rules for specs, and exceptions by path."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from mtf.core.sbatch.option_table import OPTIONS, Kind
from mtf.spec.schema.error_messages import shown
from mtf.spec.schema.patterns import matches, matches_path
from mtf.spec.schema.strict import Strict
from mtf.spec.schema.text_types import OneLine, Word

Hours = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Required = Literal["owner", "description", "slurm.account", "slurm.partition", "slurm.time"]


def _regex(text: str) -> str:
    matches(text, "")  # raises if it is not a regular expression
    return text


def _pattern(text: str) -> str:
    if not text or text.startswith("/") or "\\" in text or ".." in text.split("/"):
        raise ValueError(f"expected a path pattern like experiments/prod/**, got {shown(text)}")
    return text


def _sbatch_option(text: str) -> str:
    name = text.removesuffix("=")
    if re.fullmatch(r"[a-z][a-z0-9-]*", name) is None:
        raise ValueError(f"expected an option's long name like bb= or reboot, got {shown(text)}")
    if name in OPTIONS and OPTIONS[name].kind is not Kind.BY_PERMISSION:
        what = "is never allowed" if OPTIONS[name].kind is Kind.REFUSED else "needs no permission"
        raise ValueError(f"{shown(text)}: --{name} {what}. Remove it")
    return text


Regex = Annotated[OneLine, Field(max_length=200), AfterValidator(_regex)]
Pattern = Annotated[OneLine, AfterValidator(_pattern)]


AllowedOption = Annotated[str, AfterValidator(_sbatch_option)]


class Limits(Strict):
    """The rules for one spec. Null: no such rule."""

    max_gpu_hours: Hours | None = None
    """GPU-hours that all runs of one spec may take together, each up to its time limit."""
    max_cpu_hours: Hours | None = None
    """CPU-hours that all runs of one spec may take together, each up to its time limit."""
    max_runs: Count | None = None
    """Runs that one grid may have."""
    max_parallel: Count | None = None
    """Runs of one grid that may run at a time. A grid with more members must set its own
    max_parallel."""
    partitions: list[Word] | None = None
    """Partitions that specs may use. A spec must then name one."""
    accounts: list[Word] | None = None
    """Accounts that specs may charge. A spec must then name one."""
    require: list[Required] | None = None
    """Keys that every spec must give."""
    names: Regex | None = None
    """Regular expression that the whole name of every experiment and grid must match (in Rust's
    syntax, without look-around)."""
    sbatch_options: list[AllowedOption] | None = None
    """Options of sbatch that jobs may have beyond those that mtf knows as harmless, such as options
    of the site's plugins: by long name, with = at the end if they take a value."""


class Exemption(Limits):
    """Other rules for the specs at some paths. Rules that are not given here stay as they are."""

    paths: Annotated[list[Pattern], Field(min_length=1)]
    """Patterns from the repository's root: ``*`` within a folder, ``**`` across folders."""


class PullRequestLimits(Strict):
    """The rules for all changes of one pull request together."""

    max_gpu_hours: Hours | None = None
    """GPU-hours of all runs that the pull request adds."""
    max_cpu_hours: Hours | None = None
    """CPU-hours of all runs that the pull request adds."""
    max_runs: Count | None = None
    """Runs that the pull request adds."""


class Policies(Limits):
    """Limits and rules for every spec."""

    exceptions: list[Exemption] = Field(default_factory=list)
    """Other rules by path. If several exceptions match, the last one that gives a rule counts."""
    require_signed: bool = False
    """True: only commits signed by an allowed signer are submitted (git verifies the signature)."""
    branches: list[Pattern] | None = None
    """Branches besides the tracked one whose commits may run: patterns like ``release/*``. Null:
    ``mtf sync --rev`` may name any commit, but its runs are continued only with the same --rev."""
    pull_request: PullRequestLimits = Field(default_factory=PullRequestLimits.defaults)
    """Limits for everything that one pull request adds."""

    def at(self, path: str) -> Limits:
        """Return the rules for the spec at a path."""
        if not self.exceptions:
            return self
        rules: dict[str, Any] = {name: getattr(self, name) for name in Limits.model_fields}
        for exception in self.exceptions:
            if any(matches_path(pattern, path) for pattern in exception.paths):
                given = exception.model_fields_set & rules.keys()
                rules |= {name: getattr(exception, name) for name in given}
        return Limits.model_construct(**rules)
