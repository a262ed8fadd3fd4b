"""The one owner of a run's ``checkpoints/`` folder: whole files, their sums, which one is next.

A checkpoint appears under its name only when all its bytes are on disk and its sha256 stands in
the file beside it (``sha256sum -c`` reads those). What is damaged is never used.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

from mtf import rundir
from mtf.trainer.say import say

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_NAME = re.compile(r"epoch_(\d+)_step_(\d+)(?:-(\d+))?\.ckpt")
_HALF = re.compile(r"\.[^/]*\.half")


@dataclass(frozen=True)
class Saved:
    """A durable checkpoint."""

    path: Path
    epoch: int
    step: int
    sha256: str
    bytes: int


class Writable(Protocol):
    """What a checkpoint is written to."""

    def write(self, data: bytes, /) -> int: ...


class _Summing:
    """Passes bytes on to a file and sums them in passing."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sum = hashlib.sha256()
        self.bytes = 0

    def write(self, data: bytes, /) -> int:
        self.sum.update(data)
        self.bytes += memoryview(data).nbytes
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


class CheckpointStore:
    """Saves, finds and prunes the checkpoints of one run. One process writes: rank 0."""

    def __init__(self, folder: Path, *, keep_last: int) -> None:
        self._folder = folder
        self._keep_last = keep_last

    def save(self, write: Callable[[Writable], None], *, epoch: int, step: int) -> Saved:
        """Make what ``write`` writes the newest checkpoint; return when it is durable.

        Args:
            write: called once with a file to write to, from its beginning to its end.
            epoch: epochs done, for the name.
            step: optimizer steps done, for the name.

        Raises:
            OSError: it could not be written; what was there before is untouched.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        half = self._folder / f".{secrets.token_hex(8)}.half"
        try:
            with half.open("wb") as file:
                summing = _Summing(file)
                write(summing)
                file.flush()
                os.fsync(file.fileno())
            path = self._free_name(epoch, step)
            digest = summing.sum.hexdigest()
            rundir.replace(_sum_of(path), f"{digest}  {path.name}\n".encode())
            half.rename(path)
        finally:
            half.unlink(missing_ok=True)
        self._point_latest_at(path)
        _sync_folder(self._folder)
        self._prune()
        return Saved(path, epoch, step, digest, summing.bytes)

    def newest_intact(self) -> Saved | None:
        """Return the newest checkpoint that holds what was written, None when there is none.

        A damaged one is left where it is, said, and the one before it is taken.
        """
        for path in reversed(self._all()):
            problem, saved = _examine(path)
            if saved is not None:
                return saved
            say(f"checkpoint {path.name} is damaged ({problem}): trying the one before it")
        if self._all():
            say(f"no checkpoint in {self._folder} is intact: the training starts anew")
        return None

    def sweep(self) -> None:
        """Remove what a killed writer left half done."""
        if self._folder.is_dir():
            for path in self._folder.iterdir():
                if _HALF.fullmatch(path.name):
                    path.unlink(missing_ok=True)

    def _all(self) -> list[Path]:
        """Return all checkpoints, oldest first."""
        if not self._folder.is_dir():
            return []
        return sorted(filter(_place, self._folder.iterdir()), key=lambda p: _place(p) or ())

    def _free_name(self, epoch: int, step: int) -> Path:
        stem = f"epoch_{epoch:03d}_step_{step:06d}"
        taken = [_place(path) for path in self._all()]
        count = max(
            (place[2] for place in taken if place and place[:2] == (epoch, step)), default=0
        )
        return self._folder / (f"{stem}-{count + 1}.ckpt" if count else f"{stem}.ckpt")

    def _point_latest_at(self, path: Path) -> None:
        beside = self._folder / f".{secrets.token_hex(8)}.half"
        beside.symlink_to(path.name)
        beside.replace(self._folder / rundir.LATEST)

    def _prune(self) -> None:
        for path in self._all()[: -self._keep_last]:
            path.unlink()
            _sum_of(path).unlink(missing_ok=True)


def _place(path: Path) -> tuple[int, int, int] | None:
    """Return epoch, step and count of a checkpoint's name, None for another file."""
    match = _NAME.fullmatch(path.name)
    return (int(match[1]), int(match[2]), int(match[3] or 1)) if match else None


def _sum_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _examine(path: Path) -> tuple[str, Saved | None]:
    """Return what is wrong with a checkpoint, or the checkpoint."""
    epoch, step, _ = _place(path) or (0, 0, 0)
    try:
        recorded = _sum_of(path).read_text(encoding="ascii").split()
        before = path.stat()
        key = (str(path), before.st_ino, before.st_size, before.st_mtime_ns)
        if key not in _EXAMINED:
            with path.open("rb") as file:
                _EXAMINED[key] = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, UnicodeDecodeError) as e:
        return str(e), None
    digest = _EXAMINED[key]
    if recorded[:1] != [digest]:
        return "its sha256 is not the recorded one", None
    return "", Saved(path, epoch, step, digest, before.st_size)


# A job looks for its checkpoint twice, to say where it resumes and to resume: it is read once.
_EXAMINED: dict[tuple[str, int, int, int], str] = {}


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
