"""A run's ``checkpoints/`` folder: write durable checkpoints, find the newest intact one, prune.

A checkpoint gets its name only when all its bytes are on disk and its sha256 is in the file beside
it, which ``sha256sum -c`` can read. A damaged checkpoint is never used.
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
from mtf.errors import MtfError
from mtf.trainer.runtime import start_claim
from mtf.trainer.runtime.console import say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

_NAME = re.compile(r"epoch_(\d+)_step_(\d+)(?:-(\d+))?\.ckpt")
_TEMPORARY = re.compile(r"\.[^/]*\.half")
_SUM = ".sha256"
_DAMAGED = ".damaged"

# Bytes that are hashed and written at once. Before each chunk, the training thread may hold the
# interpreter for 5 ms: small chunks would make the write take several times as long.
_CHUNK = 8 << 20
# Bytes after which the file is synced. If all were left to the end, that fsync, and every small
# fsync of the journal at the same time, would wait for the whole file.
_SYNC_EVERY = 128 << 20

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
    """A file that a checkpoint is written to."""

    def write(self, data: bytes, /) -> int:
        """Write the bytes and return their number."""


class GivenUpError(Exception):
    """A write was given up on request; it leaves no file."""


class WriteProgress:
    """A write as seen from another thread: its bytes so far, and a request to give it up."""

    __slots__ = ("bytes", "give_up")

    def __init__(self) -> None:
        self.bytes = 0
        self.give_up = False


class _HashingFile:
    """Writes to a file and hashes what it writes.

    Attributes:
        digest: the sha256 of all bytes so far.
        error: the first error of the file. ``torch.save`` raises an error of its own instead,
            which says less.
    """

    def __init__(self, file: BinaryIO, progress: WriteProgress) -> None:
        self._file, self._progress = file, progress
        self._synced = 0
        self.digest = hashlib.sha256()
        self.error: BaseException | None = None

    def write(self, data: bytes, /) -> int:
        view = memoryview(data).cast("B")
        try:
            for start in range(0, view.nbytes, _CHUNK):
                self._write_chunk(view[start : start + _CHUNK])
        except BaseException as e:
            self.error = self.error or e
            raise
        return view.nbytes

    def flush(self) -> None:
        self._file.flush()

    def _write_chunk(self, chunk: memoryview) -> None:
        if self._progress.give_up:
            raise GivenUpError
        self.digest.update(chunk)
        while chunk:  # an unbuffered file may take less than all
            chunk = chunk[self._file.write(chunk) :]
        self._progress.bytes = self._file.tell()
        if self._progress.bytes - self._synced >= _SYNC_EVERY:
            os.fdatasync(self._file.fileno())
            self._synced = self._progress.bytes


class CheckpointStore:
    """Saves, finds and prunes the checkpoints of one run. Only the first rank writes.

    Args:
        folder: may not exist yet.
        keep_last: number of newest checkpoints that are kept.
    """

    def __init__(self, folder: Path, *, keep_last: int) -> None:
        self.folder = folder
        self._keep_last = keep_last
        self._damaged: list[tuple[Path, str]] = []  # found by ``newest_intact``, and the reasons

    def save(
        self,
        write: Callable[[Writable], None],
        *,
        epoch: int,
        step: int,
        best: Sequence[Place] = (),
        progress: WriteProgress | None = None,
        check: Callable[[Path], None] | None = None,
    ) -> Saved:
        """Write the newest checkpoint and return when it is durable.

        Args:
            write: called once with a file, writes the content to it from beginning to end.
            epoch: epochs done, for the name.
            step: optimizer steps done, for the name.
            best: places of the checkpoints that are kept at any age, the best first.
            progress: shared with another thread, which may give the write up.
            check: called with the whole file before it counts; what it raises ends the write.

        Raises:
            OSError: it could not be written; earlier checkpoints are untouched.
            GivenUpError: the write was given up; earlier checkpoints are untouched.
            ShutOutError: another start of the run has taken over; its checkpoints are untouched.
        """
        start_claim.require()  # from here on, a start that takes over removes the unfinished file
        # without its parents: if the disk is gone, its empty mount point must not be written to
        self.folder.mkdir(exist_ok=True)
        unfinished = self._temporary_path()
        try:
            size, digest = _write(unfinished, write, progress or WriteProgress())
            if check is not None:
                check(unfinished)
            start_claim.require()
            path = self._unused_path(epoch, step)
            self._publish(unfinished, path, digest)
        finally:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
        start_claim.require()
        self._link(rundir.LATEST, path)
        self._link_best(best)
        _fsync_folder(self.folder)
        start_claim.require()
        self._prune(best)
        return Saved(path, epoch, step, digest, size)

    def trial_s(self, size: int, progress: WriteProgress) -> float:
        """Return the time in seconds that it takes to make ``size`` bytes durable in the folder.

        Raises:
            OSError: they could not be written.
            GivenUpError: the write was given up.
        """
        self.folder.mkdir(exist_ok=True)
        unfinished, block = self._temporary_path(), os.urandom(_CHUNK)

        def write(file: Writable) -> None:
            for _ in range(-(-size // _CHUNK)):
                file.write(block)

        start = time.monotonic()
        try:
            _write(unfinished, write, progress)
        finally:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
        return time.monotonic() - start

    def newest_intact(self) -> Saved | None:
        """Return the newest checkpoint whose sha256 is right, None where there is none.

        Damaged ones are skipped, and stay where they are until ``set_damaged_aside``.
        """
        self._damaged = []
        for path in reversed(self._all()):
            problem, saved = _examine(path)
            if saved is not None:
                return saved
            self._damaged.append((path, problem))
        return None

    def intact(self, name: str) -> Saved:
        """Return the checkpoint of a name, or the one that a link of that name points at.

        Raises:
            MtfError: it does not exist, or is damaged.
        """
        path = self.folder / name
        problem, saved = _examine(path.resolve() if path.is_symlink() else path)
        if saved is None:
            raise MtfError(f"{path}: not an intact checkpoint: {problem}")
        return saved

    def names(self) -> list[str]:
        """Return the names of all checkpoints, the oldest first, damaged ones among them."""
        return [path.name for path in self._all()]

    def set_damaged_aside(self) -> None:
        """Report the damaged checkpoints that ``newest_intact`` skipped, and rename them.

        They are ahead of the training: as the newest by name, they would be kept in place of intact
        ones.
        """
        is_all = len(self._damaged) == len(self._all())
        for path, problem in self._damaged:
            say(f"checkpoint {path.name} is damaged ({problem}): using the one before it")
            with suppress(OSError):  # gone, or on a disk that cannot be written either
                path.rename(path.with_name(path.name + _DAMAGED))
                _sum_path(path).unlink(missing_ok=True)
        if self._damaged and is_all:
            say(f"no checkpoint in {self.folder} is intact: training starts from the beginning")
        self._damaged = []

    def sweep(self) -> None:
        """Remove the temporary files of a writer that was killed."""
        if not self.folder.is_dir():
            return
        for path in self.folder.iterdir():
            if _TEMPORARY.fullmatch(path.name) or _is_orphan(path):
                path.unlink(missing_ok=True)

    def _all(self) -> list[Path]:
        """Return all checkpoints, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(filter(_place, self.folder.iterdir()), key=lambda p: _place(p) or ())

    def _temporary_path(self) -> Path:
        return self.folder / f".{secrets.token_hex(8)}.half"

    def _unused_path(self, epoch: int, step: int) -> Path:
        stem = f"epoch_{epoch:03d}_step_{step:06d}"
        taken = [_place(path) for path in self._all()]
        count = max(
            (place[2] for place in taken if place and place[:2] == (epoch, step)), default=0
        )
        return self.folder / (f"{stem}-{count + 1}.ckpt" if count else f"{stem}.ckpt")

    def _publish(self, unfinished: Path, path: Path, digest: str) -> None:
        """Give a written file its name, after that of its sha256 file."""
        temporary = self._temporary_path()
        try:
            rundir.write_durably(temporary, f"{digest}  {path.name}\n".encode())
            temporary.rename(_sum_path(path))
            unfinished.rename(path)
        except OSError:
            for left in (temporary, _sum_path(path)):
                with suppress(OSError):
                    left.unlink(missing_ok=True)
            raise

    def _link(self, name: str, path: Path) -> None:
        temporary = self._temporary_path()
        temporary.symlink_to(path.name)
        temporary.replace(self.folder / name)

    def _link_best(self, best: Sequence[Place]) -> None:
        paths = self._first_paths(best)
        if paths and not _points_at(self.folder / rundir.BEST, paths[0]):
            self._link(rundir.BEST, paths[0])

    def _first_paths(self, places: Iterable[Place]) -> list[Path]:
        """Return the first checkpoint of each place that has one."""
        by_place: dict[Place, Path] = {}
        for path in self._all():
            epoch, step, _ = _place(path) or (0, 0, 0)
            by_place.setdefault((epoch, step), path)
        return [by_place[place] for place in places if place in by_place]

    def _prune(self, best: Sequence[Place]) -> None:
        checkpoints = self._all()
        kept = {*checkpoints[-self._keep_last :], *self._first_paths(best)}
        try:
            for path in checkpoints:
                if path not in kept:
                    path.unlink()
                    _sum_path(path).unlink(missing_ok=True)
        except OSError as e:  # the new one is durable all the same
            say(f"could not remove an old checkpoint: {e}")


