"""Where projects are in a repository: on disk, in the index, and at commits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mtf.commands.validate import SlurmQuery, on_disk, staged
from mtf.errors import MtfError, RepositoryError
from mtf.git.repo import GitRepo
from mtf.project.location.folder import at_commit, of_clone, projects_at, projects_in_index
from tests.repos import make_repo

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = "branch: main\n"


@pytest.mark.parametrize(
    ("files", "projects"),
    [
        (["mtf.yaml"], [""]),
        (["experiments/a.yaml"], [""]),  # the default settings
        (["lab/mtf.yaml"], ["lab/"]),
        (["a/b/mtf.yaml", "c/mtf.yaml"], ["a/b/", "c/"]),
        (["mtf.yaml", "examples/x/mtf.yaml"], [""]),  # an example, as sync sees it
        (["experiments/a.yaml", "lab/mtf.yaml"], ["lab/"]),  # no spec: another tool's
        (["README", "notmtf.yaml", "x/notmtf.yaml"], [""]),
    ],
)
def test_the_projects_of_a_commit_and_of_the_index_are_the_same(
    tmp_path: Path, files: list[str], projects: list[str]
) -> None:
    repo = GitRepo(make_repo(tmp_path / "r", dict.fromkeys(files, SETTINGS)).path)
    assert [p.prefix for p in projects_at(repo, repo.commit("HEAD"))] == projects
    assert [p.prefix for p in projects_in_index(repo)] == projects


def test_specs_at_the_top_are_a_project_with_default_settings(tmp_path: Path) -> None:
    files = {"experiments/a.yaml": "a: 1\nkind: grid\n", "lab/mtf.yaml": SETTINGS}
    repo = GitRepo(make_repo(tmp_path / "r", files).path)
    for projects in (projects_at(repo, repo.commit("HEAD")), projects_in_index(repo)):
        assert [p.prefix for p in projects] == ["", "lab/"]
    assert of_clone(repo).prefix == ""


def test_a_folder_of_another_tool_at_the_top_is_no_project(tmp_path: Path) -> None:
    files = {"experiments/a.yaml": "lr: 0.1\n", "lab/mtf.yaml": SETTINGS}
    made = make_repo(tmp_path / "r", files)
    with pytest.raises(RepositoryError, match="cd lab"):
        of_clone(GitRepo(made.path))
    with pytest.raises(MtfError, match="cd lab"):
        on_disk(made.path, [], SlurmQuery.NONE)
    made.write({"experiments/a.yaml": "lr: 0.2\n"})
    made.git("add", "-A")
    assert staged(made.path).problems == ()


def test_the_nearest_settings_upwards_mark_the_project(tmp_path: Path) -> None:
    made = make_repo(tmp_path / "r", {"lab/mtf.yaml": SETTINGS, "lab/a/b/x": "", "docs/x": ""})
    assert of_clone(GitRepo(made.path / "lab/a/b")).prefix == "lab/"
    for outside in (made.path, made.path / "docs"):
        with pytest.raises(RepositoryError, match=r"one in lab\. Work there: cd lab"):
            of_clone(GitRepo(outside))


def test_settings_that_a_sparse_checkout_leaves_out_still_mark_the_project(tmp_path: Path) -> None:
    made = make_repo(tmp_path / "r", {"lab/mtf.yaml": SETTINGS, "lab/a/x": "", "b/x": ""})
    made.git("sparse-checkout", "set", "--no-cone", "/lab/a/")
    assert not (made.path / "lab/mtf.yaml").exists()
    assert of_clone(GitRepo(made.path / "lab/a")).prefix == "lab/"


def test_a_project_that_has_moved_is_found_where_it_was(tmp_path: Path) -> None:
    made = make_repo(tmp_path / "r", {"mtf.yaml": SETTINGS, "experiments/a.yaml": "old"})
    old = made.git("rev-parse", "HEAD")
    made.git("rm", "-q", "mtf.yaml", "experiments/a.yaml")
    made.commit({"lab/mtf.yaml": SETTINGS, "lab/experiments/a.yaml": "new"})
    now = of_clone(GitRepo(made.path / "lab"))
    there = at_commit(now, now.commit(old))
    assert there.read(now.commit(old), "experiments/a.yaml") == b"old"
    assert now.read(now.commit("HEAD"), "experiments/a.yaml") == b"new"


def test_paths_within_a_project_are_relative_to_its_folder(tmp_path: Path) -> None:
    made = make_repo(tmp_path / "r", {"lab/a/x": "1", "lab/y": "2", "a/x": "top", "laboratory": ""})
    whole = GitRepo(made.path)
    repo, head = whole.within("lab/"), whole.commit("HEAD")
    assert list(repo.files(head)) == ["a/x", "y"]
    assert list(repo.files(head, "a")) == ["a/x"]
    assert repo.read(head, "a/x") == b"1"
    assert repo.object_ids(head, ["a"]) != whole.object_ids(head, ["a"])
    assert sorted(repo.index("")) == ["a/x", "y"]
    made.write({"lab/a/x": "3", "a/x": "4"})
    made.git("add", "-A")
    assert sorted(repo.staged("")) == ["a/x"]
    assert repo.whole.prefix == ""
    assert whole.prefix == ""
