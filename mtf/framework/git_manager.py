"""`GitManager` and `GitOperationLock`: the repository that programs submit from, and its lock."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

from filelock import FileLock, Timeout

from mtf.commands.sync import sync_lock
from mtf.core.vocabulary.ids import JOB_BRANCH_PREFIX
from mtf.errors import LockedError, RepositoryError
from mtf.project.project import open_project

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from types import TracebackType

    from mtf.core.vocabulary.ids import CommitId

_BRANCH = "refs/heads/"


class GitManager:
    """Reads the repository that contains a folder."""

    def __init__(self, root: str | Path = ".") -> None:
        """Open the repository.

        Raises:
            RepositoryError: there is none, or it has no commit.
        """
        self._project = open_project(Path(root))
        self._repo = self._project.repo

    @property
    def root(self) -> Path:
        """Return the top folder of the work tree."""
        return self._repo.root

    @property
    def current_commit(self) -> CommitId:
        """Return the id of the commit that is checked out."""
        return self._repo.commit("HEAD")

    @property
    def current_branch(self) -> str | None:
        """Return the branch that is checked out, None for a detached HEAD."""
        return self._repo.current_branch()

    @property
    def job_branches(self) -> dict[str, CommitId]:
        """Return the commit of each job branch, by its name: ``slurm-job/<submission>``."""
        found = self._repo.refs(JOB_BRANCH_PREFIX)
        return {ref.removeprefix(_BRANCH): commit for ref, commit in found.items()}

    @property
    def dirty_files(self) -> list[str]:
        """Return the paths that are not as HEAD has them, untracked ones among them.

        Paths are relative to the root; an untracked folder ends with a slash.

        Raises:
            RepositoryError: git status takes too long.
        """
        with self._repo.uncommitted() as look:
            found = look()
        if found is None:
            raise RepositoryError(
                "git status takes too long. Try again, or run git status yourself"
            )
        return sorted(change.path for change in found)

    @property
    def is_dirty(self) -> bool:
        """Return True if something is not committed."""
        return bool(self.dirty_files)

    def lock(self, timeout: float = 60.0) -> GitOperationLock:
        """Return the lock of this clone."""
        return GitOperationLock(self.root, timeout)


class GitOperationLock:
    """Keeps other processes out for a block; the same process may enter it again.

    For a folder in a repository it is the lock of that clone which ``mtf sync`` and every
    submission hold. Any other path is the file to lock, which is made.
    """

    def __init__(self, path: str | Path, timeout: float = 60.0) -> None:
        """Take the path, and the seconds to wait for the lock."""
        self._path, self._timeout = Path(path), timeout
        self._held: list[AbstractContextManager[None]] = []

    def __enter__(self) -> Self:
        """Wait for the lock.

        Raises:
            LockedError: another process still holds it when the time is over.
        """
        held = self._lock()
        held.__enter__()
        self._held.append(held)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Release the lock."""
        self._held.pop().__exit__(kind, error, trace)

    def _lock(self) -> AbstractContextManager[None]:
        if self._path.is_dir():
            return sync_lock(open_project(self._path), self._timeout, role="GitOperationLock")
        return _file_lock(self._path, self._timeout)


@contextmanager
def _file_lock(path: Path, wait_s: float) -> Iterator[None]:
    """Hold a lock on a file.

    Raises:
        LockedError: another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, is_singleton=True)  # the same one where a block enters it again
    try:
        lock.acquire(timeout=wait_s)
    except Timeout:
        raise LockedError(
            f"{path} is locked by another process. Try again when it is done"
        ) from None
    try:
        yield
    finally:
        lock.release()
