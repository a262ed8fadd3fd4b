"""Opens the files of a commit, the index or a folder for the checks of the code that specs name."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Literal

from mtf.core.vocabulary.git_tree_ids import GITLINK
from mtf.core.vocabulary.ids import CommitId
from mtf.project.settings_file import folder_in_repository, top_of
from mtf.spec.named_code.source_files import EntryKind, SourceFiles

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mtf.git.repo import GitRepo

_KINDS = {
    "100644": EntryKind.FILE,
    "100755": EntryKind.FILE,
    "100664": EntryKind.FILE,  # as git wrote it before version 1.0
    "040000": EntryKind.FOLDER,
    "160000": EntryKind.SUBMODULE,
}


def files_at(repo: GitRepo, commit: CommitId) -> SourceFiles:
    """Return the files of a commit; the work tree is never looked at."""
    roots, repo = _import_folders(repo.prefix.rstrip("/")), repo.whole
    submodules = _Submodules(repo, commit)

    def folder(path: str) -> Mapping[str, EntryKind]:
        entries = repo.folder(commit, path)
        submodules.note(path, {name: e.oid for name, e in entries.items() if e.mode == GITLINK})
        kinds = {name: _KINDS.get(e.mode, EntryKind.OTHER) for name, e in entries.items()}
        return kinds or submodules.folder(path)

    def read(path: str, most: int) -> bytes | None:
        found = repo.read(commit, path, most)
        return submodules.read(path, most) if found is None else found

    return SourceFiles(folder, read, roots)


class _Submodules:
    """The files of submodules, as far as the clone has them; nothing is fetched."""

    def __init__(self, repo: GitRepo, commit: CommitId | Literal[""]) -> None:
        """Take the repository, and the commit; "" stands for the index."""
        self._repo, self._commit = repo, commit
        self._pinned: dict[str, CommitId] = {}  # by path
        self._opened: dict[str, SourceFiles | None] = {}

    def note(self, folder: str, pinned: Mapping[str, str]) -> None:
        """Note the commits of the submodules in a folder."""
        for name, commit in pinned.items():
            self._pinned[f"{folder}/{name}" if folder else name] = CommitId(commit)

    def folder(self, path: str) -> Mapping[str, EntryKind]:
        """Return the entries of a folder in a submodule, none if there is no such folder."""
        files, inside = self._files(path)
        return files.folder(inside) if files else {}

    def read(self, path: str, most: int) -> bytes | None:
        """Return at most ``most`` bytes of a file in a submodule, None if there is no such file."""
        files, inside = self._files(path)
        return files.read_file(inside, most) if files else None

    def _files(self, path: str) -> tuple[SourceFiles | None, str]:
        """Return the files of the submodule that a path is in, and the path within it."""
        around = [place for place in self._pinned if path == place or path.startswith(f"{place}/")]
        if not around:
            return None, ""
        place = max(around, key=len)
        if place not in self._opened:
            self._opened[place] = self._open(place)
        return self._opened[place], path[len(place) + 1 :]

    def _open(self, place: str) -> SourceFiles | None:
        from mtf.git.submodules import find_submodule, submodules_of  # late: few specs need them

        known = submodules_of(self._repo, self._commit).get(place)
        pinned = self._pinned[place]
        repo = find_submodule(self._repo, known, pinned) if known and known.is_wanted else None
        return files_at(repo, pinned) if repo else None


def files_in_index(repo: GitRepo) -> SourceFiles:
    """Return the files as they are staged."""
    roots, repo = _import_folders(repo.prefix.rstrip("/")), repo.whole

    submodules = _Submodules(repo, "")

    @cache
    def staged() -> tuple[dict[str, dict[str, EntryKind]], dict[str, str]]:
        folders: dict[str, dict[str, EntryKind]] = {}
        ids = {}
        for path, entry in repo.index("").items():
            ids[path] = entry.oid
            above, _, name = path.rpartition("/")
            folders.setdefault(above, {})[name] = _KINDS.get(entry.mode, EntryKind.OTHER)
            if entry.mode == GITLINK:
                submodules.note(above, {name: entry.oid})
            while above:
                above, _, name = above.rpartition("/")
                folders.setdefault(above, {})[name] = EntryKind.FOLDER
        return folders, ids

    def read(path: str, most: int) -> bytes | None:
        oid = staged()[1].get(path)
        return submodules.read(path, most) if oid is None else repo.blobs([oid], most)[oid]

    return SourceFiles(lambda path: staged()[0].get(path) or submodules.folder(path), read, roots)


def _import_folders(folder: str) -> tuple[str, ...]:
    """Return the folders that jobs of a project import code from, in their order."""
    if not folder:
        return ("", "src")
    from mtf.core.vocabulary.jobs import import_folders  # late: 1 % of a short command's time

    return import_folders(folder)


def files_on_disk(root: Path) -> SourceFiles:
    """Return the files of a project's repository, or of a folder outside of one; needs no git."""
    top = top_of(root)
    roots = _import_folders(folder_in_repository(root))

    def folder(path: str) -> Mapping[str, EntryKind]:
        try:
            with os.scandir(top / path) as entries:
                return {entry.name: _kind(entry) for entry in entries}
        except OSError:
            return {}

    def read(path: str, most: int) -> bytes | None:
        try:
            with (top / path).open("rb") as file:
                return file.read(most)
        except OSError:
            return None

    return SourceFiles(folder, read, roots)


def _kind(entry: os.DirEntry[str]) -> EntryKind:
    if entry.is_symlink():
        return EntryKind.OTHER
    if entry.is_dir():
        return EntryKind.FOLDER
    return EntryKind.FILE if entry.is_file() else EntryKind.OTHER
