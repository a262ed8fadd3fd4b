"""Git programs that do not answer."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from mtf.errors import RepositoryError
from mtf.git import process
from mtf.git.repo import GitRepo
from tests.repos import make_repo


def test_a_remote_that_does_not_answer_is_given_up_with_all_that_git_has_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = make_repo(tmp_path / "lab", {"a": "1\n"})
    lab.git("remote", "add", "origin", "ssh://nowhere/lab.git")
    ssh = tmp_path / "ssh"
    ssh.write_text(f"#!/bin/sh\necho $$ >> {tmp_path}/pid\nsetsid sleep 300 & wait\n")
    ssh.chmod(0o755)
    monkeypatch.setenv("GIT_SSH", str(ssh))
    monkeypatch.setattr(process, "_QUESTION_S", 0.5)
    repo = GitRepo(lab.path)
    with pytest.raises(RepositoryError, match=r"git ls-remote did not answer within 0\.5 s"):
        repo.remote_refs("origin", ["refs/heads/main"])
    assert_nothing_runs(tmp_path)
    assert repo.commit("HEAD")


@pytest.fixture
def hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `git` that runs the real one; the command named in the returned file never answers."""
    real, named = shutil.which("git"), tmp_path / "hangs"
    git = tmp_path / "bin" / "git"
    git.parent.mkdir()
    git.write_text(
        f"""#!/bin/sh
if [ -s {named} ]; then case " $* " in *" $(cat {named}) "*)
    echo $$ >> {tmp_path}/pid; setsid sleep 300 & wait;;
esac; fi
exec {real} "$@"
"""
    )
    git.chmod(0o755)
    monkeypatch.setenv("PATH", f"{git.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(process, "_LIMIT_S", 0.5)
    return named


def test_objects_that_are_not_read_in_time_are_given_up_with_all_that_git_has_started(
    tmp_path: Path, hangs: Path
) -> None:
    """As on a file system that does not answer."""
    repo = GitRepo(make_repo(tmp_path / "lab", {"a": "1\n"}).path)
    hangs.write_text("cat-file")
    with (
        pytest.raises(RepositoryError, match=r"git cat-file did not answer within 0\.5 s and was"),
        repo.reading(),
    ):
        repo.commit("HEAD")
    assert_nothing_runs(tmp_path)
    hangs.write_text("")
    assert repo.commit("HEAD")


def test_a_reader_that_stops_in_the_middle_of_an_object_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_LIMIT_S", 0.5)
    lab = make_repo(tmp_path / "lab", {"a": "1" * 5_000_000})
    repo = GitRepo(lab.path)
    before = {p.name for p in children(os.getpid())}  # another test's, in this process
    with repo.reading() as objects:
        repo.commit("HEAD")
        (reader,) = (p for p in children(os.getpid()) if p.name not in before)
        objects._questions.offer(memoryview(b"HEAD:a\n" * 2))
        os.kill(int(reader.name), signal.SIGSTOP)
        with pytest.raises(RepositoryError, match="git cat-file did not answer"):
            objects.ask(["HEAD"])
    assert not reader.exists()
    assert repo.commit("HEAD")


def test_a_commit_that_git_does_not_take_in_time_is_given_up(tmp_path: Path, hangs: Path) -> None:
    lab = make_repo(tmp_path / "lab", {"a": "1\n"})
    repo = GitRepo(lab.path)
    hangs.write_text("fast-import")
    large = ((f"b{i}", b"x" * 100_000) for i in range(10))
    with pytest.raises(RepositoryError, match=r"git fast-import did not answer within 0\.5 s"):
        repo.write_commit(large, parents=(), message="m", committer="a <a@b>")
    assert_nothing_runs(tmp_path)


def test_names_that_fill_both_pipes_are_all_answered(tmp_path: Path) -> None:
    repo = GitRepo(make_repo(tmp_path / "lab", {"a": "1\n"}).path)
    names = [f"HEAD:{'x' * 4000}{i}" for i in range(400)]
    with repo.reading() as objects:
        answers = objects.ask([*names, "HEAD:a", "two\nlines", *names, "HEAD:a"])
    assert [a.content for a in answers if a] == [b"1\n", b"1\n"]
    assert len(answers) == 803


def children(pid: int | str) -> list[Path]:
    found = (p for p in Path("/proc").iterdir() if p.name.isdigit())
    return [p for p in found if _parent(p) == str(pid)]


def assert_nothing_runs(folder: Path) -> None:
    pid = (folder / "pid").read_text().strip()
    assert not children(pid)
    assert not Path("/proc", pid).exists() or _state(Path("/proc", pid)) == "Z"


def _state(process: Path) -> str:
    return (process / "stat").read_text().rpartition(") ")[2].split()[0]


def _parent(process: Path) -> str | None:
    try:
        return (process / "stat").read_text().rpartition(") ")[2].split()[1]
    except FileNotFoundError:
        return None
