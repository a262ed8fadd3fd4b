"""Opens the files of a commit, the index or a folder for the checks of the code that specs name."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

from mtf.project.settings_file import folder_in_repository, top_of
from mtf.spec.named_code.source_files import EntryKind, SourceFiles

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mtf.core.vocabulary.ids import CommitId
    from mtf.git.repo import GitRepo

_KINDS = {
    "100644": EntryKind.FILE,
    "100755": EntryKind.FILE,
    "100664": EntryKind.FILE,  # as git wrote it before version 1.0
    "040000": EntryKind.FOLDER,
}


def files_at(repo: GitRepo, commit: CommitId) -> SourceFiles:
    """Return the files of a commit; the work tree is never looked at."""
    roots, repo = _import_folders(repo.prefix.rstrip("/")), repo.whole

    def folder(path: str) -> dict[str, EntryKind]:
        entries = repo.folder(commit, path)
        return {name: _KINDS.get(entry.mode, EntryKind.OTHER) for name, entry in entries.items()}

    return SourceFiles(folder, lambda path, most: repo.read(commit, path, most), roots)


def files_in_index(repo: GitRepo) -> SourceFiles:
    """Return the files as they are staged."""
    roots, repo = _import_folders(repo.prefix.rstrip("/")), repo.whole

    @cache
    def staged() -> tuple[dict[str, dict[str, EntryKind]], dict[str, str]]:
        folders: dict[str, dict[str, EntryKind]] = {}
        ids = {}
        for path, entry in repo.index("").items():
            ids[path] = entry.oid
            above, _, name = path.rpartition("/")
            folders.setdefault(above, {})[name] = _KINDS.get(entry.mode, EntryKind.OTHER)
            while above:
                above, _, name = above.rpartition("/")
                folders.setdefault(above, {})[name] = EntryKind.FOLDER
        return folders, ids

    def read(path: str, most: int) -> bytes | None:
        oid = staged()[1].get(path)
        return None if oid is None else repo.blobs([oid], most)[oid]

    return SourceFiles(lambda path: staged()[0].get(path, {}), read, roots)


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
