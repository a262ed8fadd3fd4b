"""The sources that specs name, at a commit and in the index, in submodules too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mtf.commands.validate import staged
from mtf.git.repo import GitRepo
from mtf.project.code_files.source_trees import files_at, files_in_index
from mtf.spec.named_code.found_code import FoundCode
from tests.repos import Repo, git, make_repo

if TYPE_CHECKING:
    from pathlib import Path

ALLOWED = ("-c", "protocol.file.allow=always")


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    """Return a repository with a submodule in a submodule."""
    deep = make_repo(tmp_path / "deep", {"__init__.py": "class Deep:\n    ...\n"})
    middle = make_repo(tmp_path / "middle", {"nets.py": "from .deep import Deep\n"})
    middle.git(*ALLOWED, "submodule", "--quiet", "add", str(deep.path), "deep")
    middle.git("commit", "-qm", "deep")
    outer = make_repo(tmp_path / "outer", {"own.py": "class Own: ...\n"})
    outer.git(*ALLOWED, "submodule", "--quiet", "add", str(middle.path), "libs/middle")
    outer.git(*ALLOWED, "submodule", "--quiet", "update", "--init", "--recursive")
    return outer


def test_code_in_submodules_is_read_at_the_pinned_commits(repo: Repo) -> None:
    repo.git("commit", "-qm", "middle")
    opened = GitRepo(repo.path)
    for files in (files_at(opened, opened.commit("HEAD")), files_in_index(opened)):
        code = FoundCode(files)
        assert code.problem("libs.middle.nets:Deep") is None
        assert code.signature("libs.middle.deep:Deep") == ("Deep", {}, False)
        assert "defines no 'Dep'" in (code.problem("libs.middle.deep:Dep") or "")


def test_the_hook_checks_specs_that_name_code_of_a_submodule_that_moves(repo: Repo) -> None:
    spec = (
        "kind: experiment\nexperiment_name: a\nmodel: {type: 'libs.middle.nets:Deep'}\n"
        "data: {dataset_name: digits}\n"
    )
    repo.commit({"experiments/a.yaml": spec, "mtf.yaml": "executor: local\n"})
    inner = Repo(repo.path / "libs/middle")
    inner.commit({"nets.py": "class Other: ...\n"})
    repo.git("add", "libs/middle")
    (problem,) = staged(repo.path).problems
    assert problem.message.endswith("libs/middle/nets.py defines no 'Deep'. Known: Other")


def test_nothing_is_said_of_submodules_that_the_clone_does_not_have(
    repo: Repo, tmp_path: Path
) -> None:
    repo.git("commit", "-qm", "middle")
    git(tmp_path, "clone", "-q", str(repo.path), "clone")
    opened = GitRepo(tmp_path / "clone")
    code = FoundCode(files_at(opened, opened.commit("HEAD")))
    assert code.problem("libs.middle.nets:Anything") is None
    assert code.signature("libs.middle.nets:Deep") is None
    assert not (tmp_path / "clone/.git/mtf").exists()
