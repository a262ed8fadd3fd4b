"""What is in the work tree and in no commit is said by `mtf plan`, `mtf sync` and from Python."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from mtf.framework import ModelTrainingFramework
from tests.cli.mtf import mtf, mtf_json
from tests.cli.specs import SINGLE
from tests.repos import git, make_repo

if TYPE_CHECKING:
    from pathlib import Path

    from tests.repos import Repo


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return make_repo(
        tmp_path / "r",
        {
            "mtf.yaml": "executor: local\n",
            ".gitignore": "/runs/\n",
            "experiments/alone.yaml": SINGLE,
            "model.py": "",
            "labels.csv": "",
            "README.md": "",
        },
    )


def noted(repo: Repo) -> str | None:
    """Return the note of a plan on what is not committed."""
    notes = mtf_json(repo.path, "plan", "--only", "no*", "--format", "json", code=None)["notes"]
    found = [note for note in notes if note.startswith("not committed")]
    assert len(found) <= 1
    return found[0] if found else None


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"experiments/new.yaml": "kind: base\n"}, "1 spec (experiments/new.yaml)"),
        ({"experiments/alone.yaml": SINGLE + "# x\n"}, "1 spec (experiments/alone.yaml)"),
        ({"conf/model/small.yaml": ""}, "1 spec (conf/)"),
        ({"mtf.yaml": "executor: local\n# x\n"}, "1 settings file (mtf.yaml)"),
        ({"templates/job.sbatch.j2": "x"}, "1 settings file (templates/)"),
        ({"model.py": "x"}, "1 code file (model.py)"),
        ({"src/deep/layers.py": "x"}, "1 code file (src/)"),
        ({"labels.csv": "x"}, "1 other file (labels.csv)"),
        (
            {f"{name}.py": "" for name in "abcde"},
            "5 code files (a.py, b.py, c.py and 2 more)",
        ),
        ({"model.py": "x", "mtf.yaml": "remote: null\n"}, "1 settings file (mtf.yaml), 1 code"),
    ],
)
def test_changed_and_untracked_files_that_runs_need_are_noted(
    repo: Repo, files: dict[str, str], says: str
) -> None:
    repo.write(files)
    note = noted(repo)
    assert note is not None
    assert f"so no run will have it: {says}" in note


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"README.md": "x", "notes.txt": "", "data/new.csv": ""},
        {"runs/alone/x.py": "", ".venv/lib.py": "", "env/pyvenv.cfg": "", "env/lib.py": ""},
        {"wandb/run/code/train.py": ""},
    ],
)
def test_what_no_run_needs_is_not_noted(repo: Repo, files: dict[str, str]) -> None:
    repo.write(files)
    assert noted(repo) is None


def test_what_is_staged_is_not_committed_and_what_is_deleted_neither(repo: Repo) -> None:
    repo.write({"more.py": ""})
    repo.git("add", "more.py")
    repo.git("rm", "-q", "model.py")
    assert "2 code files (model.py, more.py)" in (noted(repo) or "")
    repo.git("commit", "-q", "-m", "x")
    assert noted(repo) is None


def test_a_sync_and_a_python_program_say_it_too(
    repo: Repo, caplog: pytest.LogCaptureFixture
) -> None:
    repo.write({"model.py": "x"})
    note = noted(repo)
    assert note is not None
    done = mtf(repo.path, "sync", "--only", "no*", "--json")
    assert f"note: {note}\n" in done.stderr
    repo.git("rm", "-q", "experiments/alone.yaml")
    repo.git("commit", "-q", "-m", "nothing to run")
    with caplog.at_level(logging.WARNING, "mtf"):
        assert note in ModelTrainingFramework(repo.path).sync().notes
    assert caplog.messages == [f"note: {note}"]


def test_a_bare_repository_has_nothing_to_note(repo: Repo, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", "--bare", str(repo.path), "bare.git")
    done = mtf(tmp_path / "bare.git", "plan", "--only", "no*", code=None)
    assert "not committed" not in done.stdout + done.stderr
