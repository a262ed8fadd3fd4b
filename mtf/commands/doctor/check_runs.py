"""Checks of the runs' files (folders, checkpoints, checkouts, journals) and of stale leftovers."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from mtf import rundir
from mtf.commands.doctor.finding import Checkup, Finding, Theme
from mtf.core.vocabulary.git_tree_ids import SYMLINK, manifest_files, object_id, parse_pointer
from mtf.core.vocabulary.ids import Token, job_name, name_of
from mtf.core.vocabulary.times import parse_time
from mtf.reconcile.checkout import alteration
from mtf.reconcile.cleanup import idle_requests
from mtf.reconcile.run_access import abandoned, is_elsewhere, needed_folder, private_folder
from mtf.report.tables import count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mtf.core.vocabulary.records import Checkpoint, RunRecord


def folders(checkup: Checkup) -> Iterator[Finding]:
    """Find run folders that are gone."""
    for record in _here(checkup):
        folder = needed_folder(record)
        if folder is not None and not Path(folder).is_dir():
            rerun = "raise generation in its spec"
            if not record.is_over:
                rerun = f"mtf cancel {record.run}; mtf retry {record.run}"
            yield Finding(
                "error",
                f"{record.run} is {record.state}, but its folder is gone, with its checkpoints",
                folder,
                f"restore the folder from a copy, or run it again: {rerun}",
            )


def checkpoints(checkup: Checkup) -> Iterator[Finding]:
    """Find checkpoints that are missing or differ from what the ledger recorded."""
    for record in _here(checkup):
        if not record.is_over or not Path(record.run_dir).is_dir():
            continue  # its trainer may be replacing them now
        for kind, pointer in _pointers(record).items():
            wrong = _wrong(pointer, checksums=checkup.checksums)
            if wrong:
                yield Finding(
                    "error",
                    f"the {kind} checkpoint of {record.run} {wrong}, so nothing can resume from it",
                    pointer.path,
                    "restore it from a copy, or use an older checkpoint in the same folder",
                )


def _pointers(record: RunRecord) -> dict[str, Checkpoint]:
    both = {"newest": record.checkpoint, "best": record.best_checkpoint}
    return {kind: pointer for kind, pointer in both.items() if pointer is not None}


def _wrong(pointer: Checkpoint, *, checksums: bool) -> str | None:
    try:
        size = Path(pointer.path).stat().st_size
    except OSError:
        return "is missing"
    if size != pointer.bytes:
        return f"has {size} bytes instead of {pointer.bytes}"
    if checksums and _sha256(Path(pointer.path)) != pointer.sha256:
        return "has another sha256 than recorded"
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def checkouts(checkup: Checkup) -> Iterator[Finding]:
    """Find checkouts that were changed, from which jobs refuse to start."""
    code = checkup.project.runs_root / rundir.CODE
    for commit in sorted({r.commit for r in _here(checkup)}):
        folder = rundir.code_dir(checkup.project.runs_root, commit)
        manifest = rundir.code_manifest(checkup.project.runs_root, commit)
        if not (code.is_dir() and folder.is_dir()):
            continue
        changed = alteration(folder, manifest)
        if changed is None and checkup.checksums:
            changed = _changed_content(folder, manifest)
        if changed is not None:
            yield Finding(
                "error",
                f"the checkout of {commit[:8]} was changed, so jobs refuse to start: {changed}",
                str(folder),
                f"chmod -R u+w {folder} && rm -r {folder}; the next mtf sync creates it anew",
            )


def _changed_content(folder: Path, manifest: Path) -> str | None:
    for path, (mode, oid, raw) in manifest_files(json.loads(manifest.read_bytes())).items():
        pointer = parse_pointer(raw) if raw else None
        if pointer is not None:
            same = _sha256(folder / path) == pointer.oid
        else:
            same = mode == SYMLINK or _blob_id(folder / path, oid) == oid
        if not same:
            return path
    return None


def _blob_id(path: Path, like: str) -> str:
    return object_id("blob", path.read_bytes(), like=like)


def journals(checkup: Checkup) -> Iterator[Finding]:
    """Find journal lines that cannot be read."""
    for record in _here(checkup):
        journal = Path(record.run_dir) / rundir.JOURNAL
        if not journal.is_file():
            continue
        torn = [
            n for n, line in enumerate(journal.read_bytes().splitlines(), 1) if not _is_json(line)
        ]
        if torn:
            yield Finding(
                "warning",
                f"{count(len(torn), 'torn line')} in a journal (a full disk or a dead node)",
                f"{journal}:{torn[0]}",
                "nothing to do: torn lines are ignored, all others are read",
            )


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line or b"0")
    except ValueError:
        return False
    return True


def claims(checkup: Checkup) -> Iterator[Finding]:
    """Find claims whose sync ended before it submitted their jobs."""
    now = datetime.now(UTC)
    claimed = [
        r for r in _here(checkup) if not r.is_over and r.job_id is None and r.retry_at is None
    ]
    gone = abandoned(claimed)
    for record in claimed:
        lapsed = parse_time(record.attempt.lease_until) <= now
        if lapsed or record.attempt.token in gone:
            yield Finding(
                "warning",
                f"claimed by {record.attempt.claimed_by} but never submitted",
                record.run,
                "mtf sync (submits it)",
            )


def leftovers(checkup: Checkup) -> Iterator[Finding]:
    """Find unfinished checkouts and scratch refs of syncs that were killed."""
    code = checkup.project.runs_root / rundir.CODE
    for unfinished in sorted(code.glob(".*")) if code.is_dir() else ():
        yield Finding(
            "warning",
            "an unfinished checkout of a sync that was killed; it takes space",
            str(unfinished),
            f"chmod -R u+w {unfinished} && rm -r {unfinished}, while no mtf sync runs",
        )
    for ref in checkup.project.repo.refs("refs/mtf/scratch/"):
        what = "a scratch ref of a sync that was killed; it keeps unused objects"
        yield Finding("warning", what, ref, f"git update-ref -d {ref}")


def requests(checkup: Checkup) -> Iterator[Finding]:
    """Find job requests of abandoned claims, in submissions that are over."""
    for submission, folders in idle_requests(_here(checkup)).items():
        for folder in folders:
            name = job_name(name_of(submission), Token(folder.name))
            yield Finding(
                "warning",
                f"a job request of {submission} whose claim was given up; it takes space",
                str(folder),
                f"rm -r {folder}, if no job is named {name}",
            )


def _here(checkup: Checkup) -> list[RunRecord]:
    """Return the runs whose folders are on this host."""
    records = checkup.ledger.runs.values()
    root = checkup.project.runs_root
    return [r for r in records if not is_elsewhere(root, r) and private_folder(r) is None]


THEME = Theme("runs", (folders, checkpoints, checkouts, journals, claims, requests, leftovers))
