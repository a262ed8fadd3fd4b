"""Installs the git hooks: small shell stubs that call the mtf which installed them."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

from mtf.errors import MtfError
from mtf.resources import data_dir

if TYPE_CHECKING:
    from pathlib import Path

    from mtf.gitrepo import GitRepo

_MARK = "# installed by mtf hooks install"
_STUB = """#!/bin/sh
{mark}
if [ -x "$0.legacy" ]; then "$0.legacy" "$@" || exit $?; fi
if [ -x {python} ]; then exec {python} -I -m mtf.cli {arguments}; fi
if command -v mtf >/dev/null 2>&1; then exec mtf {arguments}; fi
echo "{name}: mtf is not there any more. Run: mtf hooks install (or delete $0)" >&2
exit 1
"""
_ARGUMENTS = {"pre-commit": "validate --staged"}


def install(repo: GitRepo) -> list[Path]:
    """Install the hooks and return their files. A hook that is there goes on running, first.

    Raises:
        MtfError: core.hooksPath hands the hooks to another tool, or the folder is read-only.
    """
    shared = repo.config("core.hooksPath")
    if shared is not None:
        lines = "\n".join(f"  mtf {arguments}   # in {n}" for n, arguments in _ARGUMENTS.items())
        raise MtfError(
            f"core.hooksPath is {shared!r}: another tool keeps this repository's hooks."
            f" Add to them:\n{lines}"
        )
    folder = repo.git_path("hooks")
    try:
        folder.mkdir(exist_ok=True)
        return [_install(folder / name) for name in _ARGUMENTS]
    except OSError as e:
        raise MtfError(f"{e.filename}: {e.strerror}. The hooks folder must be writable") from e


def _install(path: Path) -> Path:
    if path.exists() and _MARK not in path.read_text(encoding="utf-8", errors="replace"):
        path.rename(path.with_name(path.name + ".legacy"))
    text = _STUB.format(
        mark=_MARK,
        python=shlex.quote(sys.executable),
        arguments=_ARGUMENTS[path.name],
        name=path.name,
    )
    path.write_text(text, encoding="utf-8", newline="\n")
    path.chmod(path.stat().st_mode | 0o111)
    return path


def has_hooks(repo: GitRepo) -> bool:
    """Return whether our hooks are in place, or another tool keeps this repository's hooks."""
    folder = repo.git_path("hooks")
    texts = [
        p.read_text(encoding="utf-8", errors="replace")
        for n in _ARGUMENTS
        if (p := folder / n).exists()
    ]
    ours = len(texts) == len(_ARGUMENTS) and all("mtf" in text for text in texts)
    return ours or repo.config("core.hooksPath") is not None


def uninstall(repo: GitRepo) -> list[Path]:
    """Remove our hooks, put back those that were there before; return what was removed."""
    removed = []
    for name in _ARGUMENTS:
        path = repo.git_path("hooks") / name
        if path.exists() and _MARK in path.read_text(encoding="utf-8", errors="replace"):
            path.unlink()
            removed.append(path)
            legacy = path.with_name(path.name + ".legacy")
            if legacy.exists():
                legacy.rename(path)
    return removed


def shipped_hooks() -> list[Path]:
    """Return the hook scripts that a scaffolded repository gets a copy of."""
    return sorted(p for p in data_dir("hooks").iterdir() if p.is_file())
