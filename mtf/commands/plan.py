"""What a sync would do now, and what a pull request would add: both without doing anything."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mtf import rundir
from mtf.commands.desired import read_desired
from mtf.commands.gather import gather
from mtf.commands.origins import check_origins
from mtf.core.actions import Plan, Submit
from mtf.core.diff import plan
from mtf.core.experiments import axes_of
from mtf.core.times import time_limit_s
from mtf.errors import RepositoryError
from mtf.report.plans import SpecChange

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mtf.commands.desired import Keyed
    from mtf.commands.gather import Options
    from mtf.commands.project import Project
    from mtf.core.experiments import Desired
    from mtf.core.ids import CommitId, RunKey
    from mtf.core.jobs import Resources
    from mtf.core.records import RunRecord


@dataclass(frozen=True)
class Planned:
    """A plan, what it means for each spec, and the commit it is for."""

    plan: Plan
    specs: tuple[SpecChange, ...]
    commit: CommitId


def plan_sync(project: Project, options: Options) -> Planned:
    """Return what ``mtf sync`` with these options would do now."""
    now = datetime.now(UTC)
    with project.repo.reading():
        found = gather(project, project.store(publish=False), options, now)
    planned = plan(found.world, found.policy, now)
    new = {a.key for a in planned.actions if isinstance(a, Submit)}
    recorded = {r.key: r for r in found.world.records.values()}
    specs = tuple(_change(d, keys, new, recorded) for d, keys in found.world.desired)
    return Planned(planned, specs, found.world.commit)


@dataclass(frozen=True)
class Comparison:
    """What one revision asks for that another does not."""

    specs: tuple[SpecChange, ...]
    head: CommitId
    base: CommitId

    @property
    def is_empty(self) -> bool:
        """Return whether merging would change nothing."""
        return not any(s.new or s.removed for s in self.specs)


def compare(project: Project, base: str, rev: str) -> Comparison:
    """Return what merging ``rev`` into ``base`` would add, from commits and the ledger alone.

    The comparison starts where the two branched off, so that what happened on ``base`` since is
    not taken for a removal.

    Raises:
        RepositoryError: the histories do not meet (a shallow clone, mostly).
        SpecError: what is committed is wrong, or begins from what nobody knows.
    """
    repo = project.repo
    head = repo.commit(rev)
    fork = repo.merge_base(repo.commit(base), head)
    if fork is None:
        raise RepositoryError(
            f"{base} and {rev} have no common commit here."
            " In CI, check out with the whole history (fetch-depth: 0)"
        )
    now = datetime.now(UTC)
    with repo.reading():
        _, before = read_desired(repo, fork, now)
        _, after = read_desired(repo, head, now)
    ledger = project.ledger()
    if ledger.tip is not None or project.remote is None:  # else its names are not known here
        check_origins(after, ledger.runs)
    recorded = {r.key: r for r in ledger.runs.values()}
    old = {key for _, keys in before for key in keys}
    wanted = {key for _, keys in after for key in keys}
    changes = [_change(d, keys, wanted - old - set(recorded), recorded) for d, keys in after]
    return Comparison(tuple(_with_removed(changes, before, wanted)), head, fork)


def _with_removed(
    changes: Iterable[SpecChange], before: Sequence[Keyed], wanted: set[RunKey]
) -> list[SpecChange]:
    removed = {d.name: sum(k not in wanted for k in keys) for d, keys in before}
    paths = {d.name: d.path for d, _ in before}
    out = [
        SpecChange(**{**vars(change), "removed": removed.pop(change.name, 0)}) for change in changes
    ]
    gone = [SpecChange(name, paths[name], (), removed=n) for name, n in removed.items() if n]
    return [*out, *gone]


def _change(
    desired: Desired,
    keys: tuple[RunKey, ...],
    new: set[RunKey],
    recorded: Mapping[RunKey, RunRecord],
) -> SpecChange:
    pairs = list(zip(desired.experiments, keys, strict=True))
    fresh = [e for e, key in pairs if key in new]
    there = Counter(str(recorded[key].state) for _, key in pairs if key in recorded)
    hours = [_hours(e.resources) for e in fresh]
    return SpecChange(
        name=desired.name,
        path=desired.path,
        new=tuple(e.name for e in fresh),
        existing=dict(there),
        axes=axes_of(e.parameters for e in fresh),
        resources=_resources(fresh[0].resources) if fresh else "",
        throttle=desired.max_parallel,
        gpu_hours=_total(hours, [gpus(e.resources) for e in fresh]),
        cpu_hours=_total(hours, [cpus(e.resources) for e in fresh]),
        config=rundir.render_yaml(fresh[0].config) if fresh else "",
    )


def gpus(needs: Resources) -> int:
    """Return how many GPUs one run holds."""
    return needs["nodes"] * needs["gpus_per_node"]


def cpus(needs: Resources) -> int:
    """Return how many CPUs one run holds."""
    return needs["nodes"] * needs["ntasks_per_node"] * needs["cpus_per_task"]


def _resources(needs: Resources) -> str:
    parts = [f"{needs['nodes']} node" + ("s" if needs["nodes"] > 1 else "")]
    parts += [f"{gpus(needs)} GPU"] if gpus(needs) else []
    parts += [f"{cpus(needs)} CPU"]
    parts += [needs["mem"]] if needs["mem"] else []
    parts += [needs["time"]] if needs["time"] else []
    parts += [f"partition {needs['partition']}"] if needs["partition"] else []
    return ", ".join(parts)


def _total(hours: Sequence[float | None], units: Sequence[int]) -> float | None:
    """Return the upper bound of unit-hours, None when a run has no time limit."""
    total = 0.0
    for each, count in zip(hours, units, strict=True):
        if each is None:
            return None
        total += each * count
    return total


def _hours(needs: Resources) -> float | None:
    return None if needs["time"] is None else time_limit_s(needs["time"]) / 3600
