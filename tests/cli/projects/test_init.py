"""`mtf init`: new repositories, existing ones, and folders of larger ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mtf.commands.init import init
from mtf.errors import MtfError
from mtf.project.project import open_project
from tests.cli.mtf import mtf
from tests.repos import Repo, git, make_remote, make_repo

if TYPE_CHECKING:
    from pathlib import Path


def committed(repo: Repo) -> Repo:
    repo.git("add", "-A")
    repo.git("commit", "-qm", "Set up mtf")
    return repo


def test_a_new_folder_becomes_a_repository_that_can_be_planned_at_once(tmp_path: Path) -> None:
    mtf(tmp_path, "init", "lab")
    committed(Repo(tmp_path / "lab"))
    assert "1 to submit" in mtf(tmp_path / "lab", "plan").stdout
    assert git(tmp_path / "lab", "branch", "--show-current") == "main"


def test_existing_files_are_kept_and_a_second_init_says_so(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "r", {"mtf.yaml": "branch: main\n"})
    assert "created  .gitignore" in mtf(repo.path, "init").stderr
    assert mtf(repo.path, "init").stderr == "nothing to create: every file exists already\n"
    assert (repo.path / "mtf.yaml").read_text() == "branch: main\n"


@pytest.mark.parametrize("branch", ["master", "trunk", "release/1.0", "on", "12"])
def test_the_branch_that_is_checked_out_is_tracked(tmp_path: Path, branch: str) -> None:
    repo = make_repo(tmp_path / "r", {"README": "x"})
    repo.git("branch", "-m", branch)
    assert init(repo.path, demo=False).notes == ()
    project = open_project(committed(repo).path)
    assert project.settings.branch == branch
    assert project.tracked() == repo.git("rev-parse", "HEAD")


def test_a_new_repository_has_the_users_default_branch(tmp_path: Path) -> None:
    git(tmp_path, "config", "--global", "init.defaultBranch", "trunk")
    init(tmp_path / "r", demo=False)
    assert open_project(committed(Repo(tmp_path / "r")).path).settings.branch == "trunk"


def test_a_branch_other_than_the_remotes_default_is_pointed_out(tmp_path: Path) -> None:
    bare = make_remote(tmp_path / "bare.git", make_repo(tmp_path / "r", {"README": "x"}))
    git(tmp_path, "clone", "-q", str(bare), "clone")
    clone = Repo(tmp_path / "clone")
    clone.git("switch", "-q", "-c", "add-mtf")
    (note,) = init(clone.path, demo=False).notes
    assert "add-mtf" in note
    assert "`branch: main`" in note


def test_a_detached_head_tracks_the_remotes_default_branch(tmp_path: Path) -> None:
    bare = make_remote(tmp_path / "bare.git", make_repo(tmp_path / "r", {"README": "x"}))
    git(bare, "branch", "-m", "main", "trunk")
    git(tmp_path, "clone", "-q", str(bare), "clone")
    clone = Repo(tmp_path / "clone")
    clone.git("switch", "-q", "--detach")
    init(clone.path, demo=False)
    assert open_project(committed(clone).path).settings.branch == "trunk"


def test_a_remote_of_any_name_is_taken_as_it_is(tmp_path: Path) -> None:
    bare = make_remote(tmp_path / "bare.git", make_repo(tmp_path / "r", {"README": "x"}))
    git(tmp_path, "clone", "-q", "-o", "upstream", str(bare), "clone")
    init(tmp_path / "clone", demo=False)
    assert "# remote: upstream" in (tmp_path / "clone" / "mtf.yaml").read_text()
    assert open_project(committed(Repo(tmp_path / "clone")).path).remote == "upstream"


def test_several_remotes_that_nothing_tells_apart_are_pointed_out(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "r", {"README": "x"})
    repo.git("remote", "add", "ann", "/a")
    repo.git("remote", "add", "bob", "/b")
    (note,) = init(repo.path, demo=False).notes
    assert "several remotes (ann, bob)" in note


def test_a_folder_inside_another_project_is_refused(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "r", {"mtf.yaml": "branch: main\n"})
    with pytest.raises(MtfError, match=r"inside the project in .*/r, .* run mtf init .*/r$"):
        init(repo.path / "sub", demo=False)
    assert list((repo.path / "sub").iterdir()) == []
