"""Installs and removes the git hooks: small shell stubs that call the mtf they came from."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mtf import proc
from mtf.errors import MtfError
from mtf.packaged_files import data_dir

if TYPE_CHECKING:
    from mtf.git.repo import GitRepo

CLIENT = ("pre-commit", "pre-push")
SERVER = ("pre-receive",)
_MARK = "# installed by mtf hooks install"
_STUB = """#!/bin/sh
{mark}
{given}
if [ -x "$0.legacy" ]; then given | "$0.legacy" "$@" || exit $?; fi
set -- hooks run {name} "$@"
{own_python}if command -v mtf >/dev/null 2>&1; then given | mtf "$@"; exit $?; fi
echo "error: {name} hook: mtf was not found. Run mtf hooks install, or delete $0" >&2
exit 1
"""
_OWN_PYTHON = 'if [ -x {python} ]; then given | {python} {flags} -m mtf.cli "$@"; exit $?; fi\n'
_NOTHING = "given() { :; }"
_REFS = """refs=$(cat)  # read by both the hook that was here before and mtf
given() { [ -z "$refs" ] || printf '%s\\n' "$refs"; }"""


def install(repo: GitRepo) -> list[Path]:
    """Install the hooks and return their paths.

    A clone gets the client hooks, a bare repository (a server) the server hook. An existing hook is
    kept as ``<name>.legacy`` and runs first.

    Raises:
        MtfError: core.hooksPath belongs to another tool, or the folder is read-only.
    """
    names = SERVER if repo.root == repo.common_dir else CLIENT
    folder = _folder(repo, names)
    # hooks in the work tree may be committed, and other clones do not have this interpreter
    is_private = folder.is_relative_to(repo.common_dir)
    own_python = ""
    if is_private:
        own_python = _OWN_PYTHON.format(python=shlex.quote(sys.executable), flags=_flags())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [_install(folder / name, own_python) for name in names]
    except OSError as e:
        raise MtfError(f"cannot write {e.filename}: {e.strerror}. Make the folder writable") from e


def _folder(repo: GitRepo, names: tuple[str, ...]) -> Path:
    shared = _shared_folder(repo)
    if shared is None:
        return repo.common_dir / "hooks"
    is_inside = any(shared.is_relative_to(p.resolve()) for p in (repo.root, repo.common_dir))
    if is_inside and shared.name != "_":  # husky overwrites .husky/_ each time it starts
        return shared
    lines = "\n".join(f'  mtf hooks run {name} "$@"   # in {name}' for name in names)
    raise MtfError(
        f"core.hooksPath is {repo.config('core.hooksPath')!r}: another tool manages this"
        f" repository's hooks. Add these lines to its hooks:\n{lines}"
    )


def _shared_folder(repo: GitRepo) -> Path | None:
    """Return the folder of core.hooksPath, which is relative to the top of the work tree."""
    shared = repo.config("core.hooksPath")
    return (repo.root / Path(shared).expanduser()).resolve() if shared else None


def _flags() -> str:
    """Return the Python option that keeps the repository's files from shadowing modules.

    ``-I`` also hides packages installed with ``pip install --user``, of which mtf may be one.
    """
    isolated = proc.run((sys.executable, "-I", "-c", "import mtf"), timeout_s=60, cwd=Path("/"))
    return "-I" if isolated.code == 0 else "-P"


def _install(path: Path, own_python: str) -> Path:
    if not _is_ours(path) and (path.exists() or path.is_symlink()):
        legacy = _legacy(path)
        if legacy.exists():
            raise MtfError(f"{path} and {legacy} both exist. Merge them into one, then try again")
        path.rename(legacy)
    given = _NOTHING if path.name == "pre-commit" else _REFS
    text = _STUB.format(mark=_MARK, given=given, own_python=own_python, name=path.name)
    path.write_text(text, encoding="utf-8", newline="\n")
    path.chmod(path.stat().st_mode | 0o111)
    return path


def has_hooks(repo: GitRepo) -> bool:
    """Return True if mtf's hooks are installed, or another tool manages this repository's hooks."""
    shared = _shared_folder(repo)
    if shared is not None:
        return True
    names = SERVER if repo.root == repo.common_dir else CLIENT
    return all(_is_ours(repo.common_dir / "hooks" / name) for name in names)


def uninstall(repo: GitRepo) -> list[Path]:
    """Remove mtf's hooks, restore those that were there before, and return the removed paths."""
    folders = [repo.common_dir / "hooks", _shared_folder(repo)]
    ours = [f / name for f in folders if f for name in (*CLIENT, *SERVER) if _is_ours(f / name)]
    for path in dict.fromkeys(ours):
        path.unlink()
        if _legacy(path).exists():
            _legacy(path).rename(path)
    return list(dict.fromkeys(ours))


def _is_ours(path: Path) -> bool:
    return path.is_file() and _MARK in path.read_text(encoding="utf-8", errors="replace")


def _legacy(path: Path) -> Path:
    return path.with_name(path.name + ".legacy")


def shipped_hooks() -> list[Path]:
    """Return the hook scripts that `mtf init` copies into a repository."""
    return sorted(p for p in data_dir("hooks").iterdir() if p.is_file())
