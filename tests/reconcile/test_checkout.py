"""The pinned checkout: exact, read-only, and proved by its manifest."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from mtf import rundir
from mtf.core.vocabulary.git_tree_ids import manifest_problem, object_id
from mtf.core.vocabulary.ids import CommitId
from mtf.git.repo import GitRepo
from mtf.reconcile.checkout import alteration, materialise
from tests.repos import make_repo

if TYPE_CHECKING:
    from pathlib import Path


def test_a_checkout_has_exactly_the_commits_files_and_its_manifest_proves_it(
    tmp_path: Path,
) -> None:
    made = make_repo(tmp_path / "r", {"train.py": "v1", "a/b/c.txt": "x", "a.txt": "", "a0": "1"})
    (made.path / "run.sh").write_text("#!/bin/sh\n")
    (made.path / "run.sh").chmod(0o755)
    (made.path / "link").symlink_to("train.py")
    made.write({".gitattributes": "*.txt text eol=crlf\n"})
    commit = CommitId(made.commit({}))
    made.write({"train.py": "dirty"})
    root = tmp_path / "runs"
    folder = materialise(GitRepo(made.path), root, commit)
    assert (folder / "train.py").read_text() == "v1"
    assert (folder / "link").readlink().name == "train.py"
    assert (folder / "run.sh").stat().st_mode & 0o777 == 0o555
    assert (folder / "train.py").stat().st_mode & 0o222 == 0
    assert (folder / "a/b").stat().st_mode & 0o222 == 0
    manifest = json.loads(rundir.code_manifest(root, commit).read_text())
    assert manifest_problem(manifest, commit) is None
    for path, (_, oid) in manifest["files"].items():
        if path != "link":
            assert object_id("blob", (folder / path).read_bytes(), like=oid) == oid
    assert [p.name for p in (root / ".code").iterdir() if p.name.startswith(".")] == []


def test_a_manifest_that_was_tampered_with_proves_nothing(tmp_path: Path) -> None:
    made = make_repo(tmp_path / "r", {"train.py": "v1", "lib/x.py": "1"})
    root = tmp_path / "runs"
    commit = CommitId(made.git("rev-parse", "HEAD"))
    materialise(GitRepo(made.path), root, commit)
    manifest = json.loads(rundir.code_manifest(root, commit).read_text())
    more: Any = {**manifest, "files": {**manifest["files"], "extra.py": ["100644", "0" * 40]}}
    other: Any = {**manifest, "commit_object": manifest["commit_object"].replace("first", "worse")}
    assert manifest_problem(more, commit)
    assert manifest_problem(other, commit)
    assert manifest_problem(manifest, "f" * 40)


def test_concurrent_syncs_make_one_checkout(tmp_path: Path) -> None:
    made = make_repo(tmp_path / "r", {f"f{n}.py": "v1" for n in range(40)})
    commit = CommitId(made.git("rev-parse", "HEAD"))
    target = rundir.code_dir(tmp_path / "runs", commit)
    inodes = set()

    def make(_: int) -> None:
        assert materialise(GitRepo(made.path), tmp_path / "runs", commit) == target
        inodes.add(target.stat().st_ino)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(make, range(16)))
    assert len(inodes) == 1, "jobs may have begun to run from the first"
    assert [p.name for p in target.parent.iterdir() if p.name.startswith(".")] == []


def test_an_existing_checkout_is_used_again(tmp_path: Path) -> None:
    made = make_repo(tmp_path / "r", {"train.py": "v1"})
    commit = CommitId(made.git("rev-parse", "HEAD"))
    first = materialise(GitRepo(made.path), tmp_path / "runs", commit)
    inode = first.stat().st_ino
    assert materialise(GitRepo(made.path), tmp_path / "runs", commit).stat().st_ino == inode


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), _JSON, max_size=4))
def test_config_yaml_reads_back_as_what_was_written(value: dict[str, object]) -> None:
    from ruamel.yaml import YAML

    text = rundir.render_yaml(value)
    read = YAML(typ="safe", pure=True).load(text)
    assert (read or {}) == value


def test_a_changed_checkout_is_replaced(tmp_path: Path) -> None:
    made = make_repo(tmp_path / "r", {"train.py": "v1", "lib/x.py": "1", "lib/y.py": "2"})
    root, repo = tmp_path / "runs", GitRepo(made.path)
    commit = CommitId(made.git("rev-parse", "HEAD"))
    code = materialise(repo, root, commit)
    (code / "__pycache__").mkdir()  # what Python compiles is no change
    assert alteration(code, rundir.code_manifest(root, commit)) is None

    def edit() -> None:
        (code / "train.py").chmod(0o644)
        (code / "train.py").write_text("v2")

    def remove() -> None:
        (code / "lib").chmod(0o755)
        (code / "lib/y.py").unlink()

    def add() -> None:
        (code / "more.py").write_text("")

    def forget() -> None:
        rundir.code_manifest(root, commit).unlink()

    for change, name in (
        (edit, "train.py"),
        (remove, "lib/y.py"),
        (add, "more.py"),
        (forget, f"{commit}.json"),
    ):
        change()
        assert alteration(code, rundir.code_manifest(root, commit)) == name
        assert materialise(repo, root, commit) == code
        assert (code / "train.py").read_text() == "v1"
        assert sorted(p.name for p in code.rglob("*.py")) == ["train.py", "x.py", "y.py"]
        assert [p.name for p in (root / ".code").iterdir() if p.name.startswith(".")] == []
