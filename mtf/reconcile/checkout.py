"""Checks out pinned commits: one read-only folder for each commit, with a manifest beside it."""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from mtf import rundir
from mtf.core.vocabulary import json_text
from mtf.core.vocabulary.git_tree_ids import (
    EXECUTABLE,
    GITLINK,
    SYMLINK,
    Manifest,
    manifest_files,
)
from mtf.errors import MtfError
from mtf.git.lfs import LfsStore
from mtf.reconcile.pinned_code.collect import IncompleteCodeError, remarks_on, whole_code

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mtf.core.vocabulary.git_tree_ids import Pointer
    from mtf.core.vocabulary.ids import CommitId
    from mtf.git.repo import GitRepo
    from mtf.reconcile.pinned_code.collect import Part

_WRITE, _READ = 0o222, 0o444
_PIECE = 1 << 20  # bytes
_MADE_AT = 1_000_000_000  # the time of every file: changing a file changes its time


def materialise(
    repo: GitRepo,
    root: Path,
    commit: CommitId,
    remote: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Path:
    """Return the checkout of ``commit``; make it unless it exists and is unchanged.

    The blobs are written byte for byte as they are stored, without filters or line-end conversions,
    so that the content can be proved. Submodules are part of the checkout, and files in Git LFS
    have their content, which their pointer proves. The checkout appears whole or not at all.

    Args:
        repo: has the commit.
        root: the run root.
        commit: to check out.
        remote: of ``repo``, for submodules and contents of Git LFS that the clone lacks.
        say: takes notes on files that jobs get otherwise than a work tree has them.

    Raises:
        RefusedTreeError: the commit's tree must not be checked out.
        IncompleteCodeError: a submodule or a content of Git LFS is missing.
        MtfError: the run root cannot be written.
    """

    def collect() -> Part:
        part = whole_code(repo, commit, remote)
        for remark in remarks_on(part):
            say(f"note     {remark}")
        return part

    target = rundir.code_dir(root, commit)
    manifest = rundir.code_manifest(root, commit)
    try:
        is_there = target.is_dir()
    except PermissionError as e:
        owner = rundir.owner_of(target)
        raise MtfError(
            f"{target.parent} is private to {owner}, so that nobody else can submit runs under"
            f" {root}. Let {owner} run chmod -R g+rwX {target.parent}, or set another `runs_root:`"
            " in mtf.yaml. mtf doctor says what a shared run root needs"
        ) from e
    if not is_there or alteration(target, manifest) is not None:
        try:
            _make(collect, target, manifest)
        except OSError as e:
            if not target.is_dir():  # otherwise another sync was faster and removed our folder
                raise MtfError(
                    f"{e.filename or root}: {e.strerror}. The run root must have space and be"
                    " writable, here and on the compute nodes: see `runs_root:` in mtf.yaml"
                ) from e
    for left in rundir.temporary_files(target):
        _remove(left)
    return target


def is_checked_out(root: Path, commit: CommitId) -> bool:
    """Return True if this user can see a checkout of a commit, changed or not."""
    try:
        return rundir.code_dir(root, commit).is_dir()
    except PermissionError:
        return False


def alteration(folder: Path, manifest: Path) -> str | None:
    """Return a file that was changed since the checkout was made, None if there is none.

    Only names, kinds and times are compared, which is fast; the job proves the content.
    """
    try:
        expected = set(manifest_files(json_text.loads(manifest.read_bytes())))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return manifest.name
    found = dict(_times(folder))
    altered = expected ^ found.keys()
    altered |= {path for path, at in found.items() if at != _MADE_AT}
    return min(altered, default=None)


def _times(folder: Path) -> Iterator[tuple[str, float]]:
    """Yield the files and links of a checkout with their times; compiled files are left out."""
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name != "__pycache__"]
        links = [name for name in folders if Path(parent, name).is_symlink()]
        for name in (*files, *links):
            path = os.path.join(parent, name)  # noqa: PTH118 -- many files
            yield os.path.relpath(path, folder), os.lstat(path).st_mtime


def _make(collect: Callable[[], Part], target: Path, manifest: Path) -> None:
    new, root = rundir.temporary_path(target), target.parents[1]
    rundir.make_shared(target.parent, root)
    new.mkdir()
    try:
        proof = _write(collect(), new)
        is_changed = target.is_dir() and alteration(target, manifest) is not None
        rundir.replace_durably(manifest, json_text.dumps(proof).encode())
        rundir.share(manifest, root)
        _make_read_only(new, root.stat().st_mode & 0o050)
        _put(new, target, over=is_changed)
    except BaseException:
        _remove(new)
        raise


