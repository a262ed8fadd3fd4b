"""The claim of one start of a job on its run folder, so that only one start at a time writes there.

A job may be started several times: SLURM requeues it, and a node that SLURM has given up may still
run the start before. A person may start its command by hand. So each start takes a number. The file
``.claims/start-<number>`` names the attempt, its restarts and the process, or that of one rank;
``start-<number>-<rank>`` has that of each other rank.

Whoever takes over removes the file of the start before, and the process that held it looks for its
file whenever it is about to write (``require``). What it writes in the very moment of a takeover
ends up in a file that is no longer the run's: the journal and the scalars are put into new files.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from mtf import rundir
from mtf.core.vocabulary import json_text
from mtf.errors import MtfError
from mtf.trainer.runtime.process_identity import ProcessIdentity

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

_NAME = re.compile(r"\.?start-([0-9]{1,9})\b.*")
_CLAIM = re.compile(r"start-([0-9]{1,9})")
_GONE = (errno.ENOENT, errno.ESTALE)


class ShutOutError(MtfError):
    """Another start of the run has the run folder: this process must not write there."""


@dataclass(frozen=True)
class Start:
    """One start of a job, with all of its ranks.

    Attributes:
        token: of the attempt.
        job_id: of the job that has claimed the attempt.
        restarts: how often the executor has started the job again.
        world_size: number of ranks.
        superseded: tokens of the run's earlier attempts, which never start again.
    """

    token: str
    job_id: str
    restarts: int
    world_size: int
    superseded: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return it as ``job 12 (restart 1)``."""
        return f"job {self.job_id}" + (f" (restart {self.restarts})" if self.restarts else "")


@dataclass(frozen=True)
class _Claim:
    """A claim of a run folder: a start, and the rank and the process that have made it."""

    start: Start
    rank: int
    process: ProcessIdentity

    @classmethod
    def read(cls, path: Path) -> _Claim | None:
        """Return the claim in a file, None if the file does not exist.

        Raises:
            MtfError: the file has another content.
        """
        try:
            found = json_text.loads(path.read_bytes())
            start = Start(**found["start"])
            start = replace(start, superseded=tuple(start.superseded))
            return cls(start, found["rank"], ProcessIdentity(**found["process"]))
        except (ValueError, TypeError, KeyError) as e:
            raise MtfError(
                f"{path}: not a claim of mtf. If no job of this run is running, remove it"
            ) from e
        except OSError as e:
            if e.errno in _GONE:
                return None
            raise

    def make(self, path: Path) -> bool:
        """Write the claim to a file that does not exist; return False if another was faster."""
        new, data = rundir.temporary_path(path), json_text.dumps(asdict(self)).encode()
        rundir.write_durably(new, data)
        try:
            os.link(new, path)
        except (FileExistsError, FileNotFoundError):  # the second: the temporary file was removed
            with suppress(OSError):
                return path.read_bytes() == data  # on NFS, the first answer may have been lost
            return False
        finally:
            new.unlink(missing_ok=True)
        return True


class StartClaim:
    """The claim of this process on a run folder."""

    def __init__(self, run_dir: Path, number: int) -> None:
        self._folder, self._number = run_dir / rundir.CLAIMS, number

    def require(self) -> None:
        """Check that no other start has taken over.

        Raises:
            ShutOutError: one has.
            OSError: the folder cannot be read.
        """
        try:
            # an open asks the server on NFS, too, where names may be remembered for a minute
            os.close(os.open(_path(self._folder, self._number), os.O_RDONLY))
        except OSError as e:
            if e.errno not in _GONE:
                raise
            if not self._folder.is_dir():  # the run folder is gone: the write itself says so
                return
            _, newest = _newest(self._folder)
            who = f"{newest.start} on {newest.process.host}" if newest else "another start"
            raise ShutOutError(
                f"{who} has taken over this run: this process ends and writes nothing more"
            ) from e

    def release(self) -> None:
        """Give the claim up: this process writes nothing more to the run folder."""
        _path(self._folder, self._number).unlink(missing_ok=True)
        if self in _own:
            _own.remove(self)


def holder(run_dir: Path) -> ProcessIdentity | None:
    """Return the process that has claimed a run folder, None if there is none, or it has ended.

    Raises:
        MtfError: a claim cannot be read.
    """
    folder = run_dir / rundir.CLAIMS
    if not folder.is_dir():
        return None
    _, newest = _newest(folder)
    return None if newest is None or newest.process.is_dead() else newest.process


