"""The one owner of a run's ``checkpoints/`` folder: whole files, their sums, which one is next.

A checkpoint appears under its name only when all its bytes are on disk and its sha256 stands in
the file beside it (``sha256sum -c`` reads those). What is damaged is never used.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

from mtf import rundir
from mtf.trainer.runtime.console import say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

_NAME = re.compile(r"epoch_(\d+)_step_(\d+)(?:-(\d+))?\.ckpt")
_HALF = re.compile(r"\.[^/]*\.half")
_SUM = ".sha256"
_DAMAGED = ".damaged"

# The size of what is summed and written at a time. Before each, the training thread may hold the
# interpreter for 5 ms: small pieces would make the write take several times as long.
_CHUNK = 8 << 20
# Dirty pages are sent to the disk from early on. Left to the end, they would make that one fsync,
# and every small fsync of the journal beside it, wait for the whole file.
_SYNCED_AT_ONCE = 128 << 20

Place = tuple[int, int]  # epochs and steps done


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

    def write(self, data: bytes, /) -> int:
        """Write the bytes and return their number."""


class GivenUpError(Exception):
    """A write was given up on request; nothing of it is left."""


class WriteProgress:
    """A write as another thread sees it: how far it is, and the wish to give it up."""

    __slots__ = ("bytes", "give_up")

    def __init__(self) -> None:
        self.bytes = 0
        self.give_up = False


class _Summing:
    """Passes bytes on to a file and sums them in passing.

    Attributes:
        error: what has ended the writing. ``torch.save`` answers an error of its file with one of
            its own, which says less.
    """

    def __init__(self, file: BinaryIO, under_way: WriteProgress) -> None:
        self._file, self._under_way = file, under_way
        self._synced = 0
        self.sum = hashlib.sha256()
        self.error: BaseException | None = None

    def write(self, data: bytes, /) -> int:
        view = memoryview(data).cast("B")
        try:
            for start in range(0, view.nbytes, _CHUNK):
                self._pass_on(view[start : start + _CHUNK])
        except BaseException as e:
            self.error = self.error or e
            raise
        return view.nbytes

    def flush(self) -> None:
        self._file.flush()

    def _pass_on(self, chunk: memoryview) -> None:
        if self._under_way.give_up:
            raise GivenUpError
        self.sum.update(chunk)
        while chunk:  # an unbuffered file may take less than all
            chunk = chunk[self._file.write(chunk) :]
        self._under_way.bytes = self._file.tell()
        if self._under_way.bytes - self._synced >= _SYNCED_AT_ONCE:
            os.fdatasync(self._file.fileno())
            self._synced = self._under_way.bytes


class CheckpointStore:
    """Saves, finds and prunes the checkpoints of one run. One process writes: rank 0."""

    def __init__(self, folder: Path, *, keep_last: int) -> None:
        self.folder = folder
        self._keep_last = keep_last
        self._passed_over: list[tuple[Path, str]] = []  # and what is wrong with each

    def save(
        self,
        write: Callable[[Writable], None],
        *,
        epoch: int,
        step: int,
        best: Sequence[Place] = (),
        under_way: WriteProgress | None = None,
    ) -> Saved:
        """Make what ``write`` writes the newest checkpoint; return when it is durable.

        Args:
            write: called once with a file to write to, from its beginning to its end.
            epoch: epochs done, for the name.
            step: optimizer steps done, for the name.
            best: places of the checkpoints that are kept however old, the best one first.
            under_way: tells another thread how far it is, and whether to give up.

        Raises:
            OSError: it could not be written; what was there before is untouched.
            GivenUpError: ``under_way`` asked for it; likewise.
        """
        # not its parents: a vanished disk's mount point is no place for a checkpoint
        self.folder.mkdir(exist_ok=True)
        half = self._half_name()
        try:
            size, digest = _write(half, write, under_way or WriteProgress())
            path = self._free_name(epoch, step)
            self._name(half, path, digest)
        finally:
            with suppress(OSError):
                half.unlink(missing_ok=True)
        self._point(rundir.LATEST, path)
        self._point_at_best(best)
        _sync_folder(self.folder)
        self._prune(best)
        return Saved(path, epoch, step, digest, size)

    def trial_s(self, size: int, under_way: WriteProgress) -> float:
        """Return the time in seconds in which so many bytes become durable here.

        Raises:
            OSError: they do not.
            GivenUpError: ``under_way`` asked for it.
        """
        self.folder.mkdir(exist_ok=True)
        half, block = self._half_name(), os.urandom(_CHUNK)

        def write(file: Writable) -> None:
            for _ in range(-(-size // _CHUNK)):
                file.write(block)

        start = time.monotonic()
        try:
            _write(half, write, under_way)
        finally:
            with suppress(OSError):
                half.unlink(missing_ok=True)
        return time.monotonic() - start

    def newest_intact(self) -> Saved | None:
        """Return the newest checkpoint that holds what was written, None when there is none.

        A damaged one is left where it is, and the one before it is taken.
        """
        self._passed_over = []
        for path in reversed(self._all()):
            problem, saved = _examine(path)
            if saved is not None:
                return saved
            self._passed_over.append((path, problem))
        return None

    def set_damaged_aside(self) -> None:
        """Say what ``newest_intact`` has passed over, and take it out of the row.

        It stays, under another name. It is ahead of where the training now is: as the newest by its
        name it would make whole ones be pruned in its stead.
        """
        is_all = len(self._passed_over) == len(self._all())
        for path, problem in self._passed_over:
            say(f"checkpoint {path.name} is damaged ({problem}): trying the one before it")
            with suppress(OSError):  # gone, or on a disk that cannot be written either
                path.rename(path.with_name(path.name + _DAMAGED))
                _sum_of(path).unlink(missing_ok=True)
        if self._passed_over and is_all:
            say(f"no checkpoint in {self.folder} is intact: the training starts anew")
        self._passed_over = []

    def sweep(self) -> None:
        """Remove what a killed writer left half done."""
        if not self.folder.is_dir():
            return
        for path in self.folder.iterdir():
            if _HALF.fullmatch(path.name) or _is_orphan(path):
                path.unlink(missing_ok=True)

    def _all(self) -> list[Path]:
        """Return all checkpoints, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(filter(_place, self.folder.iterdir()), key=lambda p: _place(p) or ())

    def _half_name(self) -> Path:
        return self.folder / f".{secrets.token_hex(8)}.half"

    def _free_name(self, epoch: int, step: int) -> Path:
        stem = f"epoch_{epoch:03d}_step_{step:06d}"
        taken = [_place(path) for path in self._all()]
        count = max(
            (place[2] for place in taken if place and place[:2] == (epoch, step)), default=0
        )
        return self.folder / (f"{stem}-{count + 1}.ckpt" if count else f"{stem}.ckpt")

    def _name(self, half: Path, path: Path, digest: str) -> None:
        """Give a written file its name, its sum first."""
        beside = self._half_name()
        try:
            rundir.write_durably(beside, f"{digest}  {path.name}\n".encode())
            beside.rename(_sum_of(path))
            half.rename(path)
        except OSError:
            for left in (beside, _sum_of(path)):
                with suppress(OSError):
                    left.unlink(missing_ok=True)
            raise

    def _point(self, name: str, path: Path) -> None:
        beside = self._half_name()
        beside.symlink_to(path.name)
        beside.replace(self.folder / name)

    def _point_at_best(self, best: Sequence[Place]) -> None:
        there = self._first_of(best)
        if there and not _points_at(self.folder / rundir.BEST, there[0]):
            self._point(rundir.BEST, there[0])

    def _first_of(self, places: Iterable[Place]) -> list[Path]:
        """Return the first checkpoint of each place, where there is one."""
        by_place: dict[Place, Path] = {}
        for path in self._all():
            epoch, step, _ = _place(path) or (0, 0, 0)
            by_place.setdefault((epoch, step), path)
        return [by_place[place] for place in places if place in by_place]

    def _prune(self, best: Sequence[Place]) -> None:
        there = self._all()
        kept = {*there[-self._keep_last :], *self._first_of(best)}
        try:
            for path in there:
                if path not in kept:
                    path.unlink()
                    _sum_of(path).unlink(missing_ok=True)
        except OSError as e:  # the new one is durable all the same
            say(f"an old checkpoint cannot be removed: {e}")


def _write(
    half: Path, write: Callable[[Writable], None], under_way: WriteProgress
) -> tuple[int, str]:
    """Write a file durably; return its size in bytes and its sha256."""
    with half.open("wb", buffering=0) as file:
        summing = _Summing(file, under_way)
        try:
            write(summing)
        except Exception:
            if summing.error is not None:
                raise summing.error from None
            raise
        os.fsync(file.fileno())
        return file.tell(), summing.sum.hexdigest()


def _place(path: Path) -> tuple[int, int, int] | None:
    """Return epoch, step and count of a checkpoint's name, None for another file."""
    match = _NAME.fullmatch(path.name)
    return (int(match[1]), int(match[2]), int(match[3] or 1)) if match else None


def _sum_of(path: Path) -> Path:
    return path.with_name(f"{path.name}{_SUM}")


def _is_orphan(path: Path) -> bool:
    """Return whether this is the sum of a checkpoint that is not there."""
    return path.name.endswith(f".ckpt{_SUM}") and not path.with_suffix("").exists()


def _points_at(link: Path, path: Path) -> bool:
    return link.is_symlink() and str(link.readlink()) == path.name


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
