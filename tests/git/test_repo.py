"""GitRepo on real repositories."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from mtf.core.vocabulary.ids import CommitId
from mtf.errors import RepositoryError
from mtf.git.refs import RefMovedError, RefUpdate
from mtf.git.repo import GitRepo
from tests.cli.lab import wait_until
from tests.repos import git, make_remote, make_repo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LEDGER = "refs/heads/mtf/ledger"


def test_a_tag_does_not_take_the_place_of_a_branch(tmp_path: Path) -> None:
    """Whoever may push a tag could otherwise choose what a pull request is compared with."""
    lab = make_repo(tmp_path / "lab", {"a": "1\n"})
    good = lab.git("rev-parse", "HEAD")
    lab.git("update-ref", "refs/remotes/origin/main", good)
    evil = lab.commit({"a": "2\n"})
    lab.git("update-ref", "refs/heads/main", good)
    for name in ("main", "origin/main", "HEAD", "refs/heads/main", "v1"):
        lab.git("update-ref", f"refs/tags/{name}", evil)
    repo = GitRepo(lab.path)
    names = ("main", "origin/main", "HEAD", "refs/heads/main", good, "main~0")
    assert {repo.commit(name) for name in names} == {good}
    assert repo.commit("v1") == evil


def test_files_are_read_from_the_commit_and_not_from_the_work_tree(tmp_path: Path) -> None:
    made = make_repo(tmp_path / "r", {"experiments/a.yaml": "committed", "b b/ü.txt": "x"})
    made.write({"experiments/a.yaml": "dirty", "experiments/new.yaml": "untracked"})
    repo = GitRepo(made.path)
    files = repo.files(repo.commit("HEAD"), "experiments")
    assert list(files) == ["experiments/a.yaml"]
    oid = files["experiments/a.yaml"].oid
    assert repo.blobs([oid])[oid] == b"committed"
    assert "b b/ü.txt" in repo.files(repo.commit("HEAD"))


def test_a_commit_is_written_without_touching_head_index_or_work_tree(tmp_path: Path) -> None:
    made = make_repo(tmp_path / "r", {"a": "1"})
    made.write({"a": "dirty"})
    before = made.git("status", "--porcelain"), made.git("rev-parse", "HEAD")
    repo = GitRepo(made.path)
    first = repo.write_commit({"x/1.json": b"1", "x/2.json": b"2"}.items(), parents=(), message="m\n\nbody", committer=repo.identity)  # fmt: skip
    code = repo.commit("HEAD")
    second = repo.write_commit([("x/1.json", None)], parents=(first, code), message="n", committer=repo.identity)  # fmt: skip
    assert list(repo.files(second)) == ["x/2.json"]
    assert made.git("rev-list", "--parents", "-1", second).split()[1:] == [first, code]
    assert made.git("log", "-1", "--format=%B", first) == "m\n\nbody"
    assert (made.git("status", "--porcelain"), made.git("rev-parse", "HEAD")) == before
    assert made.git("for-each-ref", "refs/mtf") == ""
    assert made.git("fsck", "--strict", "--no-dangling") == ""


def test_all_refs_move_or_none_and_a_stale_old_value_is_a_lost_race(tmp_path: Path) -> None:
    made = make_repo(tmp_path / "r", {"a": "1"})
    repo = GitRepo(made.path)
    head = repo.commit("HEAD")
    repo.update_refs([RefUpdate(LEDGER, head, None)])
    pins = [RefUpdate("refs/heads/slurm-job/x", head, None), RefUpdate(LEDGER, head, None)]
    with pytest.raises(RefMovedError):
        repo.update_refs(pins)
    assert repo.find_commit("refs/heads/slurm-job/x") is None


def test_a_push_is_atomic_and_fails_if_another_writer_came_first(tmp_path: Path) -> None:
    made = make_repo(tmp_path / "r", {"a": "1"})
    bare = make_remote(tmp_path / "bare.git", made)
    repo = GitRepo(made.path)
    first, second = repo.commit("HEAD"), repo.commit(made.commit({"a": "2"}))
    repo.push("origin", [RefUpdate(LEDGER, first, None)])
    with pytest.raises(RefMovedError):
        repo.push("origin", [RefUpdate("refs/heads/slurm-job/x", second, None), RefUpdate(LEDGER, second, None)])  # fmt: skip
    assert git(bare, "for-each-ref", "refs/heads/slurm-job") == ""
    assert repo.remote_refs("origin", [LEDGER]) == {LEDGER: first}


def test_an_old_ref_lock_of_a_killed_git_is_removed(tmp_path: Path) -> None:
    made = make_repo(tmp_path / "r", {"a": "1"})
    repo = GitRepo(made.path)
    lock = made.path / ".git" / "refs" / "heads" / "mtf" / "ledger.lock"
    lock.parent.mkdir()
    lock.touch()
    updates = [RefUpdate(LEDGER, repo.commit("HEAD"), None)]
    with pytest.raises(RefMovedError, match="File exists"):
        repo.update_refs(updates)
    assert lock.exists(), "its git may still be at work"
    os.utime(lock, (0, 0))
    with pytest.raises(RefMovedError):
        repo.update_refs(updates)
    repo.update_refs(updates)
    assert made.git("rev-parse", LEDGER) == repo.commit("HEAD")


def test_a_ref_lock_of_the_remote_is_not_removed(tmp_path: Path) -> None:
    made = make_repo(tmp_path / "r", {"a": "1"})
    remote = make_remote(tmp_path / "r.git", made)
    lock = remote / "refs" / "heads" / "mtf" / "ledger.lock"
    lock.parent.mkdir()
    lock.touch()
    os.utime(lock, (0, 0))
    repo = GitRepo(made.path)
    with pytest.raises(RefMovedError, match=r"mtf/ledger\.lock"):
        repo.push("origin", [RefUpdate(LEDGER, repo.commit("HEAD"), None)])
    assert lock.exists()


def test_an_unreachable_remote_gives_gits_own_message(tmp_path: Path) -> None:
    made = make_repo(tmp_path / "r", {"a": "1"})
    made.git("remote", "add", "origin", str(tmp_path / "nowhere.git"))
    with pytest.raises(RepositoryError, match=r"nowhere\.git"):
        GitRepo(made.path).remote_refs("origin", [LEDGER])


def test_a_rejection_by_a_hook_is_not_a_lost_race(tmp_path: Path) -> None:
    made = make_repo(tmp_path / "r", {"a": "1"})
    bare = make_remote(tmp_path / "bare.git", made)
    hook = bare / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho no ledgers here >&2\nexit 1\n")
    hook.chmod(0o755)
    repo = GitRepo(made.path)
    with pytest.raises(RepositoryError, match="no ledgers here") as caught:
        repo.push("origin", [RefUpdate(LEDGER, repo.commit("HEAD"), None)])
    assert not isinstance(caught.value, RefMovedError)


def test_staged_files_are_those_of_the_next_commit(tmp_path: Path) -> None:
    made = make_repo(tmp_path / "r", {"experiments/a.yaml": "old", "experiments/b.yaml": "b"})
    made.write({"experiments/a.yaml": "staged"})
    made.git("add", "-A")
    made.write({"experiments/a.yaml": "later on disk"})
    repo = GitRepo(made.path, inherit=True)
    found = repo.staged("experiments")
    assert list(found) == ["experiments/a.yaml"]
    entry = found["experiments/a.yaml"]
    assert entry is not None
    assert repo.blobs([entry.oid]).popitem()[1] == b"staged"


def test_staged_works_before_the_first_commit(tmp_path: Path) -> None:
    made = make_repo(tmp_path / "r")
    made.write({"experiments/a.yaml": "x"})
    made.git("add", "-A")
    assert list(GitRepo(made.path, inherit=True).staged("experiments")) == ["experiments/a.yaml"]


def test_a_missing_repository_or_commit_is_an_error_with_a_fix(
    tmp_path: Path,
) -> None:
    with pytest.raises(RepositoryError, match="mtf init"):
        GitRepo(tmp_path)
    with pytest.raises(RepositoryError, match="no commits yet"):
        GitRepo(make_repo(tmp_path / "r").path).commit("HEAD")


def test_a_revision_that_looks_like_an_option_is_not_one(tmp_path: Path) -> None:
    repo = GitRepo(make_repo(tmp_path / "r", {"a": "1"}).path)
    assert repo.find_commit("--help") is None


def test_an_open_reader_sees_new_objects(tmp_path: Path) -> None:
    made = make_repo(tmp_path / "r", {"a": "1"})
    repo = GitRepo(made.path)
    with repo.reading():
        first = repo.commit("main")
        second = repo.write_commit([("b", b"2")], parents=(first,), message="m", committer=repo.identity)  # fmt: skip
        repo.update_refs([RefUpdate("refs/heads/main", second, first)])
        assert repo.commit("main") == second
        assert repo.read(second, "b") == b"2"
        made.git("pack-refs", "--all")
        made.git("repack", "-qad")
        assert list(repo.files(repo.commit("main"))) == ["a", "b"]


def test_thousands_of_files_and_large_files_are_read_at_once(tmp_path: Path) -> None:
    files = {f"runs/{n % 7}/{n}.json": f"{n}" * 100 for n in range(3000)} | {"big": "x" * 3_000_000}
    repo = GitRepo(make_repo(tmp_path / "r", {"a": "1"}).path)
    commit = repo.write_commit(
        ((path, text.encode()) for path, text in files.items()),
        parents=(), message="m", committer=repo.identity,
    )  # fmt: skip
    entries = repo.files(commit)
    contents = repo.blobs(e.oid for e in entries.values())
    assert {path: contents[e.oid].decode() for path, e in entries.items()} == files
    assert list(entries) == sorted(files)


def test_a_missing_object_does_not_shift_the_answers_after_it(
    tmp_path: Path,
) -> None:
    repo = GitRepo(make_repo(tmp_path / "r", {"a b/c d": "1"}).path)
    with repo.reading():
        commit = repo.commit("HEAD")
        assert repo.read(commit, "no such file") is None
        assert repo.read(commit, "a b") is None
        assert repo.read(commit, "a b/c d\nHEAD") is None
        assert repo.find_commit("main\nHEAD") is None
        assert repo.files(commit, "nowhere") == {} == repo.files(commit, "a b/c d")
        with pytest.raises(RepositoryError, match="missing from the repository"):
            repo.blobs(["0" * 39 + "1"])
        assert repo.read(commit, "a b/c d") == b"1"


def test_a_writer_that_fails_leaves_no_ref_behind(tmp_path: Path) -> None:
    made = make_repo(tmp_path / "r", {"a": "1"})
    repo = GitRepo(made.path)
    before = made.git("for-each-ref")

    def files() -> Iterator[tuple[str, bytes]]:
        yield "b", b"2"
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        repo.write_commit(files(), parents=(), message="m", committer=repo.identity)
    assert made.git("for-each-ref") == before


def test_a_failed_commit_gives_gits_own_message(tmp_path: Path) -> None:
    repo = GitRepo(make_repo(tmp_path / "r", {"a": "1"}).path)
    files = [(f"{n}", b"x" * 100_000) for n in range(50)]
    with pytest.raises(RepositoryError, match="fast-import"):
        repo.write_commit([("/../bad", b""), *files], parents=(), message="m", committer="nobody")


def test_a_missing_tree_is_an_error_and_not_an_empty_folder(tmp_path: Path) -> None:
    made = make_repo(tmp_path / "r", {"experiments/a.yaml": "x"})
    repo = GitRepo(made.path)
    head = repo.commit("HEAD")
    tree = made.git("rev-parse", "HEAD:experiments")
    (made.path / ".git/objects" / tree[:2] / tree[2:]).unlink()
    with pytest.raises(RepositoryError, match=r"missing.*git fsck"):
        repo.files(head, "experiments")
    with pytest.raises(RepositoryError, match="missing"):
        repo.files(CommitId("1" * 40), "experiments")


def test_a_folder_name_with_a_dollar_is_not_expanded(tmp_path: Path) -> None:
    made = make_repo(tmp_path / "$HOME's ${PATH} ~", {"a": "1"})
    repo = GitRepo(made.path)
    assert repo.root == made.path
    assert repo.commit("HEAD") == made.git("rev-parse", "HEAD")


def test_tidy_packs_objects_unless_maintenance_is_off(tmp_path: Path) -> None:
    made = make_repo(tmp_path / "r", {str(n): str(n) for n in range(600)})
    made.git("config", "gc.auto", "1")
    made.git("config", "maintenance.auto", "false")
    repo = GitRepo(made.path)
    repo.tidy()
    assert "packs: 0" in made.git("count-objects", "-v")
    made.git("config", "maintenance.auto", "true")
    repo.tidy()
    wait_until(
        lambda: "count: 0" in made.git("count-objects", "-v"),
        lambda: made.git("count-objects", "-v"),
    )
