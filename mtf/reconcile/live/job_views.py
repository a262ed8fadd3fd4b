"""Asks executors about the newest jobs of runs, for those who act and for those who look."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mtf import rundir
from mtf.core.vocabulary.ids import job_name, name_of
from mtf.core.vocabulary.jobs import TaskOf
from mtf.core.vocabulary.states import JobState
from mtf.core.vocabulary.times import parse_time
from mtf.errors import ExecutorUnavailableError
from mtf.reconcile.run_access import job_dir_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mtf.core.vocabulary.ids import JobId, Token
    from mtf.core.vocabulary.jobs import JobView
    from mtf.core.vocabulary.records import RunRecord
    from mtf.executor.protocol import JobSource, Live


class Sources(Protocol):
    """Opens what knows the jobs of an executor."""

    def open(self, name: str) -> JobSource:
        """Return the source of the jobs of an executor."""
        ...


def read_live(executors: Sources, records: Iterable[RunRecord]) -> tuple[Live, dict[str, str]]:
    """Return the executors' views of these runs' newest jobs.

    Each executor is asked once. The second value has the reason for each one that did not answer.
    """
    groups: dict[str, list[RunRecord]] = defaultdict(list)
    for record in records:
        groups[record.executor].append(record)
    live: Live = {}
    unreadable = {}
    for name, group in groups.items():
        owners = {r.attempt.token: name_of(r.run) for r in group}
        names = {token: job_name(owner, token) for token, owner in owners.items()}
        since = min(map(parse_time, {r.attempt.claimed_at for r in group}))
        try:
            views = executors.open(name).jobs(names, since, [_task_of(r) for r in group])
        except ExecutorUnavailableError as e:
            unreadable[name] = str(e)
        else:
            live[name] = _by_task(views, group)
    return live, unreadable


def _task_of(record: RunRecord) -> TaskOf:
    attempt = record.attempt
    return TaskOf(attempt.token, attempt.index, attempt.job_id)


def _by_task(
    views: Iterable[JobView], records: Iterable[RunRecord]
) -> dict[tuple[Token, int], JobView]:
    """Return the view of each record's task, or the view of all tasks of its token."""
    by_task = {(v.token, v.index): v for v in views}
    # two jobs may have the same token
    by_job: dict[tuple[Token | None, JobId | None], JobView]
    by_job = {(v.token, v.job_id): v for v in views}
    found = {}
    for record in records:
        token, index = record.attempt.token, record.attempt.index
        view = by_job.get((token, record.job_id)) or by_task.get((token, index))
        view = view or by_task.get((token, None))
        if view is not None and not (view.state is JobState.ABSENT and _has_traces(record)):
            found[token, index] = view
    return found


def _has_traces(record: RunRecord) -> bool:
    """Return True if the newest job of a run has begun: it was not cancelled while it waited."""
    attempt = record.attempt
    assert attempt.job_id is not None
    output = rundir.job_output(job_dir_of(record, attempt), attempt.job_id)
    is_claimed = rundir.claim_holder(Path(record.run_dir), attempt.token) == attempt.job_id
    return is_claimed or os.path.exists(output)  # noqa: PTH110 -- no error
