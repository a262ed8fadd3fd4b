"""Checks specs and settings wherever they stand: on disk, staged, or in a revision."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from mtf.core.ids import timestamp
from mtf.errors import MtfError, Problem, SpecError
from mtf.spec.load import is_spec, load_one, load_specs
from mtf.spec.settings import Settings, parse_settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_SETTINGS = "mtf.yaml"


@dataclass(frozen=True)
class Checked:
    """How many files were looked at, and every mistake in them."""

    files: int
    problems: tuple[Problem, ...]


def on_disk(where: Path, wanted: Sequence[Path]) -> Checked:
    """Check files as they are on disk; all specs and the settings when none is named.

    Needs no git: paths are shown as they were given.

    Raises:
        MtfError: a named file does not exist.
    """
    root = _project_root(where)
    found = _read_settings(root / _SETTINGS, where)
    settings, problems = found
    folder = root / settings.experiments
    if not wanted:
        files = _read_folder(folder, where)
        loaded = load_specs(files, settings, _stamp())
        number = sum(map(is_spec, files)) + (root / _SETTINGS).is_file()
        return Checked(number, tuple(sorted({*problems, *loaded.problems})))
    paths = [p for w in wanted for p in _spec_paths(where / w)]
    texts = _read_folder(folder, where)
    for parent in {p.parent for p in paths}:
        texts |= _read_folder(parent, where)
    chosen = [_shown(p, where) for p in paths]
    return _check(chosen, texts, settings, problems)


def staged(where: Path) -> Checked:
    """Check what the next commit adds or changes, as it is staged; what else is there is context.

    Meant for the pre-commit hook: git's own environment (its index above all) is kept.
    """
    from mtf.commands.desired import spec_files
    from mtf.gitrepo import GitRepo

    repo = GitRepo(where, inherit=True)
    raw = repo.index(_SETTINGS).get(_SETTINGS)
    settings, problems = _parsed(repo.blobs([raw.oid])[raw.oid] if raw else None)
    changed = repo.staged(settings.experiments)
    chosen = [p for p in changed if is_spec(p)]
    if not chosen:
        return Checked(int(raw is not None), problems)
    texts, irregular = spec_files(repo, repo.index(settings.experiments))
    return _check(chosen, texts, settings, (*problems, *irregular))


def revision(where: Path, rev: str) -> Checked:
    """Check all that a revision holds.

    Raises:
        RepositoryError: there is no such revision.
    """
    from mtf.commands.desired import spec_files
    from mtf.gitrepo import GitRepo

    repo = GitRepo(where)
    commit = repo.commit(rev)
    settings, problems = _parsed(repo.read(commit, _SETTINGS))
    texts, irregular = spec_files(repo, repo.files(commit, settings.experiments))
    loaded = load_specs(texts, settings, _stamp())
    specs = sum(map(is_spec, texts))
    return Checked(specs + 1, tuple(sorted({*problems, *irregular, *loaded.problems})))


def changed(where: Path, span: str) -> Checked:
    """Check the specs that differ between the ends of ``A..B``, as they are in B.

    Raises:
        MtfError: the range is not one.
    """
    from mtf.commands.desired import spec_files
    from mtf.gitrepo import GitRepo

    start, dots, end = span.partition("..")
    if not (start and dots and end) or end.startswith("."):
        raise MtfError(f"--range {span}: expected A..B, two revisions")
    repo = GitRepo(where)
    old, new = repo.commit(start), repo.commit(end)
    settings, problems = _parsed(repo.read(new, _SETTINGS))
    before, after = (repo.files(c, settings.experiments) for c in (old, new))
    texts, irregular = spec_files(repo, after)
    chosen = [p for p, entry in after.items() if is_spec(p) and before.get(p) != entry]
    return _check(chosen, texts, settings, (*problems, *irregular))


def _check(
    chosen: Sequence[str],
    texts: Mapping[str, bytes],
    settings: Settings,
    problems: Iterable[Problem],
) -> Checked:
    found = set(problems)
    for path in chosen:
        if PurePosixPath(path).name != _SETTINGS and path in texts:
            found.update(load_one(texts[path], path, texts, settings, _stamp()).problems)
    return Checked(len(chosen), tuple(sorted(found)))


def _parsed(raw: bytes | None, path: str = _SETTINGS) -> tuple[Settings, tuple[Problem, ...]]:
    """Return the settings; the defaults and the problems where they are wrong."""
    try:
        return parse_settings(raw, path), ()
    except SpecError as e:
        return Settings(), tuple(e.problems)


def _read_settings(path: Path, where: Path) -> tuple[Settings, tuple[Problem, ...]]:
    return _parsed(path.read_bytes() if path.is_file() else None, _shown(path, where))


def _project_root(where: Path) -> Path:
    for folder in (where.absolute(), *where.absolute().parents):
        if (folder / _SETTINGS).is_file() or (folder / ".git").exists():
            return folder
    return where.absolute()


def _spec_paths(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.is_file() and is_spec(p.name))
    if not path.is_file():
        raise MtfError(f"{path}: no such file")
    return [path]


def _read_folder(folder: Path, where: Path) -> dict[str, bytes]:
    if not folder.is_dir():
        return {}
    found = (p for p in folder.rglob("*") if is_spec(p.name) and p.is_file())
    return {_shown(p, where): p.read_bytes() for p in found}


def _shown(path: Path, where: Path) -> str:
    """Return a path as people expect it in a message: relative to where they are."""
    return Path(os.path.relpath(path, where)).as_posix()


def _stamp() -> str:
    return timestamp(datetime.now(UTC))