def take(run_dir: Path, start: Start, rank: int, appended: Collection[str] = ()) -> StartClaim:
    """Claim a run folder for a start of the job that has claimed the attempt.

    A later start of the same job takes over, and so does a later attempt. Another process of the
    same start and rank does not, unless the one before has certainly ended.

    Args:
        run_dir: the run folder.
        start: the start.
        rank: of this process.
        appended: files of the run that a process which was shut out might still have open.

    Raises:
        ShutOutError: another process has the folder; the message names it.
        MtfError: a claim cannot be read.
        OSError: the folder cannot be written.
    """
    folder = run_dir / rundir.CLAIMS
    folder.mkdir(exist_ok=True)
    while True:
        number, newest = _newest(folder)
        joins = newest is not None and _joins(folder, number, newest, start, rank)
        if newest is not None and not joins:
            start = replace(start, superseded=_superseded(newest.start, start))
        path = _path(folder, number, rank) if joins else _path(folder, number + 1)
        if not _Claim(start, rank, ProcessIdentity.of_this_process()).make(path):
            continue
        if joins:
            return StartClaim(run_dir, number)
        _remove_before(folder, number + 1)
        if newest is not None and (newest.start.world_size > 1 or not newest.process.is_dead()):
            _renew(run_dir, appended)
        return StartClaim(run_dir, number + 1)


def _joins(folder: Path, number: int, newest: _Claim, start: Start, rank: int) -> bool:
    """Return True if a rank belongs to the newest start, False if its start takes over.

    Raises:
        ShutOutError: neither.
    """
    held = newest.start
    if start.token != held.token:
        if start.token in held.superseded:
            raise ShutOutError(
                f"{held} continues this run in a later attempt: {start} exits without training"
            )
        return False
    if start.restarts != held.restarts:
        if start.restarts < held.restarts:
            raise ShutOutError(f"{held} has started since: restart {start.restarts} of it exits")
        return False
    other = newest if rank == newest.rank else _Claim.read(_path(folder, number, rank))
    if other is None and start.world_size == held.world_size:
        return True
    process = (other or newest).process
    if process.is_dead():
        return False
    raise ShutOutError(
        f"{process} executes {held} already: {ProcessIdentity.of_this_process()} exits without"
        " training"
    )


def _superseded(before: Start, start: Start) -> tuple[str, ...]:
    ended = (before.token,) if before.token != start.token else ()
    return (*before.superseded, *ended)


def _path(folder: Path, number: int, rank: int | None = None) -> Path:
    return folder / (f"start-{number}" if rank is None else f"start-{number}-{rank}")


def _newest(folder: Path) -> tuple[int, _Claim | None]:
    """Return the number and the claim of the newest start, 0 and None where there is none."""
    while True:
        found = (_CLAIM.fullmatch(path.name) for path in folder.iterdir())
        number = max((int(match[1]) for match in found if match), default=0)
        if not number:
            return 0, None
        if (claim := _Claim.read(_path(folder, number))) is not None:
            return number, claim
        # taken over meanwhile; a folder on NFS may be listed as it was


def _remove_before(folder: Path, number: int) -> None:
    """Remove the claims of earlier starts, and what killed processes left of making them."""
    for path in folder.iterdir():
        match = _NAME.fullmatch(path.name)
        if match and int(match[1]) < number:
            path.unlink(missing_ok=True)


def _renew(run_dir: Path, names: Collection[str]) -> None:
    """Put copies in place of files, so that whoever has the old ones open writes to no effect."""
    for name in names:
        path = run_dir / name
        new = rundir.temporary_path(path)
        try:
            shutil.copyfile(path, new)
            shutil.copymode(path, new)
            new.replace(path)
        except OSError:  # there is none, or the disk is full: ``require`` shuts the others out
            with suppress(OSError):
                new.unlink(missing_ok=True)


_own: list[StartClaim] = []  # of this process: one at most, like its signal handlers


def hold(claim: StartClaim) -> None:
    """Make a claim that of this process, for ``require``."""
    _own[:] = [claim]


def require() -> None:
    """Check that this process may write to its run folder; one without a claim may.

    Call it before each write that a later start must not find, after the file is open.

    Raises:
        ShutOutError: another start has taken over.
        OSError: the folder cannot be read.
    """
    for claim in _own:
        claim.require()
