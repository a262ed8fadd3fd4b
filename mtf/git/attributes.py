"""The attributes of a commit's files with which git stores them in another form."""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mtf.core.vocabulary.ids import CommitId
    from mtf.git.repo import GitRepo
    from mtf.git.wire import Entry

ATTRIBUTES = ".gitattributes"
_REGULAR = ("100644", "100755")
_UNSET = ("unspecified", "unset", "set")
_FILTER, _ENCODING = "filter", "working-tree-encoding"


class StoredForms(NamedTuple):
    """The files of a commit that a work tree has in another form, by path.

    Attributes:
        filters: the name of each file's filter.
        encodings: the encoding that git converts each file to, which it stores as UTF-8.
    """

    filters: dict[str, str]
    encodings: dict[str, str]


def stored_forms(repo: GitRepo, commit: CommitId, files: Mapping[str, Entry]) -> StoredForms:
    """Return the files of a commit that git stores in another form.

    Only the commit's own attributes count, not those in the configuration of a user.
    Source: gitattributes(5), git-check-attr(1).

    Args:
        repo: has the commit.
        commit: whose files they are.
        files: all of them.
    """
    rules = [e.oid for p, e in files.items() if p.rpartition("/")[2] == ATTRIBUTES]
    texts = repo.blobs(rules).values()
    wanted = [a for a in (_FILTER, _ENCODING) if any(a.encode() in text for text in texts)]
    if not wanted:
        return StoredForms({}, {})
    paths = [path for path, entry in files.items() if entry.mode in _REGULAR]
    with tempfile.TemporaryDirectory(prefix="mtf-index-") as folder:
        env = {"GIT_INDEX_FILE": str(Path(folder, "index"))}
        repo.processes.run("read-tree", commit, env=env)
        found = _read(repo, wanted, paths, env)
    encodings = {p: name for p, name in found[_ENCODING].items() if not _is_utf_8(name)}
    return StoredForms(found[_FILTER], encodings)


def _is_utf_8(encoding: str) -> bool:
    return encoding.replace("-", "").lower() == "utf8"


def _read(
    repo: GitRepo, attributes: Iterable[str], paths: Iterable[str], env: Mapping[str, str]
) -> defaultdict[str, dict[str, str]]:
    """Return the values of attributes by their names and by path."""
    own = ("-c", f"core.attributesFile={os.devnull}")
    command = (*own, "check-attr", "--cached", "--stdin", "-z", *attributes)
    out = repo.processes.run(*command, stdin=os.fsencode("\0".join(paths)), env=env)
    parts = os.fsdecode(out).split("\0")[:-1]
    found: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for path, name, value in zip(parts[0::3], parts[1::3], parts[2::3], strict=True):
        if value not in _UNSET:
            found[name][path] = value
    return found
