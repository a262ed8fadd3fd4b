"""Reads the trees of commits: all files by their paths, and whether they may be checked out."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mtf.core.vocabulary.git_tree_ids import SYMLINK
from mtf.core.vocabulary.git_tree_rules import tree_problem
from mtf.errors import RepositoryError
from mtf.git.wire import entries_of, required

if TYPE_CHECKING:
    from mtf.core.vocabulary.ids import CommitId
    from mtf.git.wire import Entry, Objects

FOLDER = "040000"
# A few trees that contain each other many times stand for any number of files.
MAX_FILES = 1_000_000
MAX_DEPTH = 200


class RefusedTreeError(RepositoryError):
    """A commit's tree must not be checked out; ``path`` is the entry at fault, or empty."""

    def __init__(self, commit: CommitId, path: str, reason: str) -> None:
        self.path = path
        what = f"{path!r} in the tree of commit {commit[:8]}" if path else f"commit {commit[:8]}"
        super().__init__(
            f"{what} {reason}. mtf checks out what git does, so nothing of this commit is run"
        )


def files_in(objects: Objects, commit: CommitId, folder: str = "") -> dict[str, Entry]:
    """Return the files below ``folder`` at a commit by their paths, submodules included.

    Raises:
        RepositoryError: the commit or a tree of it is missing, damaged or too large.
    """
    below = f"{folder.rstrip('/')}/" if folder else ""
    found: dict[str, Entry] = {}
    level, depth, count = {"": f"{commit}^{{tree}}"}, 0, 0  # trees to read, by path
    while level:
        names = list(dict.fromkeys(level.values()))
        answers = zip(names, objects.ask(names), strict=True)
        trees = {name: entries_of(required(name, tree)) for name, tree in answers}
        count, depth = count + sum(len(trees[name]) for name in level.values()), depth + 1
        if count > MAX_FILES or depth > MAX_DEPTH:
            limits = f"{MAX_FILES:,} files or {MAX_DEPTH} levels of folders"
            raise RepositoryError(f"commit {commit[:8]} has more than {limits}")
        above, level = level, {}
        for folder_path, tree in above.items():
            for name, entry in trees[tree]:
                path = folder_path + name
                if entry.mode != FOLDER:
                    if path.startswith(below):
                        found[path] = entry
                elif f"{path}/".startswith(below) or below.startswith(f"{path}/"):
                    level[f"{path}/"] = entry.oid
    return dict(sorted(found.items()))


def checked_files(objects: Objects, commit: CommitId) -> dict[str, Entry]:
    """Return all files of a commit, which may be checked out.

    Raises:
        RefusedTreeError: its tree breaks a rule of ``git_tree_rules``.
        RepositoryError: as for ``files_in``.
    """
    files = files_in(objects, commit)
    links = list({entry.oid for entry in files.values() if entry.mode == SYMLINK})
    answers = zip(links, objects.ask(links), strict=True)
    targets = {oid: os.fsdecode(required(oid, found).content) for oid, found in answers}
    tree = f"{commit}^{{tree}}"
    tree_id = required(tree, objects.ask([tree])[0]).oid
    if problem := tree_problem(files, targets, tree_id):
        raise RefusedTreeError(commit, *problem)
    return files
