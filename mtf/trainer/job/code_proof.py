"""Prove that the checkout is the pinned commit and that imported modules come from it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mtf.core.vocabulary import git_tree_ids, json_text
from mtf.core.vocabulary.jobs import import_folders
from mtf.errors import MtfError
from mtf.trainer.runtime.machine_facts import machine_facts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mtf.spec.schema.run_config import RunInfo

_INSTALLED = frozenset({"site-packages", "dist-packages"})


class RefusedError(MtfError):
    """The code that would run is not the pinned code."""


@dataclass(frozen=True)
class Pinned:
    """A checkout whose files are proved to be those of its commit.

    Attributes:
        folder: the checkout, resolved.
        repository: the live work tree, resolved; no module may come from it.
        import_folders: the folders of the checkout that code is imported from.
    """

    folder: Path
    repository: Path
    commit: str
    tree: str
    files: frozenset[str]
    import_folders: tuple[str, ...] = import_folders("")  # of the checkout


def prove_checkout(info: RunInfo) -> Pinned:
    """Hash every file of the checkout against the commit's manifest.

    Raises:
        RefusedError: a file differs from the pinned commit, is missing, or does not belong to it.
    """
    folder, pin = Path(info.code_dir), f"commit {info.commit[:8]}"
    manifest = _manifest(Path(info.manifest), folder)
    if problem := git_tree_ids.manifest_problem(manifest, info.commit):
        raise RefusedError(f"{problem} ({info.manifest}): {_cure(folder)}")
    expected = git_tree_ids.manifest_files(manifest)
    for path, file in expected.items():
        if problem := _file_problem(folder / path, file):
            raise RefusedError(f"{folder / path} {problem} at {pin}: {_cure(folder)}")
    for path in _files(folder):
        if path not in expected:
            raise RefusedError(
                f"{folder / path} is not in {pin}: {_cure(folder)}. Write results to the run"
                " folder, not to the checkout"
            )
    tree = manifest["commit_object"][5:].partition("\n")[0]
    return Pinned(
        folder.resolve(),
        Path(info.repository).resolve(),
        info.commit,
        tree,
        frozenset(expected),
        import_folders(info.folder),
    )


def put_first(info: RunInfo) -> None:
    """Put the code's folders first in the import path: the project's, then the checkout's."""
    folders = [Path(info.code_dir, folder) for folder in import_folders(info.folder)]
    places = [str(place) for place in folders if place.is_dir()]
    sys.path[:] = [*places, *(place for place in sys.path if place not in places)]


def prove_modules(pinned: Pinned) -> int:
    """Return the number of imported modules that come from the checkout.

    Raises:
        RefusedError: a module of the repository was imported from somewhere else.
    """
    count = 0
    environment = _environments_inside(pinned.repository)
    for name, path in _imported():
        if _is_in(path, pinned.folder):
            count += 1
        elif (own := _own_file(name, pinned)) or _is_live(path, pinned, environment):
            raise RefusedError(_mismatch(name, path, own, pinned))
    return count


def is_own_module(name: str, pinned: Pinned) -> bool:
    """Return True if the checkout has a module of this name; those of mtf are never its own."""
    return name.partition(".")[0] != "mtf" and _own_file(name, pinned) is not None


def packages() -> tuple[dict[str, str], str]:
    """Return the installed packages with their versions, and the sha256 over all of them."""
    # a list, since each read of ``metadata`` parses it again
    metadata = [distribution.metadata for distribution in importlib.metadata.distributions()]
    found = {str(m["Name"]): str(m["Version"]) for m in metadata if m["Name"]}
    ordered = dict(sorted(found.items(), key=lambda item: item[0].lower()))
    return ordered, hashlib.sha256(json_text.dumps(ordered).encode()).hexdigest()


def proof_facts(pinned: Pinned, modules: int) -> dict[str, Any]:
    """Return the journal's facts on the proof: commit, tree, python, packages, machine."""
    installed, digest = packages()
    return {
        "commit": pinned.commit,
        "tree": pinned.tree,
        "python": platform.python_version(),
        "packages": installed,
        "packages_sha256": digest,
        "modules": modules,
        "machine": machine_facts(),
    }


def _cure(folder: Path) -> str:
    return f"remove {folder} and run mtf sync, which makes it again"


