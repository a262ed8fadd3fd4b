"""Finds what is in the work tree and in no commit, and pins it as a snapshot where it is asked for.

A run has the code of a commit. Somebody who starts one at once means the code that is on disk: that
is HEAD's, or there is a snapshot, or nothing is started.
"""

from __future__ import annotations

import os
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtf.errors import MtfError, RepositoryError
from mtf.project.settings_file import SETTINGS
from mtf.project.signatures import CONFIG, is_signature_required
from mtf.project.template_files import FOLDER as TEMPLATES
from mtf.report.tables import count
from mtf.spec.compose.config_groups import FOLDER as GROUPS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from mtf.core.vocabulary.ids import CommitId
    from mtf.git.work_tree import ChangedPath
    from mtf.ledger.store import Ledger
    from mtf.project.project import Project
    from mtf.spec.schema.policies import Policies

_KINDS = ("spec", "settings file", "code file", "other file")
_SHOWN = 3  # paths of each kind
_NAMED = 10  # paths of each kind where nothing is started because of them
_MOST_BYTES = 10 << 20  # of one file of a snapshot
_MOST_BYTES_IN_ALL = 100 << 20
_MOST_FILES = 5000
_LOOKED_AT = 2000  # files in one untracked folder
_YAML = (".yaml", ".yml")
_NOTEBOOK = ".ipynb"  # changes while it runs, and no job can import it
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


@dataclass(frozen=True)
class Pin:
    """The commit that runs which are asked for at once are pinned to."""

    commit: CommitId
    snapshot_of: CommitId | None = None  # the commit on which it is a snapshot of the work tree


def pin_work_tree(project: Project, *, snapshot: bool, cure: str = "snapshot=True") -> Pin:
    """Return HEAD if the work tree is as committed there, else a snapshot if it is asked for.

    Nothing in the repository moves: HEAD, index and work tree stay as they are.

    Args:
        project: the opened repository.
        snapshot: make a commit of the work tree if it differs from HEAD.
        cure: what asks for a snapshot, for the message of the refusal.

    Raises:
        MtfError: something that runs may need is not committed; or a snapshot cannot have it.
    """
    repo = project.repo
    head = repo.commit("HEAD")
    if not snapshot:
        needed = (c for c in repo.all_changes() if not c.path.endswith(_NOTEBOOK))
        kinds = _by_kind(project, needed)
        if parts := _parts(kinds, _NAMED):
            raise MtfError(
                f"not committed, so the run would not have it: {parts}. Commit it, or pin the work"
                f" tree as it is: {cure}"
            )
        return Pin(head)
    left_out = _runs_folder(project)
    changes = repo.all_changes(each_file=True)
    _check_snapshot(project, [c for c in changes if not _is_below(c.path, left_out)])
    commit = repo.commit_work_tree(left_out)
    return Pin(commit, None if commit == head else head)


def _runs_folder(project: Project) -> list[str]:
    """Return the folder of the runs relative to the work tree, if it is in there."""
    root = project.repo.root
    inside = root in project.runs_root.parents
    return [project.runs_root.relative_to(root).as_posix()] if inside else []


def _is_below(path: str, folders: Iterable[str]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


def _check_snapshot(project: Project, changes: Sequence[ChangedPath]) -> None:
    """Refuse a snapshot of what a commit cannot hold, or of what nobody wants in the repository.

    Raises:
        MtfError: with the paths, and what to do.
    """
    if unmerged := [c.path for c in changes if c.is_unmerged]:
        raise MtfError(f"{_listed(unmerged)}: unmerged. Resolve the conflicts, then git add them")
    if others := [c.path.rstrip("/") for c in changes if c.is_repository]:
        raise MtfError(
            f"{_listed(others)}: a snapshot cannot have the changes of another repository. Commit"
            " and push them there, then git add it here; or name it in .gitignore"
        )
    sizes = {c.path: _size(project.repo.root / c.path) for c in changes}
    large = sorted((p for p, size in sizes.items() if size > _MOST_BYTES), key=lambda p: -sizes[p])
    cure = "Name data in .gitignore, or commit what runs need yourself (large files with Git LFS)"
    if large:
        named = [f"{path} ({sizes[path] >> 20} MiB)" for path in large]
        raise MtfError(
            f"{_listed(named)}: larger than {_MOST_BYTES >> 20} MiB, too large for a snapshot,"
            f" which is pushed like any commit. {cure}"
        )
    if len(sizes) > _MOST_FILES or sum(sizes.values()) > _MOST_BYTES_IN_ALL:
        folders = Counter(path.rpartition("/")[0] or "." for path in sizes)
        most = ", ".join(f"{folder} ({n})" for folder, n in folders.most_common(_SHOWN))
        raise MtfError(
            f"a snapshot would have {len(sizes):,} new or changed files with"
            f" {sum(sizes.values()) >> 20} MiB; at most {_MOST_FILES:,} and"
            f" {_MOST_BYTES_IN_ALL >> 20} MiB fit. Most are in {most}. {cure}"
        )


def _size(path: Path) -> int:
    """Return the size of a file in bytes, 0 if it is gone."""
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def check_snapshot_allowed(project: Project, pin: Pin, policies: Policies, ledger: Ledger) -> None:
    """Refuse a snapshot where only reviewed or signed commits may run.

    Args:
        project: the opened repository.
        pin: what the runs are to be pinned to.
        policies: those in force, of the tracked branch.
        ledger: with the runs so far.

    Raises:
        RepositoryError: it must not run.
    """
    if pin.snapshot_of is None:
        return
    rule = None
    if policies.branches is not None:
        rule = f"`policies.branches` in {SETTINGS} allows reviewed branches alone"
    elif is_signature_required(project.repo, pin.commit, policies, ledger.runs.values()):
        rule = f"only signed commits may run (`policies.require_signed`, or git config {CONFIG})"
    if rule:
        raise RepositoryError(
            f"a snapshot of the work tree is unsigned and nobody has reviewed it, and {rule}."
            " Commit the changes, let them be reviewed, and run mtf sync"
        )


def _note(project: Project, changes: Iterable[ChangedPath]) -> str | None:
    """Return one note on specs, settings, code and other tracked files; None if there are none."""
    if not (parts := _parts(_by_kind(project, changes), _SHOWN)):
        return None
    return f"not committed, so no run will have it: {parts}. Commit what runs need"


def _by_kind(project: Project, changes: Iterable[ChangedPath]) -> dict[str, list[str]]:
    """Return the changed paths that runs may depend on, by their kind."""
    kinds: dict[str, list[str]] = {
        "spec": [],
        "settings file": [],
        "code file": [],
        "other file": [],
    }
    for change in changes:
        if kind := _kind(project, change):
            kinds[kind].append(change.path)
    return kinds


def _parts(kinds: Mapping[str, list[str]], shown: int) -> str:
    """Return the paths of each kind, at most ``shown`` of them, for people."""
    return ", ".join(
        f"{count(len(paths), kind)} ({_listed(paths, shown)})"
        for kind, paths in kinds.items()
        if paths
    )


def _listed(paths: Sequence[str], shown: int = _SHOWN) -> str:
    more = f" and {len(paths) - shown} more" if len(paths) > shown else ""
    return f"{', '.join(paths[:shown])}{more}"


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
