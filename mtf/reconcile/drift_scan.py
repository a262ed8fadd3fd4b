"""Looks for drift: records, job branches, run folders and checkouts changed by somebody else."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mtf import rundir
from mtf.core.planner.drift import Branches, Drift
from mtf.core.vocabulary.ids import SINGLE, record_path, spec_and_member, submission_at
from mtf.core.vocabulary.records import RunRecord, SubmissionRecord
from mtf.reconcile.run_access import is_elsewhere, job_dir_of, needed_folder, root_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from mtf.core.vocabulary.ids import CommitId, RunId, SubmissionId
    from mtf.ledger.store import Ledger, LedgerStore


def scan(
    store: LedgerStore, ledger: Ledger, runs_root: Path, repository: Path, remote: str | None
) -> Drift:
    """Return the drift that can be seen from this clone.

    Args:
        store: has fetched the ledger.
        ledger: compared with its history.
        runs_root: of this clone.
        repository: the root of this clone.
        remote: its name, None for a clone without one.
    """
    here = [r for r in ledger.runs.values() if not is_elsewhere(runs_root, r)]
    branches = store.branches
    if branches is not None and store.is_ahead:  # a branch not pushed yet is not missing
        branches = Branches(branches.here, None)
    drift = look_for_drift(
        ledger, here, branches, store, repository=repository, is_shared=remote is not None
    )
    if store.is_ahead:
        drift = drift.with_note(f"{remote} lacks commits of mtf/ledger: mtf sync pushes them")
    return drift


def look_for_drift(
    ledger: Ledger,
    here: Iterable[RunRecord],
    branches: Branches | None,
    store: LedgerStore,
    *,
    repository: Path,
    is_shared: bool,
) -> Drift:
    """Return the changes that somebody other than mtf has made.

    Args:
        ledger: compared with its history.
        here: the runs whose folders can be seen from here.
        branches: the job branches, here and on the remote, as far as they are known.
        store: has the ledger.
        repository: the root of this clone.
        is_shared: True if the clone has a remote, so that other clones submit as well.
    """
    here = list(here)
    found = [(finding.last_good, finding.why) for finding in ledger.findings or ()]
    made_here = _made_here(here, branches, repository, is_shared=is_shared)
    pins = _pins(store, ledger, branches, made_here)
    return Drift(
        records={r.run: why for r, why in found if isinstance(r, RunRecord)},
        submissions=tuple((s, why) for s, why in found if isinstance(s, SubmissionRecord)),
        unreadable=dict(_unreadable(ledger)),
        branches=branches,
        pins=pins,
        made_here=made_here,
        folders=lost_folders(here),
        checkouts=_lost_checkouts(here),
        notes=(*_notes(ledger), *_notes_on_pins(ledger, pins)),
    )


def known_submissions(ledger: Ledger) -> frozenset[SubmissionId]:
    """Return all submissions in the ledger, also those of damaged records."""
    of_runs = {r.submission for r in ledger.runs.values()}
    of_findings = {s for t in ledger.findings or () if (s := submission_at(t.path))}
    of_damaged = {s for path in ledger.damaged if (s := submission_at(path))}
    return frozenset({*ledger.submissions, *of_runs, *of_findings, *of_damaged})


def beyond_repair(ledger: Ledger) -> dict[str, str]:
    """Return the damaged or lost records that cannot be restored, each with the reason."""
    findings = ledger.findings or ()
    restored = {t.path for t in findings if t.last_good is not None}
    damaged = {path: f"is damaged ({why})" for path, why in ledger.damaged.items()}
    lost = {t.path: t.why for t in findings}
    return {path: why for path, why in {**damaged, **lost}.items() if path not in restored}


def _notes(ledger: Ledger) -> Iterator[str]:
    for path, why in beyond_repair(ledger).items():
        yield f"mtf/ledger:{path} {why}: its run is left alone. See git log -p mtf/ledger -- {path}"


def _pins(
    store: LedgerStore,
    ledger: Ledger,
    branches: Branches | None,
    made_here: frozenset[SubmissionId],
) -> dict[SubmissionId, CommitId | None]:
    """Return where those job branches belong that are elsewhere than a run's record says."""
    if branches is None:
        return {}
    pins: dict[SubmissionId, CommitId | None] = {}
    on_remote = branches.on_remote
    for record in ledger.runs.values():
        ref, submission = f"refs/heads/{record.branch}", record.submission
        is_elsewhere = branches.here.get(ref, record.commit) != record.commit or (
            on_remote is not None and on_remote.get(ref) != record.commit
        )
        if submission not in pins and (is_elsewhere or submission in made_here):
            pins[submission] = store.pin(ledger, submission)
    return pins


