"""Are the runs' files there: folders, checkpoints, journals; and what killed writers have left."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from mtf import rundir
from mtf.commands.doctor.finding import Checkup, Finding, Theme
from mtf.core.vocabulary.git_tree_ids import GITLINK, SYMLINK, object_id
from mtf.core.vocabulary.ids import Token, job_name, name_of
from mtf.core.vocabulary.times import parse_time
from mtf.reconcile.checkout import alteration
from mtf.reconcile.cleanup import idle_requests
from mtf.reconcile.run_access import abandoned, is_elsewhere, needed_folder
from mtf.report.tables import count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mtf.core.vocabulary.records import Checkpoint, RunRecord


def folders(checkup: Checkup) -> Iterator[Finding]:
    """Find run folders that are gone."""
    for record in _here(checkup):
        folder = needed_folder(record)
        if folder is not None and not folder.is_dir():
            again = "raise generation in its spec"
            if not record.is_over:
                again = f"mtf cancel {record.run}; mtf retry {record.run}"
            yield Finding(
                "error", f"{record.run} is {record.state}, and its folder is gone", str(folder),
                f"put it back from a copy; to run it again: {again}",
            )  # fmt: skip


def checkpoints(checkup: Checkup) -> Iterator[Finding]:
    """Find checkpoints that are not what the ledger says of them."""
    for record in _here(checkup):
        if not record.is_over or not Path(record.run_dir).is_dir():
            continue  # its trainer may replace them now
        for kind, pointer in _pointers(record).items():
            wrong = _wrong(pointer, checksums=checkup.checksums)
            if wrong:
                yield Finding(
                    "error", f"the {kind} checkpoint of {record.run}: {wrong}", pointer.path,
                    "put it back from a copy; an older one may be beside it",
                )  # fmt: skip


def _pointers(record: RunRecord) -> dict[str, Checkpoint]:
    both = {"newest": record.checkpoint, "best": record.best_checkpoint}
    return {kind: pointer for kind, pointer in both.items() if pointer is not None}


def _wrong(pointer: Checkpoint, *, checksums: bool) -> str | None:
    try:
        size = Path(pointer.path).stat().st_size
    except OSError:
        return "it is not there"
    if size != pointer.bytes:
        return f"it has {size} bytes, not {pointer.bytes}"
    if checksums and _sha256(Path(pointer.path)) != pointer.sha256:
        return "its sha256 is another than recorded"
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def checkouts(checkup: Checkup) -> Iterator[Finding]:
    """Find checkouts that were changed: jobs that start from them refuse to."""
    code = checkup.project.runs_root / rundir.CODE
    for commit in sorted({r.commit for r in _here(checkup)}):
        folder = rundir.code_dir(checkup.project.runs_root, commit)
        manifest = rundir.code_manifest(checkup.project.runs_root, commit)
        if not (code.is_dir() and folder.is_dir()):
            continue
        changed = alteration(folder, manifest)
        if changed is None and checkup.checksums:
            changed = _another_content(folder, manifest)
        if changed is not None:
            yield Finding(
                "error", f"the checkout of {commit[:8]} was changed: {changed}", str(folder),
                f"chmod -R u+w {folder} && rm -r {folder}; the next mtf sync makes it again",
            )  # fmt: skip


def _another_content(folder: Path, manifest: Path) -> str | None:
    files = json.loads(manifest.read_bytes())["files"]
    regular = {p: oid for p, (mode, oid) in files.items() if mode not in (GITLINK, SYMLINK)}
    changed = (
        path
        for path, oid in regular.items()
        if object_id("blob", (folder / path).read_bytes(), like=oid) != oid
    )
    return next(changed, None)


def journals(checkup: Checkup) -> Iterator[Finding]:
    """Find lines of journals that cannot be read: each costs itself only."""
    for record in _here(checkup):
        journal = Path(record.run_dir) / rundir.JOURNAL
        if not journal.is_file():
            continue
        torn = [
            n for n, line in enumerate(journal.read_bytes().splitlines(), 1) if not _reads(line)
        ]
        if torn:
            yield Finding(
                "warning",
                f"{count(len(torn), 'torn line')} (a full disk, a dead node): passed over",
                f"{journal}:{torn[0]}", "none needed: what the other lines say is taken in",
            )  # fmt: skip


def _reads(line: bytes) -> bool:
    try:
        json.loads(line or b"0")
    except ValueError:
        return False
    return True


def claims(checkup: Checkup) -> Iterator[Finding]:
    """Find claims that nobody will turn into jobs any more."""
    now = datetime.now(UTC)
    held = [r for r in _here(checkup) if not r.is_over and r.job_id is None and r.retry_at is None]
    gone = abandoned(held)
    for record in held:
        lapsed = parse_time(record.attempt.lease_until) <= now
        if lapsed or record.attempt.token in gone:
            yield Finding(
                "warning", f"claimed by {record.attempt.claimed_by}, never submitted", record.run,
                "mtf sync",
            )  # fmt: skip


def leftovers(checkup: Checkup) -> Iterator[Finding]:
    """Find what killed writers have left: half a checkout, scratch refs."""
    code = checkup.project.runs_root / rundir.CODE
    for half in sorted(code.glob(".*")) if code.is_dir() else ():
        yield Finding(
            "warning", "left by a sync that was killed", str(half),
            f"chmod -R u+w {half} && rm -r {half}, when no mtf sync runs",
        )  # fmt: skip
    for ref in checkup.project.repo.refs("refs/mtf/scratch/"):
        yield Finding("warning", "left by a killed writer", ref, f"git update-ref -d {ref}")


def requests(checkup: Checkup) -> Iterator[Finding]:
    """Find requests that came to nothing, of submissions that are over."""
    for submission, folders in idle_requests(_here(checkup)).items():
        for folder in folders:
            name = job_name(name_of(submission), Token(folder.name))
            yield Finding(
                "warning", f"left by a claim of {submission} that was given up", str(folder),
                f"rm -r {folder}, when there is no job of the name {name}",
            )  # fmt: skip


def _here(checkup: Checkup) -> list[RunRecord]:
    """Return the runs whose folders this host can see."""
    records = checkup.ledger.runs.values()
    return [r for r in records if not is_elsewhere(checkup.project.runs_root, r)]


THEME = Theme("runs", (folders, checkpoints, checkouts, journals, claims, requests, leftovers))
