"""Reads `mtf.yaml`, at a commit or on disk; on disk, the file also marks a project's root."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from mtf.errors import RepositoryError, SpecError
from mtf.spec.schema.settings import Settings, parse_settings
from mtf.spec.yaml.reader import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mtf.core.vocabulary.ids import CommitId
    from mtf.errors import Problem
    from mtf.git.repo import GitRepo

SETTINGS = "mtf.yaml"
_USUAL_BYTES = 16_384  # of a file; room for the largest is not made for each


def settings_at(repo: GitRepo, commit: CommitId) -> Settings:
    """Return the settings at a commit; the defaults if the commit has no settings file.

    Raises:
        SpecError: the settings contain mistakes.
    """
    return parse_settings(repo.read(commit, SETTINGS, MAX_BYTES + 1), SETTINGS)


def settings_or_defaults(
    raw: bytes | None, path: str = SETTINGS
) -> tuple[Settings, tuple[Problem, ...]]:
    """Return the settings in a file; if they contain mistakes, the defaults and the mistakes."""
    try:
        return parse_settings(raw, path), ()
    except SpecError as e:
        return Settings(), tuple(e.problems)


def settings_on_disk(root: Path, where: Path) -> tuple[Settings, tuple[Problem, ...]]:
    """Return a project's settings on disk and their mistakes, with paths relative to ``where``."""
    path = root / SETTINGS
    return settings_or_defaults(first_bytes(path) if path.is_file() else None, shown(path, where))


def first_bytes(path: os.PathLike[str]) -> bytes:
    """Return a file's content; of a file that is too large to be read, more than is allowed."""
    with open(path, "rb") as file:  # noqa: PTH123  # a thousand paths take longer than the reading
        raw = file.read(_USUAL_BYTES)
        return raw if len(raw) < _USUAL_BYTES else raw + file.read(MAX_BYTES + 1 - len(raw))


def project_root(where: Path) -> Path:
    """Return the root of the project that contains ``where``; outside of one, ``where``."""
    return _root_above(where) or where.absolute()


def required_root(where: Path) -> Path:
    """Return the root of the project that contains ``where``.

    Raises:
        RepositoryError: there is no project.
    """
    root = _root_above(where)
    if root is None:
        raise RepositoryError(
            f"{where.absolute()}: not in a git repository, and no {SETTINGS} here or above."
            " Run mtf init to make an experiments repository, or name one: mtf -C FOLDER ..."
        )
    return root


def _root_above(where: Path) -> Path | None:
    """Return the nearest folder, from ``where`` up, with a settings file or a ``.git``."""
    for folder in (where.absolute(), *where.absolute().parents):
        if (folder / SETTINGS).is_file() or (folder / ".git").exists():
            return folder
    return None


def projects_below(where: Path) -> list[str]:
    """Return the folders with a settings file one or two levels below ``where``."""
    found = [*where.glob(f"*/{SETTINGS}"), *where.glob(f"*/*/{SETTINGS}")]
    return sorted(shown(path.parent, where) for path in found)


def outside(folders: Sequence[str]) -> str:
    """Return the error for a command outside of the projects, which are in these folders."""
    return (
        f"no {SETTINGS} here or above, and one in {', '.join(folders)}."
        f" Work there: cd {folders[0]}, or mtf -C {folders[0]} ..."
    )


def top_of(where: Path) -> Path:
    """Return the top of the repository that contains ``where``; outside of one, ``where``."""
    where = where.absolute()
    tops = (folder for folder in (where, *where.parents) if (folder / ".git").exists())
    return next(tops, where)


def folder_in_repository(where: Path) -> str:
    """Return a folder's path from the top of its repository, "" at the top and outside of one."""
    return where.absolute().relative_to(top_of(where)).as_posix().removeprefix(".")


def shown(path: os.PathLike[str], where: Path) -> str:
    """Return a path as messages show it: relative to the folder that the user is in."""
    return Path(os.path.relpath(path, where)).as_posix()
