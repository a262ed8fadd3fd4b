"""Git's object ids computed without git, to prove that a checkout is the pinned commit.

Each checkout has a manifest beside it: the raw commit object and the id of every file. The job
computes the commit id from them again. This detects changed, missing and additional files and the
manifest of another commit, and the job needs no git.

A submodule's commit is part of the commit, so its manifest is proved in the same way. Of a file in
Git LFS the commit has a pointer, which proves the content.

Source: git-hash-object(1); the tree format in Documentation/gitformat-pack and git-mktree(1); the
specification of Git LFS, "The Pointer".
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, NamedTuple, NotRequired, TypedDict

if TYPE_CHECKING:
    from collections.abc import Mapping

GITLINK = "160000"  # a submodule: its content is not part of the commit
SYMLINK = "120000"
EXECUTABLE = "100755"


class Manifest(TypedDict):
    """The content of ``.code/<commit>.json``."""

    commit: str
    commit_object: str  # latin-1 text of the raw object, so that every byte survives JSON
    files: dict[str, tuple[str, str]]  # path -> (mode, object id)
    pointers: NotRequired[dict[str, str]]  # path -> the stored pointer of a file in Git LFS
    submodules: NotRequired[dict[str, Manifest]]  # path -> the manifest of a submodule


def object_id(kind: str, content: bytes, *, like: str) -> str:
    """Return git's id of an object; ``like`` is any object id made by the same hash function."""
    algorithm = hashlib.sha256 if len(like) == 64 else hashlib.sha1
    return algorithm(f"{kind} {len(content)}\0".encode() + content).hexdigest()


def tree_id(files: Mapping[str, tuple[str, str]], *, like: str) -> str:
    """Return the id of the tree with exactly these files (path -> mode, object id)."""
    here: list[tuple[bytes, str, str]] = []  # sort key, mode + name, id
    below: dict[str, dict[str, tuple[str, str]]] = {}
    for path, (mode, oid) in files.items():
        head, slash, rest = path.partition("/")
        if slash:
            below.setdefault(head, {})[rest] = (mode, oid)
        else:
            here.append((_name(head), f"{mode} {head}", oid))
    for head, inner in below.items():
        # git sorts a folder as if its name ended in a slash
        here.append((_name(head) + b"/", f"40000 {head}", tree_id(inner, like=like)))
    content = b"".join(_name(entry) + b"\0" + bytes.fromhex(oid) for _, entry, oid in sorted(here))
    return object_id("tree", content, like=like)


def manifest_problem(manifest: Manifest, commit: str) -> str | None:
    """Return the reason why the manifest does not prove ``commit``, None if it does."""
    raw = manifest["commit_object"].encode("latin-1")
    if object_id("commit", raw, like=commit) != commit:
        return f"the checkout's manifest is not that of commit {commit[:8]}"
    if not raw.startswith(b"tree "):
        return "the commit object names no tree"
    tree = raw[5 : raw.index(b"\n")].decode()
    files = manifest["files"]
    if tree_id(files, like=commit) != tree:
        return f"the checkout's list of files is not that of commit {commit[:8]}"
    for path, pointer in manifest.get("pointers", {}).items():
        raw = pointer.encode("latin-1")
        if path not in files or object_id("blob", raw, like=commit) != files[path][1]:
            return f"the pointer of {path} is not that of commit {commit[:8]}"
    for path, inner in manifest.get("submodules", {}).items():
        mode, pinned = files.get(path, ("", ""))
        if mode != GITLINK or manifest_problem(inner, pinned):
            return f"the submodule {path} is not that of commit {commit[:8]}"
    return None


class ManifestFile(NamedTuple):
    """A file of a checkout: its mode, its id, and the pointer that is stored for it, if any."""

    mode: str
    oid: str
    pointer: bytes | None


def manifest_files(manifest: Manifest) -> dict[str, ManifestFile]:
    """Return the files and links of a checkout by path, those of submodules included."""
    pointers = manifest.get("pointers", {})
    found = {
        path: ManifestFile(
            mode, oid, pointers[path].encode("latin-1") if path in pointers else None
        )
        for path, (mode, oid) in manifest["files"].items()
        if mode != GITLINK
    }
    for path, inner in manifest.get("submodules", {}).items():
        found |= {f"{path}/{name}": file for name, file in manifest_files(inner).items()}
    return found


class Pointer(NamedTuple):
    """The sha256 and the size of the content of a file in Git LFS."""

    oid: str
    size: int


def parse_pointer(raw: bytes) -> Pointer | None:
    """Return the pointer that a stored file is, None if it is none."""
    match = _POINTER.fullmatch(raw)
    return Pointer(match[1].decode(), int(match[2])) if match else None


_POINTER = re.compile(
    rb"version https://(?:git-lfs|hawser)\.github\.com/spec/v1\n"
    rb"oid sha256:([0-9a-f]{64})\nsize ([0-9]{1,18})\n?"
)


def _name(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
