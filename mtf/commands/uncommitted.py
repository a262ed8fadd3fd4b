"""Finds what is in the work tree and in no commit, and therefore in no run."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mtf.project.settings_file import SETTINGS
from mtf.project.template_files import FOLDER as TEMPLATES
from mtf.report.tables import count
from mtf.spec.compose.config_groups import FOLDER as GROUPS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from mtf.git.work_tree import ChangedPath
    from mtf.project.project import Project

_KINDS = ("spec", "settings file", "code file", "other file")
_SHOWN = 3  # paths of each kind
_LOOKED_AT = 2000  # files in one untracked folder
_YAML = (".yaml", ".yml")
_TEXTS = (".md", ".rst", ".txt")
# Untracked files that a run may need; others are data, results or notes.
_CODE = (
    *(".py", ".pyi", ".pyx", ".ipynb", ".sh", ".toml", ".cfg", ".j2", ".rs", ".jl"),
    *(".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".hpp"),
)
_NOT_OURS = frozenset({"__pycache__", "wandb", "node_modules"})  # folders of tools


@contextmanager
def noticing_uncommitted(project: Project) -> Iterator[Callable[[], list[str]]]:
    """Start to look for uncommitted files; return a function that returns the note on them.

    The look costs one `git status` beside the work that is done meanwhile.
    """
    with project.repo.uncommitted() as paths:

        def notes() -> list[str]:
            found = paths()
            if found is None:
                return ["git status takes long: whether all is committed was not looked at"]
            note = _note(project, found) if found else None
            return [note] if note else []

        yield notes


def _note(project: Project, changes: Iterable[ChangedPath]) -> str | None:
    """Return one note on specs, settings, code and other tracked files; None if there are none."""
    kinds: dict[str, list[str]] = {
        "spec": [],
        "settings file": [],
        "code file": [],
        "other file": [],
    }
    for change in changes:
        if kind := _kind(project, change):
            kinds[kind].append(change.path)
    parts = [
        f"{count(len(paths), kind)} ({_listed(paths)})" for kind, paths in kinds.items() if paths
    ]
    if not parts:
        return None
    return f"not committed, so no run will have it: {', '.join(parts)}. Commit what runs need"


def _listed(paths: list[str]) -> str:
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return f"{', '.join(paths[:_SHOWN])}{more}"


def _kind(project: Project, change: ChangedPath) -> str | None:
    """Return the kind of a changed path, None if no run depends on it."""
    prefix = project.repo.prefix
    path = change.path.removeprefix(prefix) if change.path.startswith(prefix) else f"/{change.path}"
    if not change.path.endswith("/"):
        return _kind_of_file(project, path, is_tracked=change.is_tracked)
    folder = project.repo.root / change.path
    if project.runs_root in (folder, *folder.parents) or _is_of_a_tool(folder.name):
        return None
    kinds = {_kind_of_file(project, path + name, is_tracked=False) for name in _files_below(folder)}
    return next((kind for kind in _KINDS if kind in kinds), None)


def _kind_of_file(project: Project, path: str, *, is_tracked: bool) -> str | None:
    if path == SETTINGS or path.startswith(f"{TEMPLATES}/"):
        return "settings file"
    if path.endswith(_YAML) and path.startswith((f"{project.settings.experiments}/", f"{GROUPS}/")):
        return "spec"
    if path.endswith(_CODE):
        return "code file"
    return "other file" if is_tracked and not path.endswith(_TEXTS) else None


def _is_of_a_tool(name: str) -> bool:
    """Return True if a folder of this name holds no code of the project."""
    return name in _NOT_OURS or name.startswith(".")


def _files_below(folder: Path) -> Iterator[str]:
    """Yield files of an untracked folder, relative to it; not those of tools, and not very many."""
    found = 0
    for place, folders, files in os.walk(folder):
        if "pyvenv.cfg" in files:
            folders.clear()
            continue
        folders[:] = [name for name in folders if not _is_of_a_tool(name)]
        for name in files:
            yield os.path.relpath(f"{place}/{name}", folder)
            found += 1
            if found == _LOOKED_AT:
                return
