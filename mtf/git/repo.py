"""A git repository: objects at a commit, refs by compare-and-swap, fetch and push.

Nothing here touches the work tree, and the index is only read (``staged``, ``index``), so that a
dirty or half-staged checkout has no effect and is not changed.
"""

from __future__ import annotations

import os
import re
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mtf.core.vocabulary.ids import CommitId
from mtf.errors import RepositoryError, distrusted
from mtf.git.commits import steps_between, write_commit
from mtf.git.process import GitProcesses
from mtf.git.refs import move_refs
from mtf.git.refspecs import always_fetch
from mtf.git.signing import Signatures
from mtf.git.trees import checked_files, files_in
from mtf.git.wire import (
    Entry,
    FileChange,
    Step,
    changes_of,
    commit_stream,
    entries_of,
    index_files,
    required,
    staged_files,
)
from mtf.git.work_tree import all_changes, commit_work_tree, uncommitted_paths

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from contextlib import AbstractContextManager

    from mtf.git.refs import RefUpdate
    from mtf.git.wire import Objects
    from mtf.git.work_tree import ChangedPath

_T = TypeVar("_T")
_OBJECT_ID = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")


class GitRepo:
    """One repository. Everything is read from git when it is asked for; only constants are cached.

    Paths of files are relative to ``prefix``, a folder such as ``lab/``: at first the top, "".

    ``inherit`` keeps git's own environment variables: needed in a hook of this repository, wrong
    for any other repository (Source: githooks(5)).
    """

    def __init__(self, folder: Path, *, inherit: bool = False, is_git_dir: bool = False) -> None:
        """Open the repository that contains ``folder``, or is it (``is_git_dir``).

        Raises:
            RepositoryError: there is no repository, or git is not installed.
        """
        self._checked: dict[CommitId, dict[str, Entry]] = {}
        self.processes = self._git = GitProcesses(folder, inherit=inherit, is_git_dir=is_git_dir)
        if is_git_dir:
            self.root = self.common_dir = folder
            self.opened_in = self.prefix = ""
            return
        where = ["--show-toplevel", "--git-common-dir", "--show-prefix"]
        code, out, err = self._git.attempt("rev-parse", "--path-format=absolute", *where)
        lines = os.fsdecode(out).splitlines()
        if advice := distrusted(err):
            raise RepositoryError(advice)
        if code and "must be run in a work tree" not in err:
            raise RepositoryError(f"{folder}: not in a git repository. Run mtf init to make one")
        if code:  # bare
            code, out, _ = self._git.attempt("rev-parse", "--absolute-git-dir")
            lines = [*[os.fsdecode(out).strip()] * 2, ""]
        self.root, self.common_dir = Path(lines[0]), Path(lines[1])
        self.opened_in, self.prefix = lines[2], ""  # folders of the repository, like "lab/"

    def within(self, prefix: str) -> GitRepo:
        """Return this repository with paths relative to one of its folders, "" or like ``lab/``."""
        if prefix == self.prefix:
            return self
        view = copy(self)
        view.prefix = prefix
        return view

    @property
    def whole(self) -> GitRepo:
        """Return this repository with paths relative to its top, as the ledger has them."""
        return self.within("")

    # -- reading -----------------------------------------------------------------------------------

    def reading(self) -> AbstractContextManager[Objects]:
        """Return a context in which one process answers all object reads of this thread."""
        return self._git.reading()

    def find_commit(self, rev: str) -> CommitId | None:
        """Return the commit that ``rev`` names, None if there is none."""
        with self.reading() as objects:
            found = objects.ask([rev + "^{commit}"])[0]
        return CommitId(found.oid) if found else None

    def find_named(self, rev: str) -> CommitId | None:
        """Return the commit that a person means by ``rev``, None if there is none.

        A branch comes before a tag of its name: anybody may have pushed a tag ``origin/main``, and
        git itself prefers tags. Source: gitrevisions(7).
        """
        is_branch = not (rev.startswith(("refs/", "HEAD", "@", "-")) or _OBJECT_ID.fullmatch(rev))
        names = [f"refs/heads/{rev}", f"refs/remotes/{rev}", rev] if is_branch else [rev]
        with self.reading() as objects:
            found = next(filter(None, objects.ask([f"{name}^{{commit}}" for name in names])), None)
        return CommitId(found.oid) if found else None

    def commit(self, rev: str) -> CommitId:
        """Return the commit that a person means by ``rev``, see ``find_named``.

        Raises:
            RepositoryError: there is none.
        """
        found = self.find_named(rev)
        if found is not None:
            return found
        if self.find_commit("HEAD") is None and not self._git.run("for-each-ref", "--count=1"):
            raise RepositoryError(
                "the repository has no commits yet. Commit your experiments first"
            )
        raise RepositoryError(f"{rev}: no such commit or branch in this repository")

    def files(self, commit: CommitId, folder: str = "") -> dict[str, Entry]:
        """Return the files below ``folder`` at a commit by their paths, submodules included.

        Raises:
            RepositoryError: the commit or a tree of it is missing, damaged or too large.
        """
        with self.reading() as objects:
            found = files_in(objects, commit, self.prefix + folder)
        return self._relative(found) if self.prefix else found

    def folder(self, commit: CommitId, path: str) -> dict[str, Entry]:
        """Return the entries of a folder at a commit by name, none if there is no such folder."""
        with self.reading() as objects:
            found = objects.ask([f"{commit}:{self.prefix}{path}".removesuffix("/")])[0]
        return dict(entries_of(found)) if found and found.kind == "tree" else {}

    def checked_files(self, commit: CommitId) -> dict[str, Entry]:
        """Return all files of a commit, by their paths from the top, which may be checked out.

        Raises:
            RefusedTreeError: they must not be checked out: a path leads out of the checkout, ...
            RepositoryError: as for ``files``.
        """
        found = self._checked.get(commit)
        if found is None:
            with self.reading() as objects:
                found = checked_files(objects, commit)
            self._checked.clear()  # they may be many: only the last ones are kept
            self._checked[commit] = found
        return found

    def blobs(self, oids: Iterable[str], most: int | None = None) -> dict[str, bytes]:
        """Return the contents of objects by id, at most ``most`` bytes of each, from one process.

        Raises:
            RepositoryError: one is missing.
        """
        wanted = list(dict.fromkeys(oids))
        if not wanted:
            return {}
        with self.reading() as objects:
            found = zip(wanted, objects.ask(wanted, most), strict=True)
            return {oid: required(oid, answer).content for oid, answer in found}

    def read(self, commit: CommitId, path: str, most: int | None = None) -> bytes | None:
        """Return at most ``most`` bytes of a file at a commit, None if it does not exist."""
        with self.reading() as objects:
            found = objects.ask([f"{commit}:{self.prefix}{path}"], most)[0]
        return found.content if found and found.kind == "blob" else None

    def object_ids(self, commit: CommitId, paths: Iterable[str]) -> dict[str, str]:
        """Return the object id of the file or folder at each path, "absent" if there is none."""
        found = {}
        for path in dict.fromkeys(paths):
            rev = f"{commit}:{self.prefix}{path.strip('/')}"
            options = ("--verify", "--quiet", "--end-of-options")
            code, out, _ = self._git.attempt("rev-parse", *options, rev)
            found[path] = out.decode().strip() if code == 0 else "absent"
        return found

    def staged(self, *paths: str) -> dict[str, Entry | None]:
        """Return the staged files at or below these paths: added, changed, or (None) deleted."""
        empty_tree = ("hash-object", "-t", "tree", "--stdin")
        base = self.find_commit("HEAD") or self._git.run(*empty_tree).decode().strip()
        options = ("--cached", "--raw", "-z", "--no-renames", "--abbrev=64")
        specs = map(self._spec, paths)
        out = self._git.run("diff-index", *options, "--ita-invisible-in-index", base, "--", *specs)
        return self._relative(staged_files(out))

    def index(self, path: str) -> dict[str, Entry]:
        """Return the files of the index at or below ``path``."""
        options = ("--stage", "-z", "--full-name")
        out = self._git.run("ls-files", *options, "--", self._spec(path))
        return self._relative(index_files(out))

    def indexed_folders(self, name: str) -> list[str]:
        """Return the folders with a file of this name in the index, each "" or like ``lab/``."""
        out = self._git.run("ls-files", "-z", "--full-name", "--", f":(top,glob)**/{name}")
        return sorted(path.removesuffix(name) for path in os.fsdecode(out).split("\0")[:-1])

    def _spec(self, path: str) -> str:
        """Return git's spelling of a path. Source: gitglossary(7), pathspec."""
        return f":(top,literal){self.prefix}{path}"

    def _relative(self, found: Mapping[str, _T]) -> dict[str, _T]:
        """Return files by their paths relative to the prefix; all are in it."""
        return {path[len(self.prefix) :]: file for path, file in found.items()}

    def refs(self, *prefixes: str) -> dict[str, CommitId]:
        """Return all refs below these prefixes."""
        out = self._git.run("for-each-ref", "--format=%(refname) %(objectname)", *prefixes)
        pairs = (line.split() for line in out.decode().splitlines())
        return {ref: CommitId(oid) for ref, oid in pairs}

    def is_ancestor(self, older: CommitId, newer: CommitId) -> bool:
        """Return True if ``newer`` contains ``older``."""
        return self._git.attempt("merge-base", "--is-ancestor", older, newer)[0] == 0

    def merge_base(self, a: CommitId, b: CommitId) -> CommitId | None:
        """Return the best common ancestor, None if the histories are unrelated."""
        code, out, _ = self._git.attempt("merge-base", a, b)
        return CommitId(out.decode().split()[0]) if code == 0 else None

    def changes(self, old: CommitId, new: CommitId) -> tuple[FileChange, ...]:
        """Return the files that differ between two commits, submodules among them.

        Source: git-diff-tree(1), raw output format and ``--numstat``.

        Raises:
            RepositoryError: one of the commits is not in this clone.
        """
        out = self._git.run(
            "diff-tree", "-r", "--no-renames", "--raw", "--numstat", "-z", "--no-abbrev", old, new
        )
        return changes_of(out)

    def changed_paths(self, old: CommitId, new: CommitId) -> list[str]:
        """Return the paths of the files that differ; none if a commit is not in this clone."""
        options = ("-r", "--no-renames", "--name-only", "-z")
        out = self._git.attempt("diff-tree", *options, old, new)[1]
        return os.fsdecode(out).split("\0")[:-1]

    @cached_property
    def signatures(self) -> Signatures:
        """Return the signatures of the repository's commits, to make and to verify."""
        return Signatures(self._git)

    def current_branch(self) -> str | None:
        """Return the branch that is checked out, None if HEAD is detached."""
        code, out, _ = self._git.attempt("symbolic-ref", "--quiet", "--short", "HEAD")
        return out.decode().strip() if code == 0 else None

    def uncommitted(self) -> AbstractContextManager[Callable[[], list[ChangedPath] | None]]:
        """Start to look for changes of the work tree; see ``uncommitted_paths``."""
        return uncommitted_paths(self._git)

    def all_changes(self, *, each_file: bool = False) -> list[ChangedPath]:
        """Return every path of the work tree that differs from HEAD; see ``work_tree``."""
        return all_changes(self._git, self.root, each_file=each_file)

    def commit_work_tree(self, leave_out: Collection[str] = ()) -> CommitId:
        """Return a commit of the work tree on HEAD, which moves nothing; see ``work_tree``."""
        who = self.identity
        return commit_work_tree(self._git, self.root, leave_out=leave_out, committer=who)

    def history(self, commit: CommitId, path: str, max_count: int = 50) -> list[str]:
        """Return the log of a file, the newest first: ``<id> <date> <subject>`` lines."""
        options = ("--first-parent", f"--max-count={max_count}", "--format=%h %cI %s")
        out = self._git.run("log", *options, commit, "--", path)
        return out.decode(errors="replace").splitlines()

    def boundary(self, commit: CommitId, remote: str) -> list[CommitId]:
        """Return the newest commits up to ``commit`` that are known to be on ``remote``."""
        out = self._git.run("rev-list", "--boundary", commit, "--not", f"--remotes={remote}")
        lines = out.decode().splitlines()
        return [CommitId(s[1:]) for s in lines if s[:1] == "-"] if lines else [commit]

    def continues(self, old: CommitId, new: CommitId) -> bool:
        """Return True if ``old`` is in the history of ``new`` by first parents.

        A merge may contain ``old`` and have the tree and the first parent of another history.
        """
        if old == new:
            return True
        out = self._git.run("log", "--first-parent", "--format=%P.", f"{old}..{new}", "--")
        oldest = out.decode().splitlines()[-1:]
        return bool(oldest) and oldest[0].rstrip(".").split(" ")[0] == old

    def steps(self, old: CommitId | None, new: CommitId, folders: tuple[str, ...]) -> list[Step]:
        """Return the changes of files between two commits, by first parents, the oldest first.

        ``old`` None: from the beginning. If ``new`` does not continue ``old``, the difference
        between the two is one step for each file, of side "<>".
        """
        continues = old is None or self.continues(old, new)
        return steps_between(self._git, old, new, folders, continues=continues)

    def config(self, key: str) -> str | None:
        """Return a configuration value, None if it is not set."""
        code, out, _ = self._git.attempt("config", "--get", key)
        return out.decode().strip() if code == 0 else None

    def config_values(self, keys: Iterable[str], also: str = "$.") -> dict[str, str]:
        """Return the configuration values of these keys; keys that are not set are left out.

        ``also`` is a regular expression for further keys, which must match as a whole.
        """
        pattern = "|".join([*map(re.escape, keys), also])
        out = self._git.attempt("config", "-z", "--get-regexp", f"^({pattern})$")[1]
        pairs = (entry.partition("\n") for entry in os.fsdecode(out).split("\0")[:-1])
        return {key: value for key, _, value in pairs}

    def always_fetch(self, remote: str, pattern: str) -> None:
        """Let ``git fetch`` update the branches that match ``pattern``; see ``refspecs``."""
        always_fetch(self._git, remote, pattern)

    @cached_property
    def identity(self) -> str:
        """Return the committer of this clone as ``Name <mail>``."""
        code, out, _ = self._git.attempt("var", "GIT_COMMITTER_IDENT")
        return out.decode().rsplit(" ", 2)[0] if code == 0 else "mtf <mtf@localhost>"

    @cached_property
    def _id_width(self) -> int:
        """Return the number of digits of the repository's object ids."""
        return 64 if self._git.run("rev-parse", "--show-object-format").strip() == b"sha256" else 40

    @property
    def version(self) -> str:
        """Return git's version: ``git version 2.39.5``."""
        return self._git.run("version").decode().strip()

    # -- writing -----------------------------------------------------------------------------------

    def write_commit(
        self,
        changes: Iterable[tuple[str, bytes | None]],
        *,
        parents: tuple[CommitId, ...],
        message: str,
        committer: str,
    ) -> CommitId:
        """Write a commit that changes files of its first parent; None deletes a file. Moves no ref.

        Raises:
            RepositoryError: git failed; the message is git's own.
        """
        width = len(parents[0]) if parents else self._id_width
        return write_commit(self._git, commit_stream(changes, parents, message, committer, width))

    def update_refs(self, updates: Iterable[RefUpdate]) -> None:
        """Move all of the refs or none.

        Raises:
            RefMovedError: a ref is not at its expected commit.
        """
        lines = [f"update {u.ref} {u.new} {u.old or '0' * len(u.new)}\n" for u in updates]
        args = ("-c", "core.fsync=committed", "update-ref", "--stdin")
        move_refs(self._git, self.common_dir, "update-ref", *args, stdin="".join(lines).encode())

    def push(self, remote: str, updates: Iterable[RefUpdate]) -> None:
        """Move refs of the remote: all of them, each from exactly its old value, or none.

        Raises:
            RefMovedError: another writer came first.
            RepositoryError: the remote cannot be reached or refuses.
        """
        moves = list(updates)
        leases = [f"--force-with-lease={u.ref}:{u.old or ''}" for u in moves]
        specs = [f"{u.new}:{u.ref}" for u in moves]
        options = ("--porcelain", "--atomic", "--no-verify")
        what = f"push to {remote}"
        move_refs(self._git, self.common_dir, what, "push", *options, *leases, remote, *specs)

    def tidy(self) -> None:
        """Run git's automatic maintenance, as git itself does after a commit.

        Git decides if there is enough to pack, and then works in the background. Its settings
        (``maintenance.auto``, ``gc.auto``) apply; a failure is retried at the next opportunity.
        Source: git-gc(1), gc.autoDetach; git-maintenance(1).
        """
        if self.config("maintenance.auto") != "false":
            self._git.attempt("gc", "--auto", "--quiet")

    # -- the remote --------------------------------------------------------------------------------

    def remote_refs(
        self, remote: str, refs: Iterable[str], *, limit_s: float | None = None
    ) -> dict[str, CommitId]:
        """Return the commits of these refs on the remote.

        Raises:
            RepositoryError: the remote cannot be reached, or not within ``limit_s`` seconds.
        """
        out = self._git.run("ls-remote", remote, *refs, limit_s=limit_s)
        pairs = (line.split("\t") for line in out.decode().splitlines())
        return {ref: CommitId(oid) for oid, ref in pairs}

    def fetch(self, remote: str, wanted: Mapping[str, CommitId]) -> None:
        """Fetch these refs of the remote to ``refs/remotes/<remote>/...``.

        Raises:
            RefMovedError, RepositoryError: as for ``push``.
        """
        folder = f"refs/remotes/{remote}/"
        specs = [f"+{ref}:{folder}{ref.removeprefix('refs/heads/')}" for ref in wanted]
        options = ("--quiet", "--no-tags", "--no-write-fetch-head")
        if specs:
            what = f"fetch from {remote}"
            move_refs(self._git, self.common_dir, what, "fetch", *options, remote, *specs)
