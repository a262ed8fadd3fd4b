"""Checks of the run root: it is writable, has space, and compute nodes can see it."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from mtf.commands.doctor.finding import Checkup, Finding, Theme

if TYPE_CHECKING:
    from collections.abc import Iterator

_LEAST_BYTES = 2 << 30
_LEAST_FILES = 10_000
# types of file systems that several hosts see
_SHARED = {
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "fuse.ceph",
    "fuse.glusterfs",
    "fuse.sshfs",
    "gfs2",
    "glusterfs",
    "gpfs",
    "lustre",
    "nfs",
    "nfs4",
    "ocfs2",
    "panfs",
    "pvfs2",
    "wekafs",
}
_SET = "make it writable, or set `runs_root:` in mtf.yaml"
_FREE = "delete what is not needed, or set `runs_root:` in mtf.yaml"


def writable(checkup: Checkup) -> Iterator[Finding]:
    """Find a run root that cannot be created or written."""
    root = checkup.project.runs_root
    if not root.exists():
        above = next(p for p in root.parents if p.exists())
        if not os.access(above, os.W_OK):
            what = f"the run root cannot be created in {above}, so nothing can run"
            yield Finding("error", what, str(root), _SET)
        return
    probe = root / f".doctor.{secrets.token_hex(4)}"
    try:
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as e:
        what = f"the run root cannot be written ({e.strerror}), so nothing can run"
        yield Finding("error", what, str(root), _SET)


def space(checkup: Checkup) -> Iterator[Finding]:
    """Find a run root that is nearly out of space or inodes."""
    root = _existing(checkup.project.runs_root)
    free = shutil.disk_usage(root).free
    if free < _LEAST_BYTES:
        yield Finding(
            "warning",
            f"only {free / 2**30:.1f} GiB are free, so checkpoints may not fit",
            str(root),
            _FREE,
        )
    files = os.statvfs(root)
    if files.f_files and files.f_favail < _LEAST_FILES:
        yield Finding(
            "warning",
            f"only {files.f_favail} more files can be created, so runs may fail",
            str(root),
            _FREE,
        )


def shared(checkup: Checkup) -> Iterator[Finding]:
    """Find a run root on a local disk while jobs run on other hosts."""
    if checkup.executor != "slurm":
        return
    root = _existing(checkup.project.runs_root)
    kind = _file_system(root)
    if kind not in _SHARED:
        yield Finding(
            "warning",
            f"the run root is on {kind}, which compute nodes usually cannot see",
            str(root),
            "set `runs_root:` in mtf.yaml to a shared folder, unless jobs run on this host only",
        )


def _existing(path: Path) -> Path:
    return next(p for p in (path, *path.parents) if p.exists())


def _file_system(path: Path) -> str:
    """Return the type of the file system that a path is on. Source: proc(5), /proc/mounts."""
    kind, deepest = "an unknown file system", -1
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        _, mount, name, *_ = line.split(" ")
        place = mount.encode().decode("unicode_escape")
        if path.is_relative_to(place) and len(place) > deepest:
            kind, deepest = name, len(place)
    return kind


THEME = Theme("storage", (writable, space, shared))
