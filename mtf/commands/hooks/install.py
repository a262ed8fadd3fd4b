"""Installs the git hooks: small shell stubs that call the mtf which installed them."""

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
{here}if command -v mtf >/dev/null 2>&1; then given | mtf "$@"; exit $?; fi
echo "{name}: mtf is not there any more. Run: mtf hooks install (or delete $0)" >&2
exit 1
"""
_HERE = 'if [ -x {python} ]; then given | {python} {flags} -m mtf.cli "$@"; exit $?; fi\n'
_NOTHING = "given() { :; }"
_REFS = """refs=$(cat)  # for two readers: the hook that was here before, and mtf
given() { [ -z "$refs" ] || printf '%s\\n' "$refs"; }"""


def install(repo: GitRepo) -> list[Path]:
    """Install the hooks and return their files. A hook that is there goes on running, first.

    A bare repository is a server: it gets the hook that guards it.

    Raises:
        MtfError: core.hooksPath hands the hooks to another tool, or the folder is read-only.
    """
    names = SERVER if repo.root == repo.common_dir else CLIENT
    folder = _folder(repo, names)
    # what is in the work tree is committed, and there is no such interpreter elsewhere
    is_own = folder.is_relative_to(repo.common_dir)
    here = _HERE.format(python=shlex.quote(sys.executable), flags=_flags()) if is_own else ""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [_install(folder / name, here) for name in names]
    except OSError as e:
        raise MtfError(f"{e.filename}: {e.strerror}. The hooks folder must be writable") from e


def _folder(repo: GitRepo, names: tuple[str, ...]) -> Path:
    shared = _shared_folder(repo)
    if shared is None:
        return repo.common_dir / "hooks"
    is_here = any(shared.is_relative_to(p.resolve()) for p in (repo.root, repo.common_dir))
    if is_here and shared.name != "_":  # husky writes .husky/_ anew at each of its starts
        return shared
    lines = "\n".join(f'  mtf hooks run {name} "$@"   # in {name}' for name in names)
    raise MtfError(
        f"core.hooksPath is {repo.config('core.hooksPath')!r}: another tool keeps this"
        f" repository's hooks. Add to them:\n{lines}"
    )


def _shared_folder(repo: GitRepo) -> Path | None:
    """Return where core.hooksPath sends git, which takes it from the top of the work tree."""
    shared = repo.config("core.hooksPath")
    return (repo.root / Path(shared).expanduser()).resolve() if shared else None


def _flags() -> str:
    """Return what keeps the repository's files from shadowing modules of Python.

    ``-I`` also shuts out packages installed with ``pip install --user``; mtf may be one.
    """
    alone = proc.run((sys.executable, "-I", "-c", "import mtf"), timeout_s=60, cwd=Path("/"))
    return "-I" if alone.code == 0 else "-P"


def _install(path: Path, here: str) -> Path:
    if not _is_ours(path) and (path.exists() or path.is_symlink()):
        legacy = _legacy(path)
        if legacy.exists():
            raise MtfError(f"{path} and {legacy} are both hooks. Make one of them, then try again")
        path.rename(legacy)
    given = _NOTHING if path.name == "pre-commit" else _REFS
    text = _STUB.format(mark=_MARK, given=given, here=here, name=path.name)
    path.write_text(text, encoding="utf-8", newline="\n")
    path.chmod(path.stat().st_mode | 0o111)
    return path


def has_hooks(repo: GitRepo) -> bool:
    """Return whether our hooks are in place, or another tool keeps this repository's hooks."""
    shared = _shared_folder(repo)
    if shared is not None:
        return True
    names = SERVER if repo.root == repo.common_dir else CLIENT
    return all(_is_ours(repo.common_dir / "hooks" / name) for name in names)


def uninstall(repo: GitRepo) -> list[Path]:
    """Remove our hooks, put back those that were there before; return what was removed."""
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
    """Return the hook scripts that a scaffolded repository gets a copy of."""
    return sorted(p for p in data_dir("hooks").iterdir() if p.is_file())
