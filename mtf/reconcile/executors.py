"""Which executors there are here, and what they say of the jobs the ledger knows."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from mtf.core.vocabulary.ids import job_name, name_of
from mtf.core.vocabulary.times import parse_time
from mtf.errors import ExecutorUnavailableError, MtfError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mtf.core.vocabulary.ids import JobId, Token
    from mtf.core.vocabulary.jobs import JobView
    from mtf.core.vocabulary.records import RunRecord
    from mtf.executor.protocol import Executor
    from mtf.project.project import Project

Live = dict[str, dict[tuple["Token", int], "JobView"]]


def choose_executor(project: Project, wish: str | None) -> str:
    """Return "slurm" or "local": the wish, else the setting, else slurm where sbatch answers."""
    name = wish or project.settings.executor
    if name != "auto":
        return name
    from mtf.executor.slurm.programs import available

    return "slurm" if available() else "local"


def open_executor(
    project: Project, name: str, templates: Mapping[str, str] | None = None
) -> Executor:
    """Return an executor; ``templates`` are the repository's own script templates, by name.

    Raises:
        MtfError: there is none of that name.
    """
    if name == "slurm":
        from mtf.executor.slurm.slurm_executor import SlurmExecutor

        return SlurmExecutor(templates, project.folder)
    if name == "local":
        from mtf.executor.local.local_executor import LocalExecutor

        most = project.settings.local.max_parallel
        return LocalExecutor(project.runs_root, most, templates, project.folder)
    raise MtfError(f"executor {name!r}: unknown. Use slurm, local or auto")


def read_live(project: Project, records: Iterable[RunRecord]) -> tuple[Live, dict[str, str]]:
    """Return what the executors say of these runs' newest jobs, by executor, token and index.

    One question an executor. The second value says why one could not be read.
    """
    groups: dict[str, list[RunRecord]] = defaultdict(list)
    for record in records:
        groups[record.executor].append(record)
    live: Live = {}
    unreadable = {}
    for name, group in groups.items():
        names = dict(map(_named, group))
        since = min(parse_time(r.attempt.claimed_at) for r in group)
        try:
            views = open_executor(project, name).jobs(names, since)
        except ExecutorUnavailableError as e:
            unreadable[name] = str(e)
        else:
            live[name] = _by_task(views, group)
    return live, unreadable


def _named(record: RunRecord) -> tuple[Token, str]:
    """Return the token of a run's newest job, and the name that the job bears."""
    token = record.attempt.token
    return token, job_name(name_of(record.run), token)


def jobs_of(
    records: Iterable[RunRecord],
) -> dict[str, tuple[list[JobId], dict[Token, str]]]:
    """Return by executor the newest jobs of these runs, and the names that they bear."""
    found: dict[str, tuple[list[JobId], dict[Token, str]]] = {}
    for record in records:
        if record.job_id is not None:
            jobs, names = found.setdefault(record.executor, ([], {}))
            jobs.append(record.job_id)
            names.update([_named(record)])
    return found


def _by_task(
    views: Iterable[JobView], records: Iterable[RunRecord]
) -> dict[tuple[Token, int], JobView]:
    """Return the view of each record's task: its own, else the one of all its token's tasks."""
    found = {(v.token, v.index): v for v in views}
    # a token may have come to bear two jobs
    by_job: dict[tuple[Token | None, JobId | None], JobView]
    by_job = {(v.token, v.job_id): v for v in views}
    out = {}
    for record in records:
        token, index = record.attempt.token, record.attempt.index
        view = by_job.get((token, record.job_id)) or found.get((token, index))
        view = view or found.get((token, None))
        if view is not None:
            out[token, index] = view
    return out
