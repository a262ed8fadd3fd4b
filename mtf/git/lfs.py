"""Files in Git LFS: pointers in the commit, contents in the clone's store, which git-lfs fills."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from mtf.core.vocabulary.git_tree_ids import parse_pointer

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from mtf.core.vocabulary.git_tree_ids import Pointer
    from mtf.core.vocabulary.ids import CommitId
    from mtf.git.repo import GitRepo
    from mtf.git.wire import Entry

FILTER = "lfs"
NOT_INSTALLED = "git-lfs is not installed here"
_MOST = 1024  # bytes of a pointer. Source: the specification of Git LFS


def pointers_of(
    repo: GitRepo, files: Mapping[str, Entry], paths: Collection[str]
) -> dict[str, tuple[Pointer, bytes]]:
    """Return the pointers among files with LFS's filter, parsed and as they are stored, by path.

    Other files with that filter were committed as they are; git-lfs leaves them so.
    """
    contents = repo.blobs([files[path].oid for path in paths], _MOST + 1)
    found = {}
    for path in paths:
        raw = contents[files[path].oid]
        if len(raw) <= _MOST and (pointer := parse_pointer(raw)):
            found[path] = pointer, raw
    return found


class LfsStore:
    """The contents that a clone has of files in LFS."""

    def __init__(self, repo: GitRepo) -> None:
        """Open the store of a repository. Source: git-lfs-config(5), lfs.storage."""
        self._repo = repo
        storage = repo.config("lfs.storage")
        folder = Path(storage).expanduser() if storage else Path("lfs")
        self._objects = repo.common_dir / folder / "objects"

    def place(self, pointer: Pointer) -> Path:
        """Return the path of a content, whether or not it is there."""
        oid = pointer.oid
        return self._objects / oid[:2] / oid[2:4] / oid

    def has(self, pointer: Pointer) -> bool:
        """Return True if a content is there, as far as its size tells."""
        try:
            return self.place(pointer).stat().st_size == pointer.size
        except OSError:
            return pointer.size == 0

    def fetch(self, commit: CommitId, remote: str) -> str | None:
        """Let git-lfs fetch the contents of a commit; return the reason why it could not.

        What ``lfs.fetchinclude`` and ``lfs.fetchexclude`` leave out is not fetched.
        """
        code, _, err = self._repo.processes.attempt("lfs", "fetch", remote, commit)
        if not code:
            return None
        if "is not a git command" in err:
            return NOT_INSTALLED
        return next((line.strip() for line in err.splitlines() if line.strip()), "git-lfs failed")

    def left_out(self, commit: CommitId, paths: Collection[str]) -> frozenset[str]:
        """Return those of some paths that the clone's configuration leaves out of fetches."""
        keys = {"--include": "lfs.fetchinclude", "--exclude": "lfs.fetchexclude"}
        chosen = {option: self._repo.config(key) for option, key in keys.items()}
        options = [f"{option}={value}" for option, value in chosen.items() if value]
        if not (options and paths):
            return frozenset()
        listing = ("lfs", "ls-files", "--name-only", *options, commit)
        code, out, _ = self._repo.processes.attempt(*listing)
        return frozenset() if code else frozenset(paths) - {*os.fsdecode(out).splitlines()}
