"""Commits of the work tree, and what differs from HEAD in it, on real repositories."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mtf.errors import RepositoryError
from mtf.git.repo import GitRepo
from tests.repos import Repo, git, make_repo

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def dirty(tmp_path: Path) -> Repo:
    """Return a work tree with a change of each kind."""
    made = make_repo(
        tmp_path / "r",
        {
            ".gitignore": "*.log\n",
            "kept": "1",
            "changed": "1",
            "staged": "1",
            "gone": "1",
            "m/x": "1",
        },
    )
    made.write({"staged": "2"})
    made.git("add", "staged")
    made.write({"staged": "3", "changed": "2", "new folder/ü.py": "new", "some.log": "ignored"})
    made.write({"runs/a/b": "of a run"})
    (made.path / "gone").unlink()
    made.git("mv", "m/x", "m/y")
    return made


def state(made: Repo) -> tuple[object, ...]:
    """Return everything that a snapshot must leave alone."""
    refs = made.git("for-each-ref")
    index = (made.path / ".git" / "index").read_bytes()
    return made.git("rev-parse", "HEAD"), refs, index, made.git("status", "--porcelain")


def test_a_snapshot_has_the_whole_work_tree_and_moves_nothing(dirty: Repo) -> None:
    before, head = state(dirty), dirty.git("rev-parse", "HEAD")
    repo = GitRepo(dirty.path / "m")  # from within a folder, too
    commit = repo.commit_work_tree(["runs"])
    assert state(dirty) == before
    assert dirty.git("rev-list", "--parents", "-1", commit).split()[1:] == [head]
    whole = repo.files(commit)
    assert set(whole) == {".gitignore", "kept", "changed", "staged", "new folder/ü.py", "m/y"}
    assert repo.read(commit, "staged") == b"3"  # that of the disk, not that of the index
    assert repo.commit_work_tree(["runs"]) == commit  # the same files make the same commit
    dirty.write({"changed": "4"})
    assert repo.commit_work_tree(["runs"]) != commit
    assert dirty.git("fsck", "--strict", "--no-dangling") == ""


def test_a_clean_work_tree_is_its_commit(tmp_path: Path) -> None:
    made = make_repo(tmp_path / "r", {"a": "1", ".gitignore": "/runs/\n"})
    made.write({"runs/a/b": "of a run"})
    repo = GitRepo(made.path)
    assert repo.commit_work_tree(["runs"]) == repo.commit("HEAD")  # though runs is ignored anyway
    assert repo.all_changes() == []


def test_every_change_is_seen_also_where_git_was_told_not_to_look(dirty: Repo) -> None:
    dirty.git("update-index", "--skip-worktree", "kept")
    dirty.git("config", "status.showUntrackedFiles", "no")
    dirty.write({"kept": "2"})
    repo = GitRepo(dirty.path)
    changed = {c.path: c.is_tracked for c in repo.all_changes(each_file=True)}
    assert changed == {
        **dict.fromkeys(["kept", "staged", "changed", "gone", "m/x", "m/y"], True),
        **dict.fromkeys(["new folder/ü.py", "runs/a/b"], False),
    }
    before = state(dirty)
    assert repo.read(repo.commit_work_tree(), "kept") == b"2"
    assert state(dirty) == before
    dirty.git("update-index", "--no-skip-worktree", "kept")
    dirty.git("update-index", "--assume-unchanged", "kept")
    (dirty.path / "kept").unlink()
    assert "kept" in {c.path for c in repo.all_changes()}


def test_changes_in_other_repositories_are_told(tmp_path: Path) -> None:
    inner = make_repo(tmp_path / "inner", {"x": "1"})
    made = make_repo(tmp_path / "r", {"a": "1"})
    made.git("-c", "protocol.file.allow=always", "submodule", "add", "-q", str(inner.path), "sub")
    made.git("commit", "-q", "-m", "with a submodule")
    made.git("config", "submodule.sub.ignore", "all")
    repo = GitRepo(made.path)
    assert repo.all_changes() == []
    made.write({"sub/x": "2"})
    git(made.path, "init", "-q", "nested")
    assert {c.path for c in repo.all_changes() if c.is_repository} == {"sub", "nested/"}


def test_a_merge_that_was_not_finished_is_told(tmp_path: Path) -> None:
    made = make_repo(tmp_path / "r", {"a": "1"})
    made.git("checkout", "-q", "-b", "other")
    made.commit({"a": "theirs"})
    made.git("checkout", "-q", "main")
    made.commit({"a": "ours"})
    made.git("merge", "-q", "other", check=False)
    changes = GitRepo(made.path).all_changes()
    assert [c.path for c in changes if c.is_unmerged] == ["a"]


def test_a_file_that_cannot_be_read_makes_no_snapshot(dirty: Repo) -> None:
    (dirty.path / "link").symlink_to("nowhere")  # a link is no problem: it is what it says
    repo = GitRepo(dirty.path)
    assert "link" in repo.files(repo.commit_work_tree())
    (dirty.path / ".git" / "objects").rename(dirty.path / ".git" / "elsewhere")
    with pytest.raises(RepositoryError, match=r"^git "):
        repo.commit_work_tree()
