"""`mtf plan`: plans from the commit, never from the work tree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cli.mtf import mtf, mtf_json
from tests.cli.specs import SINGLE
from tests.repos import Repo, make_remote, make_repo

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    files = {"mtf.yaml": "executor: local\n", "experiments/alone.yaml": SINGLE}
    return make_repo(tmp_path / "r", files)


def planned(repo: Repo, *args: str) -> list[str]:
    return [
        a["experiment"] for a in mtf_json(repo.path, "plan", "--format", "json", *args)["actions"]
    ]


def test_a_dirty_work_tree_changes_nothing(repo: Repo) -> None:
    repo.write(
        {
            "experiments/alone.yaml": SINGLE.replace("alone", "changed"),
            "experiments/new.yaml": SINGLE.replace("alone", "new"),
            "experiments/broken.yaml": "kind: [",
            "mtf.yaml": "nonsense: true\n",
        }
    )
    repo.git("add", "experiments/new.yaml")
    assert planned(repo) == ["alone"]


def test_the_plan_is_for_the_tracked_branch_not_the_one_checked_out(repo: Repo) -> None:
    repo.git("checkout", "-q", "-b", "feature")
    repo.commit({"experiments/new.yaml": SINGLE.replace("alone", "new")})
    assert planned(repo) == ["alone"]
    assert planned(repo, "--rev", "feature") == ["alone", "new"]


def test_the_plan_is_for_the_branch_of_the_remote(repo: Repo, tmp_path: Path) -> None:
    make_remote(tmp_path / "bare.git", repo)
    unpushed = "note: main here has commits that origin lacks: git push\n"
    assert unpushed not in mtf(repo.path, "plan").stdout
    repo.commit({"experiments/new.yaml": SINGLE.replace("alone", "new")})
    assert planned(repo) == ["alone"]
    assert unpushed in mtf(repo.path, "plan").stdout
    repo.git("push", "-q", "origin", "main")
    repo.git("reset", "-q", "--hard", "HEAD~")
    assert planned(repo) == ["alone", "new"]
    assert unpushed not in mtf(repo.path, "plan").stdout, "it only lags behind"


def test_an_empty_plan_says_what_is_checked_out_but_not_planned(repo: Repo) -> None:
    nothing = ("plan", "--only", "nothing*")
    assert mtf(repo.path, *nothing).stderr == ""
    repo.git("checkout", "-q", "-b", "feature")
    assert mtf(repo.path, *nothing).stderr == (
        "note: the plan is for main; mtf plan --base main shows what merging feature means\n"
    )
    assert mtf(repo.path, "plan").stderr == "", "the plan is not empty"


def test_a_detached_head_does_not_matter(repo: Repo) -> None:
    repo.git("checkout", "-q", "--detach")
    assert planned(repo) == ["alone"]


def test_detailed_exit_codes_distinguish_an_empty_plan(repo: Repo) -> None:
    mtf(repo.path, "plan", "--detailed-exitcode", code=2)
    mtf(repo.path, "plan", "--detailed-exitcode", "--only", "nothing*", code=0)
    mtf(repo.path, "plan", "--no-such-option", code=64)


def test_warnings_are_shown_for_new_runs_alone(repo: Repo) -> None:
    eager = "experiments/eager.yaml"
    text = SINGLE.replace("slurm: {", "slurm: {cpus_per_task: 2, ").replace(
        "workers: 0", "workers: 9"
    )
    repo.commit({eager: text.replace("alone", "eager")})
    warning = f"{eager}:4:43: warning: data.num_workers: 9"
    lines = mtf(repo.path, "plan").stdout.splitlines()
    assert lines[-2].startswith(warning)
    found = mtf_json(repo.path, "plan", "--format", "json")["problems"]
    assert [(p["path"], p["line"], p["severity"]) for p in found] == [(eager, 4, "warning")]
    assert mtf_json(repo.path, "plan", "--format", "json", "--only", "alone")["problems"] == []
    assert warning in mtf(repo.path, "plan", "--base", "HEAD~1").stdout


def test_a_plan_writes_nothing(repo: Repo) -> None:
    before = repo.git("for-each-ref"), repo.git("status", "--porcelain", "--ignored")
    mtf(repo.path, "plan")
    assert (repo.git("for-each-ref"), repo.git("status", "--porcelain", "--ignored")) == before


@pytest.mark.parametrize("command", ["plan", "sync"])
class TestErrors:
    """Each prints a clear error, exits with 1 and writes nothing."""

    def test_a_folder_outside_a_repository_is_an_error(self, command: str, tmp_path: Path) -> None:
        assert "mtf init" in mtf(tmp_path, command, code=1).stderr

    def test_a_repository_without_commits_is_an_error(self, command: str, tmp_path: Path) -> None:
        assert "no commits yet" in mtf(make_repo(tmp_path / "r").path, command, code=1).stderr

    def test_a_tracked_branch_that_does_not_exist_is_an_error(
        self, command: str, repo: Repo
    ) -> None:
        repo.commit({"mtf.yaml": "branch: trunk\nexecutor: local\n"})
        assert "'trunk' does not exist" in mtf(repo.path, command, code=1).stderr

    def test_a_remote_that_does_not_exist_is_an_error(self, command: str, repo: Repo) -> None:
        repo.commit({"mtf.yaml": "remote: lab\nexecutor: local\n"})
        assert "git remote add lab" in mtf(repo.path, command, code=1).stderr

    def test_a_remote_that_cannot_be_reached_is_an_error(self, command: str, repo: Repo) -> None:
        repo.git("remote", "add", "origin", str(repo.path.parent / "gone.git"))
        assert "gone.git" in mtf(repo.path, command, code=1).stderr
        assert repo.git("for-each-ref", "refs/heads") == repo.git("for-each-ref", "refs/heads/main")

    def test_a_broken_spec_names_every_mistake(self, command: str, repo: Repo) -> None:
        repo.commit(
            {
                "experiments/alone.yaml": SINGLE.replace("lr: 1e-3", "lr: fast").replace(
                    "hidden_size", "hidden_siz"
                ),
                "experiments/second.yaml": "kind: experiment\nkind: grid\n",
            }
        )
        done = mtf(repo.path, command, code=1)
        output = done.stdout if command == "plan" else done.stderr
        lines = [line.removeprefix("error: ") for line in output.splitlines() if ".yaml:" in line]
        assert [line.split(": ")[0] for line in lines] == sorted(
            line.split(": ")[0] for line in lines
        )
        assert any(line.startswith("experiments/alone.yaml:6:") for line in lines)
        assert any(line.startswith("experiments/second.yaml:2:1: ") for line in lines)
        assert repo.git("for-each-ref", "refs/heads/mtf") == ""
        assert not (repo.path / "runs").exists()
