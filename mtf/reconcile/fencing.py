"""Ends attempts that another ledger has given a run beside ours, while the two had parted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mtf import rundir
from mtf.core.vocabulary.ids import JobId, job_name, name_of
from mtf.errors import MtfError
from mtf.reconcile.executors import open_executor
from mtf.reconcile.run_access import is_elsewhere

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mtf.core.vocabulary.records import Attempt, RunRecord
    from mtf.project.project import Project


def end_rivals(project: Project, record: RunRecord, rivals: Iterable[Attempt]) -> None:
    """Shut out the jobs of these attempts of a run, and cancel those that there are.

    To be done before the ledger says so: whoever dies in between leaves it to the next sync.

    Raises:
        MtfError: one may still run: its folder is not here, or the executor cannot be reached.
    """
    if record.cluster != project.settings.cluster.name or is_elsewhere(project, record):
        raise MtfError(f"its folder {record.run_dir} is not here: mtf sync there ends them")
    folder = Path(record.run_dir)
    name = name_of(record.run)
    jobs: set[JobId] = set()
    for attempt in rivals:
        jobs |= {attempt.job_id} if attempt.job_id else set()
        if folder.is_dir():
            holder = rundir.claim(folder, attempt.token, rundir.FENCED)
            jobs |= {JobId(holder)} - {JobId(rundir.FENCED)}
    if jobs:
        names = {attempt.token: job_name(name, attempt.token) for attempt in rivals}
        open_executor(project, record.executor).cancel(jobs, names)
