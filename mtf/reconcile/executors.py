"""The executors of this clone: opening them, and asking them about the jobs in the ledger."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mtf import rundir
from mtf.core.planner.grids.throttles import array_number
from mtf.core.planner.placement import Placement, project_on_cluster
from mtf.core.vocabulary.causes import STANDINGS
from mtf.core.vocabulary.ids import job_name, name_of
from mtf.core.vocabulary.jobs import Mark
from mtf.core.vocabulary.states import JobState
from mtf.core.vocabulary.times import parse_time
from mtf.errors import ExecutorUnavailableError
from mtf.executor.local.machine_query import LocalLimits

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mtf.core.vocabulary.ids import JobId, Token
    from mtf.core.vocabulary.jobs import ArrayLimit
    from mtf.core.vocabulary.records import Attempt, RunRecord
    from mtf.executor.protocol import Executor, Live
    from mtf.spec.schema.settings import LocalSettings, Settings


def resolve_executor(name: str) -> str:
    """Return "slurm" or "local" for "auto": slurm if sbatch is installed; any other name as is."""
    if name != "auto":
        return name
    from mtf.executor.slurm.programs import available

    return "slurm" if available() else "local"


def limits_of(settings: LocalSettings) -> LocalLimits:
    """Return the share of the machine for runs, by the settings."""
    gpus = tuple(settings.gpus) if isinstance(settings.gpus, list) else settings.gpus
    return LocalLimits(settings.max_parallel, gpus, settings.cpus, settings.memory_mb())


def placement_of(settings: Settings, asked: str | None, records: Iterable[RunRecord]) -> Placement:
    """Return where new runs go.

    Args:
        settings: of the commit.
        asked: the executor that the command line names.
        records: of all runs in the ledger.
    """
    name, cluster = asked or settings.executor, settings.cluster.name
    executor = resolve_executor(name)
    if name != "auto":
        return Placement(executor, cluster)
    return Placement(executor, cluster, project_on_cluster(cluster, records), is_asked=False)


@dataclass(frozen=True)
class Executors:
    """Opens the executors that this clone submits to."""

    runs_root: Path
    own_folder: Path  # of what mtf keeps for this clone alone
    local: LocalLimits  # what the local executor may use

    def open(self, name: str, templates: Mapping[str, str] | None = None) -> Executor:
        """Return an executor; ``templates`` are the repository's own script templates, by name.

        Raises:
            ExecutorUnavailableError: there is no executor of that name. A record may have any.
        """
        if name == "slurm":
            from mtf.executor.slurm.slurm_executor import SlurmExecutor

            return SlurmExecutor(templates, self.own_folder)
        if name == "local":
            from mtf.executor.local.local_executor import LocalExecutor

            return LocalExecutor(self.runs_root, self.local, templates, self.own_folder)
        raise ExecutorUnavailableError(f"this version of mtf has no executor {name!r}")

    def cancel(self, records: Iterable[RunRecord]) -> dict[JobId, str]:
        """Cancel the newest jobs of these runs; return those that are not theirs, with reasons.

        Raises:
            MtfError: an executor cannot be reached, or refuses.
        """
        others: dict[JobId, str] = {}
        for name, (jobs, marks) in jobs_of(records).items():
            others |= self.open(name).cancel(jobs, marks)
        return others


def read_limits(
    executors: Executors, records: Iterable[RunRecord], live: Live
) -> tuple[dict[str, Mapping[str, ArrayLimit]], dict[str, str]]:
    """Return the limits of the grids' arrays that wait, by executor; each is asked once.

    The second value has the reason for each executor that did not answer.
    """
    numbers: dict[str, set[str]] = defaultdict(set)
    for record in records:
        view = live.get(record.executor, {}).get((record.attempt.token, record.attempt.index))
        if record.grid and view and view.job_id and view.state in (JobState.PENDING, JobState.HELD):
            numbers[record.executor].add(array_number(record, view))
    found: dict[str, Mapping[str, ArrayLimit]] = {}
    silent = {}
    for name, arrays in numbers.items():
        try:
            found[name] = executors.open(name).array_limits(arrays)
        except ExecutorUnavailableError as e:
            silent[name] = str(e)
    return found, silent


def with_use(executors: Executors, live: Live, records: Iterable[RunRecord]) -> Live:
    """Return the views of jobs, those of jobs that have ended with the resources they used.

    Each executor with such jobs is asked once more.
    """
    given = {(r.executor, r.attempt.token, r.attempt.index): r for r in records}
    found: Live = {}
    for name, views in live.items():
        ended = {task: v for task, v in views.items() if v.job_id and STANDINGS[v.state].cause}
        claims = [given[name, *task].attempt.claimed_at for task in ended if (name, *task) in given]
        if not claims:
            found[name] = views
            continue
        jobs = [view.job_id for view in ended.values()]
        used = executors.open(name).used(jobs, min(map(parse_time, claims)))
        more = {t: replace(v, used=used[v.job_id]) for t, v in ended.items() if v.job_id in used}
        found[name] = {**views, **more}
    return found


def jobs_of(
    records: Iterable[RunRecord],
) -> dict[str, tuple[list[JobId], dict[Token, Mark]]]:
    """Return the newest jobs of these runs and the marks that they have, by executor."""
    found: dict[str, tuple[list[JobId], dict[Token, Mark]]] = {}
    for record in records:
        if record.job_id is not None:
            jobs, marks = found.setdefault(record.executor, ([], {}))
            jobs.append(record.job_id)
            marks[record.attempt.token] = mark_of(record, record.attempt)
    return found


def mark_of(record: RunRecord, attempt: Attempt) -> Mark:
    """Return the marks that mtf has given the job of an attempt."""
    name = job_name(name_of(record.run), attempt.token)
    root = rundir.root_of(Path(record.run_dir), record.run)
    return Mark(name, str(rundir.job_dir(root, record.submission, attempt.token)))
