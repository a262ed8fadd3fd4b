"""Is the run root fit: there, writable, with room, and where the compute nodes see it."""

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
_SHARED = {
    "afs", "beegfs", "ceph", "cifs", "fuse.ceph", "fuse.glusterfs", "fuse.sshfs", "gfs2",
    "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "ocfs2", "panfs", "pvfs2", "wekafs",
}  # fmt: skip
_SET = "make it so, or set `runs_root:` in mtf.yaml"


def writable(checkup: Checkup) -> Iterator[Finding]:
    """Find a run root that is not there or not writable."""
    root = checkup.project.runs_root
    if not root.exists():
        above = next(p for p in root.parents if p.exists())
        if not os.access(above, os.W_OK):
            yield Finding("error", f"the run root cannot be made in {above}", str(root), _SET)
        return
    probe = root / f".doctor.{secrets.token_hex(4)}"
    try:
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as e:
        yield Finding("error", f"the run root cannot be written: {e.strerror}", str(root), _SET)


def room(checkup: Checkup) -> Iterator[Finding]:
    """Find a run root that is nearly full, in bytes or in files."""
    root = _existing(checkup.project.runs_root)
    free = shutil.disk_usage(root).free
    if free < _LEAST_BYTES:
        yield Finding(
            "warning", f"only {free / 2**30:.1f} GiB are free: checkpoints may not fit", str(root),
            "remove what is not needed, or set `runs_root:` in mtf.yaml",
        )  # fmt: skip
    files = os.statvfs(root)
    if files.f_files and files.f_favail < _LEAST_FILES:
        yield Finding(
            "warning", f"only {files.f_favail} more files may be made", str(root),
            "remove what is not needed, or set `runs_root:` in mtf.yaml",
        )  # fmt: skip


def shared(checkup: Checkup) -> Iterator[Finding]:
    """Find a run root on this host's own disk while jobs run on other hosts."""
    if checkup.executor != "slurm":
        return
    root = _existing(checkup.project.runs_root)
    kind = _file_system(root)
    if kind not in _SHARED:
        yield Finding(
            "warning", f"the run root is on {kind}, which other hosts do not see as a rule",
            str(root), "set `runs_root:` in mtf.yaml to a shared folder, unless this host is all",
        )  # fmt: skip


def _existing(path: Path) -> Path:
    return next(p for p in (path, *path.parents) if p.exists())


def _file_system(path: Path) -> str:
    """Return the type of the file system a path is on. Source: proc(5), /proc/mounts."""
    kind, deepest = "an unknown file system", -1
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        _, mount, name, *_ = line.split(" ")
        place = mount.encode().decode("unicode_escape")
        if path.is_relative_to(place) and len(place) > deepest:
            kind, deepest = name, len(place)
    return kind


THEME = Theme("storage", (writable, room, shared))
