"""The rules for trees: at least git's own, compared with the real git on generated names."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from mtf.core.vocabulary.git_tree_ids import object_id, tree_id
from mtf.core.vocabulary.git_tree_rules import name_problem, tree_problem
from tests.repos import make_repo

BLOB = object_id("blob", b"x", like="0" * 40)
PIECES = [
    ".",
    "..",
    ".git",
    ".GIT",
    "git~1",
    "GIT~1",
    "git~2",
    "gitmod~1",
    ".gitmodules",
    " ",
    ":",
    "::$INDEX_ALLOCATION",
    "\\",
    "\u200c",
    "\u200f",
    "\u202e",
    "\u206f",
    "\ufeff",
    "\u200b",
    "a",
    "G",
    "t",
    "é",
    "ı",
    "x" * 300,
    "\udcff",
    "\n",
    "~",
    "1",
]
NAMES = st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map("".join)
DANGEROUS = [
    "..",
    ".",
    ".git",
    ".gIt",
    "git~1",
    ".git.",
    ".git . ",
    ".git::$DATA",
    ".g\u200cit",
    "\ufeff.git",
    ".git\\x",
    "x\\.git",
]
HARMLESS = [
    "a",
    ".gitignore",
    ".github",
    "git",
    "gitx~1",
    "a..b",
    ".a",
    "é",
    "-x",
    "a b",
    ".g",
    "\udcff",
    "..a",
]


def refused_by_git(names: list[str]) -> set[str]:
    """Return the names that git's fsck or its index refuse."""
    with tempfile.TemporaryDirectory() as where:
        folder = Path(where)
        make_repo(folder)
        for i, name in enumerate(names):
            raw = b"100644 " + name.encode("utf-8", "surrogateescape") + b"\0"
            (folder / f"{i}.tree").write_bytes(raw + bytes.fromhex(BLOB))
        paths = "".join(f"{folder}/{i}.tree\n" for i in range(len(names)))
        command = ["git", "hash-object", "-t", "tree", "-w", "--literally", "--stdin-paths"]
        made = subprocess.run(command, cwd=folder, input=paths.encode(), capture_output=True)
        found = subprocess.run(["git", "fsck"], cwd=folder, capture_output=True).stderr.decode()
    trees = dict(zip(made.stdout.decode().split(), names, strict=True))
    bad = [line for line in found.splitlines() if "hasDot" in line or "fullPathname" in line]
    return {name for tree, name in trees.items() if any(tree in line for line in bad)}


@settings(max_examples=12, phases=[Phase.explicit, Phase.reuse, Phase.generate])  # git is slow
@given(st.lists(NAMES, min_size=40, max_size=60, unique=True))
@example(DANGEROUS)
@example(HARMLESS)
def test_whatever_git_refuses_is_refused(names: list[str]) -> None:
    ours = {name for name in names if name_problem(name)}
    theirs = refused_by_git(names)
    assert theirs <= ours
    for name in ours - theirs:  # what only other systems, or a file system, would take for more
        assert "\\" in name or not name.strip(". ") or len(name.encode("utf-8", "replace")) > 255


@pytest.mark.parametrize("name", [*DANGEROUS, "", "a/b", "/", "a\0b", "...", ".. ", "x" * 256])
def test_a_dangerous_name_is_refused(name: str) -> None:
    assert name_problem(name)


@pytest.mark.parametrize("name", HARMLESS)
def test_a_harmless_name_is_allowed(name: str) -> None:
    assert name_problem(name) is None


def problem(files: dict[str, Any]) -> tuple[str, str] | None:
    """Return the problem of a tree; a text is a link's target, a tuple a mode and an id."""
    links = {path: what for path, what in files.items() if isinstance(what, str)}
    ids = {target: object_id("blob", target.encode(), like=BLOB) for target in links.values()}
    entries = {p: ("120000", ids[w]) if isinstance(w, str) else w for p, w in files.items()}
    return tree_problem(entries, {i: t for t, i in ids.items()}, tree_id(entries, like=BLOB))


FILE = ("100644", BLOB)
MODULE = ("160000", "1" * 40)


@pytest.mark.parametrize(
    "files",
    [
        {"a": FILE, "b/c": ("100755", BLOB), "b/d": "../a", "e": "b", "f": "e/../a", "g": "./b//c"},
        {"a": "nothing/here", "m": MODULE, "deep/er/l": "../../a"},
        {"m": MODULE, "l": "m/x"},
        {".gitmodules": FILE, ".github/x": FILE, "é\udcff": FILE},
    ],
)
def test_an_ordinary_tree_is_allowed(files: dict[str, Any]) -> None:
    assert problem(files) is None


@pytest.mark.parametrize(
    ("files", "path", "words"),
    [
        ({"a/../../b": FILE}, "a/../../b", "'..'"),
        ({"a/.git/hooks/x": FILE}, "a/.git/hooks/x", "git's own folder"),
        ({"a": ("100664", BLOB)}, "a", "unknown file mode"),
        ({"a": ("0100644", BLOB)}, "a", "unknown file mode"),
        ({"a": ("140000", BLOB)}, "a", "unknown file mode"),
        ({"a": FILE, "a/b": FILE}, "a", "both a file and a folder"),
        ({"a": "/tmp", "a/b/c": FILE}, "a", "both a file and a folder"),
        ({"l": "/etc"}, "l", "leads out"),
        ({"a/l": "/etc"}, "a/l", "leads out"),
        ({"l": ".."}, "l", "leads out"),
        ({"a/l": "../.."}, "a/l", "leads out"),
        ({"a/l": "b/../../../x"}, "a/l", "leads out"),
        ({"a": "b", "b": "c", "c": "../x"}, "a", "leads out"),
        ({"a/b/up": "../..", "l": "a/b/up/../x"}, "l", "leads out"),
        ({"m": MODULE, "l": "m/../.."}, "l", "leads out"),
        ({"m": MODULE, "a": "m", "l": "a/../.."}, "l", "leads out"),
        ({"l": ".git/config"}, "l", "leads into '.git'"),
        ({"l": "a\0b"}, "l", "without a valid target"),
        ({"l": ""}, "l", "without a valid target"),
        ({"l": "x" * 5000}, "l", "without a valid target"),
        ({"l": "l"}, "l", "back to itself"),
        ({"a": "b/x", "b": "a/y"}, "a", "back to itself"),
        ({".gitmodules": "a"}, ".gitmodules", "must not be a symbolic link"),
        ({"/".join(["x" * 200] * 30): FILE}, "", "more than 4,096 bytes"),
    ],
)
def test_a_tree_that_is_not_safe_is_refused(files: dict[str, Any], path: str, words: str) -> None:
    found = problem(files)
    assert found is not None
    assert found[0].startswith(path)
    assert words in found[1]


def test_a_list_of_files_that_is_not_the_whole_tree_is_refused() -> None:
    found = tree_problem({"a": FILE}, {}, tree_id({"a": FILE, "b": FILE}, like=BLOB))
    assert found is not None
    assert "an entry twice" in found[1]
