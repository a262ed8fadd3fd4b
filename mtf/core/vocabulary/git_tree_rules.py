"""Rules for the trees of commits: which names, modes and links a checkout may have.

A commit's tree is what somebody pushed, and git stores names that it would never check out: ``..``,
``.git`` in one of its spellings, a path as the name of one entry. mtf writes checkouts itself, so
that it has the same rules: whatever git refuses on one of the systems that it runs on is refused on
all of them. In addition, a symbolic link must not lead out of the checkout, since what it leads to
is not part of the commit.

Source: git's fsck.c, read-cache.c (verify_path), path.c (is_ntfs_dotgit) and utf8.c
(is_hfs_dotgit), described in git-fsck(1) and, as core.protectNTFS and core.protectHFS, in
git-config(1).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mtf.core.vocabulary.git_tree_ids import EXECUTABLE, GITLINK, SYMLINK, tree_id

if TYPE_CHECKING:
    from collections.abc import Mapping

REGULAR = "100644"
MODES = frozenset({REGULAR, EXECUTABLE, SYMLINK, GITLINK})
MAX_NAME = 255  # bytes, as file systems have it
MAX_PATH = 4096
MAX_LINKS = 40  # on the way of one path, as Linux has it

# What HFS+ ignores in names. Source: git's utf8.c, next_hfs_char.
_IGNORED_BY_HFS = re.compile("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]")
_NOT_UTF_8 = re.compile("[\udc80-\udcff]")
# NTFS ignores dots and spaces at the end, and what follows a colon is a stream of the same file.
_FLAGS = re.IGNORECASE | re.DOTALL | re.ASCII
_DOT_GIT = re.compile(r"(\.git|git~1)[. ]*(:.*)?", _FLAGS)
_DOT_GITMODULES = re.compile(
    r"(\.gitmodules|gitmod~[1-4]|gi7eb[0-9a-f]*~[1-9][0-9]*)[. ]*(:.*)?", _FLAGS
)
# Names without anything that the rules look for: almost all, and one search for each is enough.
_PLAIN = re.compile(r"(?!\.|[Gg][Ii])[!-.0-\[\]-}][ -.0-\[\]-~]{0,249}", re.ASCII)


def name_problem(name: str) -> str | None:
    """Return the reason why a checkout must not have an entry with this name, None if it may.

    ``name`` is one entry's, decoded with ``surrogateescape``.
    """
    if _PLAIN.fullmatch(name):
        return None
    if not name.strip(". "):
        return "no file can have"
    if found := next((letter for letter in "/\\\0" if letter in name), None):
        return f"contains {found!r}"
    if len(name.encode("utf-8", "surrogateescape")) > MAX_NAME:
        return f"has more than {MAX_NAME} bytes"
    if _DOT_GIT.fullmatch(name) or _on_hfs(name) == ".git":
        return "is a spelling of git's own folder"
    return None


def tree_problem(
    files: Mapping[str, tuple[str, str]], targets: Mapping[str, str], tree: str
) -> tuple[str, str] | None:
    """Return the path that a checkout must not have, with the reason; None for a sound tree.

    Args:
        files: every file of the tree: path -> mode, object id.
        targets: of its symbolic links, by object id.
        tree: the tree's id.
    """
    names: dict[str, str | None] = {}  # most are used in many folders
    for path, (mode, _) in files.items():
        if reason := _path_problem(path, names):
            return path, reason
        if mode not in MODES:
            return path, f"has the unknown file mode {mode}"
    if twice := _file_and_folder(files):
        return twice, "is both a file and a folder"
    links = {path: targets[oid] for path, (mode, oid) in files.items() if mode == SYMLINK}
    if found := links_problem(links):
        return found
    if tree_id(files, like=tree) != tree:
        return "", "has an entry twice, unsorted, of an odd mode, or an empty folder"
    return None


def links_problem(links: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the symbolic link that a checkout must not have, with the reason; None if it may.

    Args:
        links: all links of a checkout with their targets. Those of submodules are checked with all
            others: within one commit, a submodule counts as a folder without links.
    """
    for find in (_target_problem, _link_problem):
        for path in links:
            if reason := find(path, links):
                return path, reason
    return None


def _path_problem(path: str, names: dict[str, str | None]) -> str | None:
    """Return the problem of a path; ``names`` keeps the problems of names."""
    for name in path.split("/"):
        if name not in names:
            names[name] = name_problem(name)
        if reason := names[name]:
            return f"has a name that {reason}: {name[:100]!r}"
    if len(path) * 4 > MAX_PATH < len(path.encode("utf-8", "surrogateescape")):
        return f"has a path of more than {MAX_PATH:,} bytes"
    return None


def _file_and_folder(files: Mapping[str, tuple[str, str]]) -> str | None:
    seen: set[str] = set()
    for path in files:
        folder = path.rpartition("/")[0]
        while folder and folder not in seen:
            if folder in files:
                return folder
            seen.add(folder)
            folder = folder.rpartition("/")[0]
    return None


def _target_problem(path: str, links: Mapping[str, str]) -> str | None:
    """Return the problem of a link's target, wherever the link is."""
    target = links[path]
    if len(target.encode("utf-8", "surrogateescape")) >= MAX_PATH or "\0" in target or not target:
        return "is a symbolic link without a valid target"
    return _leads_out(target) if target.startswith("/") else None


def _link_problem(path: str, links: Mapping[str, str]) -> str | None:
    """Return the reason why a symbolic link must not be made, None if it stays in the checkout.

    Links on its way are followed: all links are in ``links`` with their relative targets.
    """
    target = links[path]
    if is_gitmodules(path.rpartition("/")[2]):
        return "must not be a symbolic link"
    at, left, hops = path.split("/")[:-1], [target], 0  # the folder reached, what is left to go
    while left:
        part, slash, rest = left.pop().partition("/")
        left += [rest] if slash else []
        if part == ".." and at:
            at.pop()
        elif part == "..":
            return _leads_out(target)
        elif part not in {"", "."}:
            at.append(part)
            here = "/".join(at)
            if name_problem(part):
                return f"is a symbolic link to {target[:100]!r}, which leads into {here[:100]!r}"
            if here in links:
                hops += 1
                if hops > MAX_LINKS:
                    return "is a symbolic link that leads back to itself"
                at.pop()
                left.append(links[here])
    return None


def is_gitmodules(name: str) -> bool:
    """Return True if a name is that of ``.gitmodules`` on one of the systems of git."""
    return bool(_DOT_GITMODULES.fullmatch(name)) or _on_hfs(name) == ".gitmodules"


def _on_hfs(name: str) -> str:
    """Return a name as git compares it for HFS+: up to the first byte that is not UTF-8."""
    return _NOT_UTF_8.split(_IGNORED_BY_HFS.sub("", name))[0].lower()


def _leads_out(target: str) -> str:
    return (
        f"is a symbolic link to {target[:100]!r}, which leads out of the repository: what is there"
        " is not part of the commit. Commit the file, or name the path in the spec"
    )
