"""Materialises the pinned code: one read-only checkout a commit, with its proof beside it."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from typing import TYPE_CHECKING

from mtf import rundir
from mtf.core.proof import EXECUTABLE, GITLINK, SYMLINK, Manifest
from mtf.errors import MtfError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mtf.core.ids import CommitId
    from mtf.gitrepo import GitRepo
    from mtf.gitwire import Entry

_WRITE, _READ = 0o222, 0o444


def materialise(repo: GitRepo, root: Path, commit: CommitId) -> Path:
    """Return the checkout of ``commit``, made now unless it is there.

    The blobs are written as they are stored, byte for byte, without filters or line-end
    conversions: that is what makes the content provable. It appears whole or not at all.

    Raises:
        MtfError: the run root cannot be written.
    """
    target = rundir.code_dir(root, commit)
    manifest = rundir.code_manifest(root, commit)
    if target.is_dir() and manifest.is_file():
        return target
    beside = target.with_name(f".{commit}.{secrets.token_hex(4)}")
    try:
        beside.mkdir(parents=True)
        files = repo.files(commit)
        contents = repo.blobs([commit, *(e.oid for e in files.values() if e.mode != GITLINK)])
        _write_files(files, contents, beside)
        proof = _manifest(commit, contents[commit], files)
        rundir.replace(manifest, json.dumps(proof).encode())
        _make_read_only(beside)
        _put(beside, target)
    except OSError as e:
        raise MtfError(
            f"{e.filename or root}: {e.strerror}. The run root must be writable here and on the"
            " compute nodes: set `runs_root:` in mtf.yaml"
        ) from e
    finally:
        if beside.exists():
            _remove(beside)
    return target


def _put(beside: Path, target: Path) -> None:
    try:
        beside.rename(target)
    except OSError:
        if not target.is_dir():  # else another sync was faster with the same content
            raise


def _write_files(files: Mapping[str, Entry], contents: Mapping[str, bytes], folder: Path) -> None:
    for parent in sorted({p.rpartition("/")[0] for p in files}):
        (folder / parent).mkdir(parents=True, exist_ok=True)
    for path, entry in files.items():
        place = folder / path
        if entry.mode == GITLINK:
            place.mkdir(exist_ok=True)  # as git does where the submodule is not checked out
        elif entry.mode == SYMLINK:
            place.symlink_to(os.fsdecode(contents[entry.oid]))
        else:
            place.write_bytes(contents[entry.oid])
            mode = place.stat().st_mode & ~_WRITE
            # as git does: executable for whoever may read
            place.chmod(mode | (mode & _READ) >> 2 if entry.mode == EXECUTABLE else mode)


def _manifest(commit: CommitId, raw: bytes, files: Mapping[str, Entry]) -> Manifest:
    entries = {path: (entry.mode, entry.oid) for path, entry in files.items()}
    return {"commit": commit, "commit_object": raw.decode("latin-1"), "files": entries}


def _make_read_only(folder: Path) -> None:
    for place in folder.rglob("*"):
        if place.is_dir() and not place.is_symlink():
            place.chmod(place.stat().st_mode & ~_WRITE)


def _remove(folder: Path) -> None:
    for place in [folder, *folder.rglob("*")]:
        if place.is_dir() and not place.is_symlink():
            place.chmod(place.stat().st_mode | 0o200)
    shutil.rmtree(folder)
