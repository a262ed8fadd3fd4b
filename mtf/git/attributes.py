"""The attribute ``filter`` of a commit's files: which of them git stores in another form."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mtf.core.vocabulary.ids import CommitId
    from mtf.git.repo import GitRepo
    from mtf.git.wire import Entry

ATTRIBUTES = ".gitattributes"
_REGULAR = ("100644", "100755")
_UNSET = ("unspecified", "unset", "set")


def filters_of(repo: GitRepo, commit: CommitId, files: Mapping[str, Entry]) -> dict[str, str]:
    """Return the filters of those files of a commit that have one, by path.

    Only the commit's own attributes count, not those in the configuration of a user.
    Source: gitattributes(5), git-check-attr(1).

    Args:
        repo: has the commit.
        commit: whose files they are.
        files: all of them.
    """
    rules = [e.oid for p, e in files.items() if p.rpartition("/")[2] == ATTRIBUTES]
    if not any(b"filter" in text for text in repo.blobs(rules).values()):
        return {}
    paths = [path for path, entry in files.items() if entry.mode in _REGULAR]
    with tempfile.TemporaryDirectory(prefix="mtf-index-") as folder:
        env = {"GIT_INDEX_FILE": str(Path(folder, "index"))}
        repo.processes.run("read-tree", commit, env=env)
        return _read(repo, paths, env)


def _read(repo: GitRepo, paths: Iterable[str], env: Mapping[str, str]) -> dict[str, str]:
    own = ("-c", f"core.attributesFile={os.devnull}")
    options = ("check-attr", "--cached", "--stdin", "-z", "filter")
    out = repo.processes.run(*own, *options, stdin=os.fsencode("\0".join(paths)), env=env)
    parts = os.fsdecode(out).split("\0")[:-1]
    found = zip(parts[0::3], parts[2::3], strict=True)
    return {path: value for path, value in found if value not in _UNSET}
