"""Collects the code of a commit from what the clone has; what is missing is fetched or named.

A commit names submodules by their commits and files in Git LFS by pointers. A checkout without
either would fail in the queue, so a plan refuses it, with everything that is missing.
"""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mtf.core.vocabulary.git_tree_ids import GITLINK, SYMLINK
from mtf.core.vocabulary.git_tree_rules import links_problem
from mtf.core.vocabulary.ids import CommitId
from mtf.errors import MtfError, RepositoryError
from mtf.git.attributes import stored_forms
from mtf.git.lfs import FILTER, NOT_INSTALLED, LfsStore, pointers_of
from mtf.git.partial import prefetch
from mtf.git.submodules import Submodule, open_submodule, submodules_of
from mtf.git.trees import RefusedTreeError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mtf.core.vocabulary.git_tree_ids import Pointer
    from mtf.git.repo import GitRepo
    from mtf.git.wire import Entry

_Stored = tuple["Pointer", bytes]  # a pointer, and its text
_LEFT_OUT = "lfs.fetchexclude"  # in place of a filter's name: the pointer is what jobs get
_MOST_FILES = 1_000_000


class IncompleteCodeError(MtfError):
    """Parts of a commit's code are missing; the message names them, each with its cure."""


@dataclass(frozen=True)
class Part:
    """The code of one repository at one commit: the project's own, or a submodule."""

    repo: GitRepo
    commit: CommitId
    files: Mapping[str, Entry]
    pointers: Mapping[str, _Stored] = field(default_factory=dict)
    filtered: Mapping[str, str] = field(default_factory=dict)  # path -> a filter other than LFS
    encoded: Mapping[str, str] = field(default_factory=dict)  # path -> the work tree's encoding
    submodules: Mapping[str, Part] = field(default_factory=dict)

    def all(self, prefix: str = "") -> Iterator[tuple[str, Part]]:
        """Yield this part and all submodules, each with the folder that it is in."""
        yield prefix, self
        for path, part in self.submodules.items():
            yield from part.all(f"{prefix}{path}/")


def whole_code(repo: GitRepo, commit: CommitId, remote: str | None) -> Part:
    """Return the whole code of a commit, which may be checked out.

    Submodules and contents of Git LFS that the clone does not have are fetched.

    Args:
        repo: has the commit.
        commit: whose code it is.
        remote: of ``repo``, for what is fetched.

    Raises:
        RefusedTreeError: the code must not be checked out.
        IncompleteCodeError: parts of it are missing.
    """
    found = _Collection(remote)
    part = found.collect(repo.whole, commit, "")
    if found.missing:
        lines = "\n  ".join(found.missing)
        raise IncompleteCodeError(f"the code of commit {commit[:8]} is not whole:\n  {lines}")
    if problem := links_problem(_links(part)):
        raise RefusedTreeError(commit, *problem)
    return part


def remarks_on(part: Part) -> list[str]:
    """Return a note for each filter and encoding whose files jobs get as they are stored."""
    filtered: defaultdict[str, list[str]] = defaultdict(list)
    encoded: defaultdict[str, list[str]] = defaultdict(list)
    for prefix, one in part.all():
        for path, name in one.filtered.items():
            filtered[name].append(prefix + path)
        for path, name in one.encoded.items():
            encoded[name].append(prefix + path)
    return [
        *(f"{_listed(paths)}: {_as_stored(name)}" for name, paths in sorted(filtered.items())),
        *(
            f"{_listed(paths)}: jobs get UTF-8, as git stores it, and not {name}"
            " (working-tree-encoding)"
            for name, paths in sorted(encoded.items())
        ),
    ]


def _as_stored(name: str) -> str:
    if name == _LEFT_OUT:
        return f"jobs get the pointers of Git LFS, as {name} says"
    return f"jobs get what git stores, since mtf runs no filter but that of Git LFS, and not {name}"


