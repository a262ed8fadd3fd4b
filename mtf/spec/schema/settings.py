"""The settings of an experiments repository (``mtf.yaml``), each with its default."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError

from mtf.core.sbatch.demand import memory_mb
from mtf.errors import SpecError
from mtf.spec.schema.cluster_section import Cluster, as_mapping
from mtf.spec.schema.error_messages import problems_of, shown
from mtf.spec.schema.policies import Policies
from mtf.spec.schema.slurm_section import Environment, SLURMConfig
from mtf.spec.schema.slurm_values import Memory
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
        "a branch name",
    ),
]


def _none_as_null(value: object) -> object:
    return None if value == "none" else value


def _gpus(value: object) -> object:
    if value is None or (type(value) is int and value >= 0):
        return value
    names = [str(name) for name in value] if isinstance(value, list) else []
    if not isinstance(value, list) or not all(map(_GPU.fullmatch, names)):
        raise ValueError(f"expected a number of GPUs or a list like [0, 1], got {shown(value)}")
    if len(set(names)) < len(names):
        raise ValueError(f"{shown(value)} lists a GPU twice")
    return names


_GPU = re.compile(r"[0-9]+|(GPU|MIG)-[0-9A-Za-z/-]+")
LocalGpus = Annotated[int | list[str] | None, BeforeValidator(_gpus)]


class LocalSettings(Strict):
    """The local executor."""

    max_parallel: Count = 2
    """Number of runs at the same time."""
    gpus: LocalGpus = None
    """GPUs for runs: how many, or a list as in CUDA_VISIBLE_DEVICES; null: all there are."""
    cpus: Count | None = None
    """CPUs for runs; null: those of the machine, at least one for each run at a time."""
    mem: Memory | None = None
    """Memory for runs, like 64G; null: that of the machine."""

    def memory_mb(self) -> int | None:
        """Return the memory for runs in MiB, None for that of the machine."""
        return memory_mb(self.mem) or None if self.mem else None


class Retry(Strict):
    """When a run that ended gets another attempt."""

    max_attempts: Count = 3
    """Attempts in a row without progress after which a run is given up."""
    on: list[Cause] = Field(
        default_factory=lambda: list[Cause](["node-failure", "preempted", "time-limit"])
    )
    """Causes of an end that are retried."""
    backoff: Seconds = 60
    """Seconds before the next attempt, doubled after each further attempt without progress."""


class ClusterSettings(Strict):
    """Settings of one cluster, over the settings for all clusters."""

    runs_root: Folder | None = None
    """Folder of the runs on this cluster; null: as for all clusters."""
    executor: Executor | None = None
    """Executor on this cluster; null: as for all clusters."""
    local: LocalSettings | None = None
    """The local executor on this cluster; null: as for all clusters."""
    slurm: SLURMConfig = Field(default_factory=SLURMConfig.defaults)
    """Defaults of every spec's ``slurm`` on this cluster, over those for all clusters."""
    environment: Environment = Field(default_factory=Environment.defaults)
    """Defaults for the environment of jobs on this cluster; ``slurm`` replaces them."""


class Settings(Strict):
    """The content of ``mtf.yaml``."""

    branch: Branch = "main"
    """The tracked branch: mtf runs the experiments at its tip."""
    remote: Annotated[Word | None, BeforeValidator(_none_as_null)] = "origin"
    """Git remote to track and to push records to; null or none: local only."""
    experiments: RelativePath = "experiments"
    """Folder of the specs."""
    runs_root: Folder = "runs"
    """Folder of the runs, absolute or in the repository. The compute nodes must see it."""
    executor: Executor = "auto"
    """What runs the jobs; auto: slurm if sbatch answers, else local."""
    cluster: Annotated[Cluster, BeforeValidator(as_mapping)] = Field(
        default_factory=Cluster.defaults
    )
    """The cluster of specs that name none, and the one that this clone serves by default: its name,
    or a section with its name and facts."""
    clusters: dict[Name, ClusterSettings] = Field(default_factory=dict)
    """Settings by cluster. If given, specs may name no other clusters."""
    local: LocalSettings = Field(default_factory=LocalSettings.defaults)
    """The local executor."""
    slurm: SLURMConfig = Field(default_factory=SLURMConfig.defaults)
    """Defaults of every spec's ``slurm``."""
    environment: Environment = Field(default_factory=Environment.defaults)
    """Defaults for the environment of jobs; ``slurm`` replaces them."""
    retry: Retry = Field(default_factory=Retry.defaults)
    policies: Policies = Field(default_factory=Policies.defaults)
    """Limits and rules for specs and pull requests."""
    lease: Count = 600
    """Seconds after which the claim of a submitter that went silent may be taken over."""

    def slurm_defaults(self) -> dict[str, Any]:
        """Return the defaults of every spec's ``slurm``: the environment, then ``slurm``."""
        return _slurm_defaults(self)

    def serving(self, cluster: str) -> Settings:
        """Return the settings with those of one cluster applied."""
        section = self.clusters.get(cluster)
        if section is None:
            return self.model_copy(update={"cluster": self._named(cluster)})
        slurm = merged_slurm(_slurm_defaults(self), _slurm_defaults(section))
        changed = {
            "cluster": self._named(cluster),
            "runs_root": section.runs_root or self.runs_root,
            "executor": section.executor or self.executor,
            "local": section.local or self.local,
            "slurm": SLURMConfig.model_validate(slurm),
            "environment": Environment(),  # merged into ``slurm``
        }
        return self.model_copy(update=changed)

    def _named(self, cluster: str) -> Cluster:
        return self.cluster if cluster == self.cluster.name else Cluster(name=cluster)

    @property
    def known_clusters(self) -> frozenset[str] | None:
        """Return the names of all clusters, None if the settings do not list them."""
        return frozenset({self.cluster.name, *self.clusters}) if self.clusters else None


def _slurm_defaults(settings: Settings | ClusterSettings) -> dict[str, Any]:
    return merged_slurm(_given(settings.environment), _given(settings.slurm))


def _given(section: Environment) -> dict[str, Any]:
    """Return the keys that a section sets. Of an empty one, no serializer is built."""
    is_empty = not section.model_fields_set
    return {} if is_empty else section.model_dump(mode="json", exclude_unset=True)


def merged_slurm(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return one ``slurm`` section over another: variables are merged, other keys replaced.

    A virtual environment replaces a conda environment and vice versa.
    """
    if over.get("venv") or over.get("conda"):
        under = {**under, "venv": None, "conda": None}
    merged = {**under, **over}
    both = under.get("variables"), over.get("variables")
    if isinstance(both[0], dict) and isinstance(both[1], dict):
        merged["variables"] = both[0] | both[1]
    return merged


def parse_settings(raw: bytes | None, path: str = "mtf.yaml") -> Settings:
    """Return the settings in the bytes of ``mtf.yaml``; for None (no file), the defaults.

    Raises:
        SpecError: with all its errors.
    """
    if raw is None:
        return Settings()
    document = read(raw, path)
    problems = list(document.problems)
    settings = None
    if document.value is not None:
        try:
            settings = Settings.model_validate(document.value)
        except ValidationError as e:
            problems += problems_of(e, Settings, document.positions)
    if problems:
        raise SpecError(problems)
    return settings or Settings()
