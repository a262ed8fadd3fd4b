"""Looks for what somebody but mtf has changed: records, job branches, run folders, checkouts."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mtf import rundir
from mtf.core.planner.drift import Branches, Drift
from mtf.core.vocabulary.ids import SINGLE, spec_and_member, submission_at
from mtf.core.vocabulary.records import RunRecord, SubmissionRecord
from mtf.reconcile.run_access import job_dir_of, needed_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mtf.core.vocabulary.ids import RunId, SubmissionId
    from mtf.ledger.store import Ledger, LedgerStore
    from mtf.project.project import Project


def fetched_branches(store: LedgerStore) -> Branches | None:
    """Return the job branches as a fetch has found them; what was kept back is not missing."""
    found = store.branches
    return Branches(found.here, None) if found and store.is_ahead else found


def look_for_drift(
    project: Project, ledger: Ledger, here: Iterable[RunRecord], branches: Branches | None
) -> Drift:
    """Return what is other than mtf has left it.

    Args:
        project: opened.
        ledger: compared with its history.
        here: the runs whose folders can be seen from here.
        branches: where the job branches are, as far as it is known.
    """
    here = list(here)
    return Drift(
        records={t.good.run: t.why for t in ledger.troubles or () if isinstance(t.good, RunRecord)},
        submissions=tuple(
            (t.good, t.why) for t in ledger.troubles or () if isinstance(t.good, SubmissionRecord)
        ),
        unreadable=dict(_unreadable(ledger)),
        branches=branches,
        made_here=_made_here(project, here, branches),
        folders=lost_folders(here),
        checkouts=_lost_checkouts(here),
        notes=tuple(_notes(ledger)),
    )


def known_submissions(ledger: Ledger) -> frozenset[SubmissionId]:
    """Return the submissions that the ledger knows of, be it by a damaged record."""
    of_runs = {r.submission for r in ledger.runs.values()}
    of_troubles = {s for t in ledger.troubles or () if (s := submission_at(t.path))}
    of_damaged = {s for path in ledger.damaged if (s := submission_at(path))}
    return frozenset({*ledger.submissions, *of_runs, *of_troubles, *of_damaged})


def beyond_repair(ledger: Ledger) -> dict[str, str]:
    """Return the records that are not as they should be and cannot be put back, with the reason."""
    troubles = ledger.troubles or ()
    restored = {t.path for t in troubles if t.good is not None}
    damaged = {path: f"is damaged ({why})" for path, why in ledger.damaged.items()}
    lost = {t.path: t.why for t in troubles}
    return {path: why for path, why in {**damaged, **lost}.items() if path not in restored}


def _notes(ledger: Ledger) -> Iterator[str]:
    for path, why in beyond_repair(ledger).items():
        yield f"mtf/ledger:{path} {why}: its run is left alone. See git log -p mtf/ledger -- {path}"


def _unreadable(ledger: Ledger) -> Iterator[tuple[tuple[str, str | None], str]]:
    for path, why in beyond_repair(ledger).items():
        found = spec_and_member(path)
        if found is not None:
            name, member = found
            yield (name, member), f"its record {path} {why}"
            if member == SINGLE:
                yield (name, None), f"its record {path} {why}"


def _made_here(
    project: Project, records: Iterable[RunRecord], branches: Branches | None
) -> frozenset[SubmissionId]:
    """Return the submissions without a branch in this clone that this clone has made.

    Another clone of the same remote never had the branch.
    """
    if branches is None:
        return frozenset()
    lacking = {r.submission: r for r in records if f"refs/heads/{r.branch}" not in branches.here}
    alone = project.remote is None
    return frozenset(s for s, r in lacking.items() if alone or _is_ours(project, r))


def _is_ours(project: Project, record: RunRecord) -> bool:
    """Return whether a run's configuration says that it was submitted from this repository."""
    for attempt in record.attempts:
        with suppress(OSError, ValueError, KeyError):
            config = rundir.read_config(job_dir_of(record, attempt), 0)
            return bool(config["mtf"]["repository"] == str(project.repo.root))
    return False


def lost_folders(records: Iterable[RunRecord]) -> frozenset[RunId]:
    """Return the runs whose folder, or that of their job, or every checkpoint, is gone.

    One look at the folder of each submission, not one at each run's.
    """
    listed: dict[Path, frozenset[str]] = {}
    lost = set()
    for record in records:
        folder = needed_folder(record)
        if folder is None:
            continue
        if folder.parent not in listed:
            listed[folder.parent] = _names(folder.parent)
        if folder.name not in listed[folder.parent] or _has_lost_checkpoints(record):
            lost.add(record.run)
    return frozenset(lost)


def _names(folder: Path) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))  # noqa: PTH208 -- names alone
    except OSError:
        return frozenset()


def _has_lost_checkpoints(record: RunRecord) -> bool:
    """Return whether a run that is to go on has nothing left to go on from."""
    if record.is_over or record.retry_at is None or record.checkpoint is None:
        return False
    return not has_checkpoints(record)


def has_checkpoints(record: RunRecord) -> bool:
    """Return whether there is anything in a run's folder that it could go on from."""
    names = _names(Path(record.run_dir) / rundir.CHECKPOINTS)
    return any(name.endswith(".ckpt") and name != rundir.LATEST for name in names)


def _lost_checkouts(records: Iterable[RunRecord]) -> frozenset[RunId]:
    """Return the active runs with a job whose pinned checkout is gone."""
    there: dict[tuple[Path, str], bool] = {}
    lost = set()
    for record in records:
        if record.is_over or record.job_id is None:
            continue
        key = rundir.root_of(Path(record.run_dir), record.run), record.commit
        if key not in there:
            there[key] = rundir.code_dir(*key).is_dir() and rundir.code_manifest(*key).is_file()
        if not there[key]:
            lost.add(record.run)
    return frozenset(lost)
