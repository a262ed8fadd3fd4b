"""Removes the folders of job requests that led to no job."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mtf import rundir
from mtf.core.vocabulary.causes import STANDINGS
from mtf.core.vocabulary.ids import RunId, Token, job_name, name_of
from mtf.core.vocabulary.times import parse_time
from mtf.errors import MtfError
from mtf.reconcile.run_access import is_elsewhere

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mtf.core.vocabulary.ids import SubmissionId
    from mtf.core.vocabulary.records import RunRecord
    from mtf.reconcile.executors import Executors


def idle_requests(records: Iterable[RunRecord]) -> dict[SubmissionId, list[Path]]:
    """Return the folders of job requests without jobs, by submission, if all its runs are over."""
    groups: dict[SubmissionId, list[RunRecord]] = {}
    for record in records:
        groups.setdefault(record.submission, []).append(record)
    found = {s: _idle(s, group) for s, group in groups.items() if all(r.is_over for r in group)}
    return {submission: folders for submission, folders in found.items() if folders}


def _idle(submission: SubmissionId, records: list[RunRecord]) -> list[Path]:
    root = rundir.root_of(Path(records[0].run_dir), records[0].run)
    folder = rundir.submission_dir(root, submission) / rundir.JOBS
    with_job = {a.token for r in records for a in r.attempts if a.job_id}
    try:
        return sorted(p for p in folder.iterdir() if p.name not in with_job)
    except OSError:
        return []


def sweep_requests(executors: Executors, records: Iterable[RunRecord]) -> None:
    """Remove the folders of job requests without jobs in submissions whose runs are all over.

    The requests are fenced first, so that none of their jobs can start any more. A folder stays if
    the executor knows a job of the request or does not answer; ``mtf doctor`` reports it.
    """
    records = [r for r in records if not is_elsewhere(executors.runs_root, r)]
    by_submission = {r.submission: r for r in records}
    for submission, folders in idle_requests(records).items():
        record = by_submission[submission]
        root = rundir.root_of(Path(record.run_dir), record.run)
        with suppress(MtfError, OSError):
            for folder in _without_jobs(executors, record, folders):
                runs = _runs(folder)
                if runs is not None and all(_is_fenced(root, r, Token(folder.name)) for r in runs):
                    shutil.rmtree(folder)


def _without_jobs(executors: Executors, record: RunRecord, folders: list[Path]) -> list[Path]:
    name = name_of(record.run)
    names = {Token(p.name): job_name(name, Token(p.name)) for p in folders}
    since = parse_time(record.claimed_at)
    views = executors.open(record.executor).jobs(names, since)
    busy = {view.token for view in views if STANDINGS[view.state].cause is None}
    return [folder for folder in folders if folder.name not in busy]


def _runs(folder: Path) -> list[RunId] | None:
    """Return the runs of a job request, None if its file was not written completely."""
    try:
        return [RunId(config["mtf"]["run"]) for config in rundir.read_configs(folder)]
    except FileNotFoundError:  # its submitter died at once: no job can start without the file
        return []
    except (ValueError, KeyError):
        return None


def _is_fenced(root: Path, run: RunId, token: Token) -> bool:
    return rundir.claim(rundir.run_dir(root, run), token, rundir.FENCED) == rundir.FENCED
