"""Git programs that do not answer."""

from __future__ import annotations

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
    pid = (tmp_path / "pid").read_text().strip()
    running = [p for p in Path("/proc").iterdir() if p.name.isdigit() and _parent(p) == pid]
    assert not running
    assert not Path("/proc", pid).exists() or _state(Path("/proc", pid)) == "Z"
    assert repo.commit("HEAD")


def _state(process: Path) -> str:
    return (process / "stat").read_text().rpartition(") ")[2].split()[0]


def _parent(process: Path) -> str | None:
    try:
        return (process / "stat").read_text().rpartition(") ")[2].split()[1]
    except FileNotFoundError:
        return None