def _notes_on_pins(ledger: Ledger, pins: Mapping[SubmissionId, CommitId | None]) -> Iterator[str]:
    said = set()
    for record in ledger.runs.values() if pins else ():
        pin = pins.get(record.submission, record.commit)
        about = record.submission if pin is None else record.run
        if pin == record.commit or about in said:
            continue
        said.add(about)
        where = f"git log mtf/ledger -- {record_path(record.run)}"
        if pin is None:
            yield (
                f"{record.branch} is left as it is: its records name the commit"
                f" {record.commit}, and mtf has pinned no such commit. See {where}"
            )
        else:
            yield (
                f"{record.run} names the commit {record.commit}, and its submission {pin}: mtf did"
                f" not write that record. See {where}"
            )


def _unreadable(ledger: Ledger) -> Iterator[tuple[tuple[str, str | None], str]]:
    for path, why in beyond_repair(ledger).items():
        found = spec_and_member(path)
        if found is not None:
            name, member = found
            yield (name, member), f"its record {path} {why}"
            if member == SINGLE:
                yield (name, None), f"its record {path} {why}"


def _made_here(
    records: Iterable[RunRecord], branches: Branches | None, repository: Path, *, is_shared: bool
) -> frozenset[SubmissionId]:
    """Return the submissions of this clone whose branch is missing here.

    Another clone of the same remote never had the branch.
    """
    if branches is None:
        return frozenset()
    lacking = {r.submission: r for r in records if f"refs/heads/{r.branch}" not in branches.here}
    return frozenset(
        s for s, r in lacking.items() if not is_shared or _was_submitted_from(repository, r)
    )


def _was_submitted_from(repository: Path, record: RunRecord) -> bool:
    """Return True if a run's configuration names ``repository`` as where it was submitted from."""
    for attempt in record.attempts:
        with suppress(OSError, ValueError, KeyError):
            config = rundir.read_config(job_dir_of(record, attempt), 0)
            return bool(config["mtf"]["repository"] == str(repository))
    return False


def lost_folders(records: Iterable[RunRecord]) -> frozenset[RunId]:
    """Return the runs that have lost their folder, their job's folder or all their checkpoints.

    The folder of each submission is listed once, which is faster than looking for each run.
    """
    listed: dict[str, frozenset[str] | None] = {}
    lost = set()
    for record in records:
        folder = needed_folder(record)
        if folder is None:
            continue
        parent, _, name = folder.rpartition("/")
        if parent not in listed:
            listed[parent] = _names(parent)
        names = listed[parent]
        if names is not None and (name not in names or _has_lost_checkpoints(record)):
            lost.add(record.run)
    return frozenset(lost)


def _names(folder: str) -> frozenset[str] | None:
    """Return the names in a folder, none if it does not exist; None if it is private."""
    try:
        return frozenset(os.listdir(folder))  # noqa: PTH208 -- names alone
    except PermissionError:
        return None
    except OSError:
        return frozenset()


def _has_lost_checkpoints(record: RunRecord) -> bool:
    """Return True if a run that goes on has lost all its checkpoints."""
    if record.is_over or record.retry_at is None or record.checkpoint is None:
        return False
    return not has_checkpoints(record)


def has_checkpoints(record: RunRecord) -> bool:
    """Return True if there is a checkpoint in a run's folder, or it is private."""
    names = _names(f"{record.run_dir}/{rundir.CHECKPOINTS}")
    return names is None or any(name.endswith(".ckpt") and name != rundir.LATEST for name in names)


def _lost_checkouts(records: Iterable[RunRecord]) -> frozenset[RunId]:
    """Return the active runs with a job whose pinned checkout is gone."""
    exists: dict[tuple[str, CommitId], bool] = {}
    lost = set()
    for record in records:
        if record.is_over or record.job_id is None:
            continue
        key = root_path(record), record.commit
        if key not in exists:
            root, commit = Path(key[0]), record.commit
            code, manifest = rundir.code_dir(root, commit), rundir.code_manifest(root, commit)
            try:
                parts = code.is_dir(), manifest.is_file()
                exists[key] = all(parts)
            except PermissionError:  # it is private: only its owner can tell
                exists[key] = True
        if not exists[key]:
            lost.add(record.run)
    return frozenset(lost)
