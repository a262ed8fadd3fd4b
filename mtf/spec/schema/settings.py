"""``mtf.yaml``: the settings of an experiments repository, each with its default."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError

from mtf.errors import SpecError
from mtf.spec.schema.cluster_section import Cluster, named
from mtf.spec.schema.error_messages import problems_of
from mtf.spec.schema.policies import Policies
from mtf.spec.schema.slurm_section import Environment, SLURMConfig
from mtf.spec.schema.strict import Strict
from mtf.spec.schema.text_types import Folder, Name, RelativePath, Word, matching
from mtf.spec.yaml.reader import read

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[int, Field(ge=0)]
Executor = Literal["auto", "slurm", "local"]
Cause = Literal["node-failure", "preempted", "time-limit", "host-oom", "cuda-oom", "code-error"]
Branch = Annotated[
    str,
    matching(
        r"(?!.*(\.\.|//|\.lock(/|$)|\.(/|$)|/\.|/$))[A-Za-z0-9_][A-Za-z0-9_./+-]*",
        "the name of a branch",
    ),
]


def _none(value: object) -> object:
    return None if value == "none" else value


class LocalSettings(Strict):
    """The local executor."""

    max_parallel: Count = 2
    """How many runs it executes at the same time."""


class Retry(Strict):
    """Which ends of an attempt lead to another one."""

    max_attempts: Count = 3
    """Attempts in a row without progress after which a run is given up; others do not count."""
    on: list[Cause] = Field(
        default_factory=lambda: list[Cause](["node-failure", "preempted", "time-limit"])
    )
    """Causes that are retried."""
    backoff: Seconds = 60
    """Seconds before the next attempt; after each further one without progress twice as many."""


class ClusterSettings(Strict):
    """What one cluster has of its own; what it does not say is as for all."""

    runs_root: Folder | None = None
    """Folder of the runs there; null: as for all."""
    executor: Executor | None = None
    """What executes there; null: as for all."""
    local: LocalSettings | None = None
    """The local executor there; null: as for all."""
    slurm: SLURMConfig = Field(default_factory=SLURMConfig)
    """Over the defaults for all clusters, under every spec's own ``slurm``."""
    environment: Environment = Field(default_factory=Environment)
    """Under those, for the environment of jobs there."""


class Settings(Strict):
    """The whole of ``mtf.yaml``."""

    branch: Branch = "main"
    """The tracked branch: its tip is what is wanted."""
    remote: Annotated[Word | None, BeforeValidator(_none)] = "origin"
    """Git remote whose branch is tracked and where records go; null or none: local only."""
    experiments: RelativePath = "experiments"
    """Folder of the specs."""
    runs_root: Folder = "runs"
    """Folder of the runs, in the repository or absolute, where the compute nodes see it."""
    executor: Executor = "auto"
    """What executes; auto: slurm where sbatch answers, else local."""
    cluster: Annotated[Cluster, BeforeValidator(named)] = Field(default_factory=Cluster)
    """The cluster of specs that name none, and the one a clone serves unless it is told another:
    its name, or what is known of it as well."""
    clusters: dict[Name, ClusterSettings] = Field(default_factory=dict)
    """What differs on which cluster. Where it is given, a spec may name no others."""
    local: LocalSettings = Field(default_factory=LocalSettings)
    """The local executor."""
    slurm: SLURMConfig = Field(default_factory=SLURMConfig)
    """Defaults under every spec's own ``slurm``."""
    environment: Environment = Field(default_factory=Environment)
    """Defaults under those, for the environment of jobs."""
    retry: Retry = Field(default_factory=Retry)
    policies: Policies = Field(default_factory=Policies)
    """Limits and rules for specs and pull requests."""
    lease: Count = 600
    """Seconds after which the claim of a submitter that went silent may be given up."""

    def slurm_defaults(self) -> dict[str, Any]:
        """Return the keys under every spec's ``slurm``: the environment, then ``slurm``."""
        return _slurm_defaults(self)

    def serving(self, cluster: str) -> Settings:
        """Return the settings as they are on a cluster."""
        own = self.clusters.get(cluster)
        if own is None:
            return self.model_copy(update={"cluster": self._named(cluster)})
        slurm = merged_slurm(_slurm_defaults(self), _slurm_defaults(own))
        changed = {
            "cluster": self._named(cluster),
            "runs_root": own.runs_root or self.runs_root,
            "executor": own.executor or self.executor,
            "local": own.local or self.local,
            "slurm": SLURMConfig.model_validate(slurm),
            "environment": Environment(),  # it is in ``slurm`` now
        }
        return self.model_copy(update=changed)

    def _named(self, cluster: str) -> Cluster:
        return self.cluster if cluster == self.cluster.name else Cluster(name=cluster)

    @property
    def known_clusters(self) -> frozenset[str] | None:
        """Return the clusters there are, None where the settings do not say."""
        return frozenset({self.cluster.name, *self.clusters}) if self.clusters else None


def _slurm_defaults(of: Settings | ClusterSettings) -> dict[str, Any]:
    return merged_slurm(
        of.environment.model_dump(mode="json", exclude_unset=True),
        of.slurm.model_dump(mode="json", exclude_unset=True),
    )


def merged_slurm(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return one ``slurm`` section over another; variables add up, the rest replaces.

    A virtual environment replaces a conda environment and the other way round.
    """
    if over.get("venv") or over.get("conda"):
        under = {**under, "venv": None, "conda": None}
    merged = {**under, **over}
    both = under.get("variables"), over.get("variables")
    if isinstance(both[0], dict) and isinstance(both[1], dict):
        merged["variables"] = both[0] | both[1]
    return merged


def parse_settings(raw: bytes | None, path: str = "mtf.yaml") -> Settings:
    """Return the settings in the bytes of ``mtf.yaml``; None, no file, means all defaults.

    Raises:
        SpecError: every mistake in it.
    """
    if raw is None:
        return Settings()
    document = read(raw, path)
    problems = list(document.problems)
    settings = Settings()
    if document.value is not None:
        try:
            settings = Settings.model_validate(document.value)
        except ValidationError as e:
            problems += problems_of(e, Settings, document.positions)
    if problems:
        raise SpecError(problems)
    return settings