def _manifest(path: Path, folder: Path) -> git_tree_ids.Manifest:
    try:
        return cast("git_tree_ids.Manifest", json.loads(path.read_bytes()))
    except (OSError, ValueError) as e:
        raise RefusedError(
            f"{path}: could not read the checkout's manifest ({e}): {_cure(folder)}"
        ) from e


def _file_problem(path: Path, file: git_tree_ids.ManifestFile) -> str | None:
    mode, oid, pointer = file
    try:
        if mode == git_tree_ids.SYMLINK:
            content = os.fsencode(path.readlink())
            return None if _is_blob(content, oid) else "has other content than"
        if path.is_symlink():
            return "is a symbolic link, unlike the file"
        if pointer is not None:
            same = _is_pointed_to(path, pointer)
        else:
            same = _is_blob(path.read_bytes(), oid)
        if bool(path.stat().st_mode & 0o100) != (mode == git_tree_ids.EXECUTABLE):
            return "has another file mode than"
    except OSError as e:
        return f"cannot be read ({e.strerror}), unlike the file"
    return None if same else "has other content than"


def _is_blob(content: bytes, oid: str) -> bool:
    return git_tree_ids.object_id("blob", content, like=oid) == oid


def _is_pointed_to(path: Path, raw: bytes) -> bool:
    """Return True if a file has the content of its pointer in Git LFS. Such files may be large."""
    pointer = git_tree_ids.parse_pointer(raw)
    with path.open("rb") as opened:
        return (
            pointer is not None and hashlib.file_digest(opened, "sha256").hexdigest() == pointer.oid
        )


def _files(folder: Path) -> Iterator[str]:
    """Yield the paths of all files and links under a folder, as git names them; not __pycache__."""
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name != "__pycache__"]
        links = [name for name in folders if Path(here, name).is_symlink()]
        for name in (*files, *links):
            yield Path(here, name).relative_to(folder).as_posix()


def _imported() -> Iterator[tuple[str, str]]:
    """Yield the name and resolved file of every imported module that has one."""
    folders: dict[str, str] = {}  # resolved once each: thousands of modules in hundreds of folders
    for name, module in sorted(sys.modules.items()):
        file = vars(module).get("__file__")  # getattr would execute lazily imported modules
        if not isinstance(file, str) or name == "__main__":
            continue
        folder, _, base = file.rpartition(os.sep)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        path = f"{folders[folder]}{os.sep}{base}"
        yield name, os.path.realpath(path) if Path(path).is_symlink() else path


def _own_file(name: str, pinned: Pinned) -> str | None:
    """Return the checkout's file for a module's name, None if there is none.

    Names of the standard library are never the checkout's.
    """
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names:
        return None
    for prefix in (f"{folder}/" if folder else "" for folder in pinned.import_folders):
        for candidate in (name, top):
            stem = prefix + candidate.replace(".", "/")
            for path in (f"{stem}.py", f"{stem}/__init__.py"):
                if path in pinned.files:
                    return path
    return None


def _is_in(path: str, folder: Path) -> bool:
    return path.startswith(f"{folder}{os.sep}")


def _is_live(path: str, pinned: Pinned, environment: tuple[Path, ...]) -> bool:
    """Return True for a file of the live repository that is not in an environment inside it."""
    code, run_root = pinned.folder.parent, pinned.folder.parent.parent
    if _is_in(path, code):
        return True  # the checkout of another commit
    if not _is_in(path, pinned.repository) or _is_in(path, run_root):
        return False
    if not _INSTALLED.isdisjoint(Path(path).parts):
        return False
    return not any(_is_in(path, folder) for folder in environment)


def _environments_inside(repository: Path) -> tuple[Path, ...]:
    prefixes = (Path(p).resolve() for p in (sys.prefix, sys.exec_prefix, sys.base_prefix))
    return tuple(p for p in prefixes if p != repository and p.is_relative_to(repository))


def _mismatch(name: str, path: str, own: str | None, pinned: Pinned) -> str:
    top = name.partition(".")[0]
    instead = f"instead of {pinned.folder / own}" if own else "and not from the pinned checkout"
    if _is_in(path, pinned.repository):
        why = (
            f"the environment has an editable install of {top} pointing at the live work tree:"
            f" pip uninstall {top}, or install it without -e"
        )
    else:
        why = f"another {top} was imported before the checkout's: rename one of the two"
    return f"module {name} comes from {path} {instead}. Perhaps {why}"