def _write(
    unfinished: Path, write: Callable[[Writable], None], progress: WriteProgress
) -> tuple[int, str]:
    """Write a file durably; return its size in bytes and its sha256."""
    with unfinished.open("wb", buffering=0) as file:
        hashing = _HashingFile(file, progress)
        try:
            write(hashing)
        except Exception:
            if hashing.error is not None:
                raise hashing.error from None
            raise
        os.fsync(file.fileno())
        return file.tell(), hashing.digest.hexdigest()


def _place(path: Path) -> tuple[int, int, int] | None:
    """Return epoch, step and count from a checkpoint's name, None for any other file."""
    match = _NAME.fullmatch(path.name)
    return (int(match[1]), int(match[2]), int(match[3] or 1)) if match else None


def _sum_path(path: Path) -> Path:
    return path.with_name(f"{path.name}{_SUM}")


def _is_orphan(path: Path) -> bool:
    """Return True for the sha256 file of a checkpoint that does not exist."""
    return path.name.endswith(f".ckpt{_SUM}") and not path.with_suffix("").exists()


def _points_at(link: Path, path: Path) -> bool:
    return link.is_symlink() and str(link.readlink()) == path.name


def _examine(path: Path) -> tuple[str, Saved | None]:
    """Return an empty text and the checkpoint, or the reason for which it is damaged and None."""
    epoch, step, _ = _place(path) or (0, 0, 0)
    try:
        recorded = _sum_path(path).read_text(encoding="ascii").split()
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


# A job looks for its checkpoint twice, to journal it and to resume; it is hashed once.
_EXAMINED: dict[tuple[str, int, int, int], str] = {}


def _fsync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
