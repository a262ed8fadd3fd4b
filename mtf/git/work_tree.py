"""Reads what a work tree has that its commit lacks, and makes a commit of it that moves nothing."""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING

from mtf.core.vocabulary.ids import CommitId
from mtf.errors import RepositoryError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from mtf.git.process import GitProcesses

PATIENCE_S = 2.0  # for a work tree on a slow disk, once everything else is done
_STATUS = ("status", "--porcelain", "-z", "--no-renames", "--untracked-files=normal")
_WHOLE = ("status", "--porcelain=v2", "-z", "--no-renames", "--ignore-submodules=none")
_FIELDS_BEFORE_PATH = {"1": 8, "u": 10, "?": 1}  # of an entry of git status, version 2


@dataclass(frozen=True)
class ChangedPath:
    """A path in the work tree that differs from HEAD; an untracked folder ends with a slash."""

    path: str  # relative to the root of the repository
    is_tracked: bool
    is_repository: bool = False  # a changed submodule, or another repository in the work tree
    is_unmerged: bool = False  # a merge has left conflicts in it


@contextmanager
def uncommitted_paths(git: GitProcesses) -> Iterator[Callable[[], list[ChangedPath] | None]]:
    """Start to look for changes; return a function that waits for them.

    The function returns None if git does not answer in time, and no path where there is no work
    tree.
    Source: git-status(1), porcelain format version 1.
    """
    process = git.start(*_STATUS)
    is_read = False

    def wait() -> list[ChangedPath] | None:
        nonlocal is_read
        is_read = True
        try:
            out, _ = process.communicate(limit_s=PATIENCE_S)
        except RepositoryError:
            return None
        entries = os.fsdecode(out).split("\0")[:-1] if process.returncode == 0 else []
        return [ChangedPath(entry[3:], is_tracked=entry[:2] != "??") for entry in entries]

    try:
        yield wait
    finally:
        if not is_read:
            wait()


def all_changes(git: GitProcesses, root: Path, *, each_file: bool = False) -> list[ChangedPath]:
    """Return every path that differs from HEAD, also those that git was told not to look at.

    Args:
        git: of the work tree.
        root: top of the work tree.
        each_file: name each file of an untracked folder, not the folder.

    Raises:
        RepositoryError: there is no work tree, or git failed.

    Source: git-status(1), porcelain format version 2.
    """
    out = git.run(*_WHOLE, f"--untracked-files={'all' if each_file else 'normal'}")
    found = []
    for entry in os.fsdecode(out).split("\0")[:-1]:
        kind = entry[0]
        fields = entry.split(" ", _FIELDS_BEFORE_PATH[kind])
        path, is_submodule = fields[-1], kind != "?" and fields[2][0] == "S"
        is_other = kind == "?" and (root / path / ".git").exists()
        found.append(ChangedPath(path, kind != "?", is_submodule or is_other, kind == "u"))
    return [*found, *(ChangedPath(path, is_tracked=True) for path in _unwatched(git, root))]


def _unwatched(git: GitProcesses, root: Path) -> list[str]:
    """Return changed files that are marked ``assume-unchanged`` or ``skip-worktree``.

    Source: git-update-index(1); git-ls-files(1), ``-v``.
    """
    lines = os.fsdecode(git.run("ls-files", "-v", "-s", "-z", "--full-name", ":/")).split("\0")[:-1]
    marked = {}
    for line in lines:
        if line[0] == "S" or line[0].islower():
            facts, _, path = line.partition("\t")
            marked[path] = facts.split(" ")
    here = {p: f for p, f in marked.items() if (root / p).is_file() and not (root / p).is_symlink()}
    gone = [p for p, facts in marked.items() if facts[0] == "h" and not os.path.lexists(root / p)]
    if not here:
        return gone
    # relative to the top: attributes choose the filters by the path
    ids = [git.run("hash-object", "--", str(root / path)).decode().strip() for path in here]
    return [
        *gone,
        *(p for (p, facts), oid in zip(here.items(), ids, strict=True) if facts[2] != oid),
    ]


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    folder = Path(gettempdir(), f".mtf-snapshot.{secrets.token_hex(8)}")
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def commit_work_tree(
    git: GitProcesses, root: Path, *, leave_out: Collection[str], committer: str
) -> CommitId:
    """Return a commit of the work tree whose parent is HEAD; HEAD itself if they are the same.

    It has all tracked and all untracked files, without ignored ones. No ref, index or file of the
    work tree is touched: the files are added to a copy of the index. The same files on the same
    HEAD make the same commit, since its times are those of HEAD.

    Args:
        git: of the work tree.
        root: top of the work tree.
        leave_out: folders, relative to the top, whose untracked files are not part of it.
        committer: like ``Name <mail>``.

    Raises:
        RepositoryError: git failed, for example because a file cannot be read.

    Source: git(1), GIT_INDEX_FILE; git-commit-tree(1).
    """
    head = git.run("rev-parse", "HEAD").decode().strip()
    index = os.fsdecode(git.run("rev-parse", "--path-format=absolute", "--git-path", "index"))
    with _temporary_folder() as folder:
        copy = str(folder / "index")
        env = {"GIT_INDEX_FILE": copy}
        with suppress(FileNotFoundError):
            shutil.copyfile(
                index.removesuffix("\n"), copy
            )  # with the times that spare reading files
        quiet = ("-c", "core.fsync=committed", "-c", "core.hooksPath=/dev/null")
        if unwatched := _unwatched(git, root):
            paths = "".join(f"{path}\0" for path in unwatched).encode(errors="surrogateescape")
            for mark in ("--no-assume-unchanged", "--no-skip-worktree"):
                git.run(
                    *quiet,
                    "-C",
                    str(root),
                    "update-index",
                    mark,
                    "-z",
                    "--stdin",
                    stdin=paths,
                    env=env,
                )
        # git add refuses to be told to leave out what is ignored anyway
        seen = (p for p in leave_out if git.attempt("check-ignore", "-q", str(root / p))[0])
        without = [f":(top,exclude,literal){path}" for path in seen]
        git.run(*quiet, "-c", "core.safecrlf=false", "add", "--all", "--", ":/", *without, env=env)
        tree = git.run(*quiet, "write-tree", env=env).decode().strip()
    if tree == git.run("rev-parse", "HEAD^{tree}").decode().strip():
        return CommitId(head)
    name, _, mail = committer.removesuffix(">").partition(" <")
    when = git.run("show", "-s", "--format=%cI", head).decode().strip()
    who = {"NAME": name, "EMAIL": mail, "DATE": when}
    env = {
        f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in who.items()
    }
    message = f"mtf: snapshot of the work tree\n\nMtf-Snapshot-Of: {head}\n"
    out = git.run(*quiet, "commit-tree", tree, "-p", head, stdin=message.encode(), env=env)
    return CommitId(out.decode().strip())
