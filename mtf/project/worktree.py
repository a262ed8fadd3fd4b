"""Specs and settings as they stand in the work tree, with no git: for checks before a commit."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from mtf.core.vocabulary.ids import timestamp
from mtf.errors import Problem, SpecError
from mtf.spec.compose.config_groups import FOLDER, Groups
from mtf.spec.load import is_spec
from mtf.spec.schema.settings import Settings, parse_settings

SETTINGS = "mtf.yaml"


def parsed(raw: bytes | None, path: str = SETTINGS) -> tuple[Settings, tuple[Problem, ...]]:
    """Return the settings; the defaults and the problems where they are wrong."""
    try:
        return parse_settings(raw, path), ()
    except SpecError as e:
        return Settings(), tuple(e.problems)


def read_settings(path: Path, where: Path) -> tuple[Settings, tuple[Problem, ...]]:
    """Return the settings in a file, which need not be there, and what is wrong with them."""
    return parsed(path.read_bytes() if path.is_file() else None, shown(path, where))


def project_root(where: Path) -> Path:
    """Return the folder of the settings or of git that holds a folder, else the folder itself."""
    for folder in (where.absolute(), *where.absolute().parents):
        if (folder / SETTINGS).is_file() or (folder / ".git").exists():
            return folder
    return where.absolute()


def read_folder(folder: Path, where: Path) -> dict[str, bytes]:
    """Return the specs in a folder, if it is there, by their paths as people expect them."""
    if not folder.is_dir():
        return {}
    found = (p for p in folder.rglob("*") if is_spec(p.name) and p.is_file() and not p.is_symlink())
    return {shown(p, where): p.read_bytes() for p in found}


def groups_on_disk(root: Path, where: Path) -> Groups:
    """Return the config groups of a repository as they stand on disk."""
    folder = root / FOLDER
    return Groups(lambda: read_folder(folder, where), shown(folder, where))


def linked(folder: Path, where: Path) -> list[Problem]:
    """Return a problem for each spec in a folder that is a link: none is followed anywhere."""
    links = (p for p in folder.rglob("*") if is_spec(p.name) and p.is_symlink())
    message = "a symbolic link: a spec must be a file"
    return [Problem(shown(p, where), 1, 1, message) for p in links]


def shown(path: Path, where: Path) -> str:
    """Return a path as people expect it in a message: relative to where they are."""
    return Path(os.path.relpath(path, where)).as_posix()


def stamp() -> str:
    """Return the time of now as submissions carry it."""
    return timestamp(datetime.now(UTC))