def _put(new: Path, target: Path, *, over: bool) -> None:
    """Put a new checkout in place. ``over``: replace the existing one, which was changed."""
    if not over:
        new.rename(target)
        return
    old = rundir.temporary_path(target)
    target.rename(old)
    try:
        new.rename(target)
    except OSError:  # another sync has just put its own in place and removed ours
        old.rename(target)
        raise


def _write(part: Part, folder: Path) -> Manifest:
    """Write the files of one repository and its submodules; return their manifest."""
    files, commit = part.files, part.commit
    contents = part.repo.blobs([commit, *(e.oid for e in files.values() if e.mode != GITLINK)])
    store = LfsStore(part.repo)
    for parent in sorted({p.rpartition("/")[0] for p in files}):
        (folder / parent).mkdir(parents=True, exist_ok=True)
    for path, entry in files.items():
        place = folder / path
        if entry.mode == GITLINK:
            place.mkdir(exist_ok=True)  # as git does for a submodule that is not checked out
        elif entry.mode == SYMLINK:
            place.symlink_to(os.fsdecode(contents[entry.oid]))
        else:
            with place.open("xb") as new:  # never through a link or over another file
                if path in part.pointers:
                    _copy_content(store, path, part.pointers[path][0], new)
                else:
                    new.write(contents[entry.oid])
            mode = place.stat().st_mode & ~_WRITE
            # as git does: executable for everyone who may read
            place.chmod(mode | (mode & _READ) >> 2 if entry.mode == EXECUTABLE else mode)
        if entry.mode != GITLINK:
            os.utime(place, (_MADE_AT, _MADE_AT), follow_symlinks=False)
    manifest: Manifest = {
        "commit": commit,
        "commit_object": contents[commit].decode("latin-1"),
        "files": {path: (entry.mode, entry.oid) for path, entry in files.items()},
    }
    if part.pointers:
        manifest["pointers"] = {p: raw.decode("latin-1") for p, (_, raw) in part.pointers.items()}
    if part.submodules:
        inner = part.submodules.items()
        manifest["submodules"] = {path: _write(sub, folder / path) for path, sub in inner}
    return manifest


def _copy_content(store: LfsStore, path: str, pointer: Pointer, new: BinaryIO) -> None:
    """Copy the content of a file in Git LFS.

    Raises:
        IncompleteCodeError: it is not the one that is pointed to.
    """
    digest, left = hashlib.sha256(), pointer.size
    if left:
        with store.place(pointer).open("rb") as stored:
            while piece := stored.read(_PIECE):
                digest.update(piece)
                new.write(piece)
                left -= len(piece)
    if left or digest.hexdigest() != pointer.oid:
        place = store.place(pointer)
        raise IncompleteCodeError(
            f"{path}: its content in Git LFS is damaged: {place}. Remove it and run git lfs fetch"
        )


def _make_read_only(folder: Path, group: int) -> None:
    """Make a checkout read-only, for the group too if it has the rights ``group`` on the root."""
    folder.chmod(folder.stat().st_mode | group)
    for place in folder.rglob("*"):
        if place.is_symlink():
            continue
        mode = place.stat().st_mode & ~_WRITE
        if place.is_dir():
            place.chmod(mode | group)
        elif group and mode | 0o040 != mode:
            place.chmod(mode | 0o040 | (mode & 0o100) >> 3)


def _remove(place: Path) -> None:
    """Remove a read-only folder or a file; others may remove it at the same time."""
    if not place.is_dir() or place.is_symlink():
        place.unlink(missing_ok=True)
        return
    with suppress(OSError):  # it is gone, or another user's, who removes it
        _make_writable(place)
    shutil.rmtree(place, ignore_errors=True)  # a sync that still writes into it removes it, too


def _make_writable(folder: Path) -> None:
    folder.chmod(folder.stat().st_mode | 0o200)
    for parent, folders, _ in os.walk(folder):  # folders that are gone by now are skipped
        for inside in (Path(parent, name) for name in folders):
            if not inside.is_symlink():
                with suppress(FileNotFoundError):
                    inside.chmod(inside.stat().st_mode | 0o200)