@dataclass
class _Collection:
    remote: str | None
    missing: list[str] = field(default_factory=list)
    count: int = 0

    def collect(self, repo: GitRepo, commit: CommitId, prefix: str) -> Part:
        prefetch(repo, commit)
        files = repo.checked_files(commit)
        self.count += len(files)
        if self.count > _MOST_FILES:
            raise RepositoryError(f"commit {commit[:8]} has more than {_MOST_FILES:,} files")
        filters, encodings = stored_forms(repo, commit, files)
        stored = pointers_of(repo, files, [p for p, name in filters.items() if name == FILTER])
        pointers = self._with_content(repo, commit, prefix, stored)
        others = {p: name for p, name in filters.items() if name != FILTER and _changes(repo, name)}
        others |= dict.fromkeys(stored.keys() - pointers.keys(), _LEFT_OUT)
        submodules = self._submodules(repo, commit, files, prefix)
        return Part(repo, commit, files, pointers, others, encodings, submodules)

    def _submodules(
        self, repo: GitRepo, commit: CommitId, files: Mapping[str, Entry], prefix: str
    ) -> dict[str, Part]:
        links = {path: CommitId(e.oid) for path, e in files.items() if e.mode == GITLINK}
        if not links:
            return {}
        known = submodules_of(repo, commit)
        found = {}
        for path, pinned in links.items():
            submodule = known.get(path)
            if submodule is not None and not submodule.is_wanted:
                continue
            try:
                inner = open_submodule(
                    repo, submodule or Submodule(path, path), pinned, self.remote
                )
            except RepositoryError as e:
                if submodule is not None:  # otherwise git itself would leave the folder empty
                    self.missing.append(
                        _missing_submodule(prefix + path, submodule, pinned, str(e))
                    )
            else:
                found[path] = self.collect(inner, pinned, f"{prefix}{path}/")
        return found

    def _with_content(
        self, repo: GitRepo, commit: CommitId, prefix: str, pointers: Mapping[str, _Stored]
    ) -> Mapping[str, _Stored]:
        """Fetch the contents of files in LFS, and note those that stay missing.

        Return the pointers without those that the clone's configuration leaves out.
        """
        store = LfsStore(repo)
        if all(store.has(pointer) for pointer, _ in pointers.values()):
            return pointers
        remote = self.remote if self.remote and not prefix else "origin"
        reason = store.fetch(commit, remote)
        lacking = [path for path, (pointer, _) in pointers.items() if not store.has(pointer)]
        left_out = store.left_out(commit, lacking)
        if lacking := [prefix + path for path in lacking if path not in left_out]:
            cure = (
                f"Install git-lfs, then run git lfs fetch {remote} {commit[:8]}"
                if reason == NOT_INSTALLED
                else f"Push it from a clone that has it: git lfs push --all {remote}"
            )
            why = reason or f"{remote} does not have it"
            self.missing.append(
                f"{_listed(lacking)}: in Git LFS, and this clone lacks the content ({why}). {cure}"
            )
        return {path: stored for path, stored in pointers.items() if path not in left_out}


def _missing_submodule(path: str, submodule: Submodule, pinned: CommitId, reason: str) -> str:
    said = " ".join(reason.split())
    return (
        f"{path}: a submodule, and this clone lacks its commit {pinned[:8]} ({said})."
        f" Run git submodule update --init --recursive -- {path}; if no run needs it, run"
        f" git config submodule.{submodule.name}.update none"
    )


def _changes(repo: GitRepo, name: str) -> bool:
    """Return True if a filter of the clone changes what git checks out."""
    process = repo.config(f"filter.{name}.process")
    return bool(process) or repo.config(f"filter.{name}.smudge") not in (None, "", "cat")


def _listed(paths: list[str]) -> str:
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return ", ".join(paths[:3]) + more


def _links(whole: Part) -> dict[str, str]:
    """Return the symbolic links of a checkout with their targets, those of submodules included."""
    found: dict[str, str] = {}
    for prefix, part in whole.all():
        links = {path: e.oid for path, e in part.files.items() if e.mode == SYMLINK}
        targets = part.repo.blobs(links.values())
        found |= {prefix + path: os.fsdecode(targets[oid]) for path, oid in links.items()}
    return found
