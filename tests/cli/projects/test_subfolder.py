"""A project in a folder of a larger repository: the daily loop, hooks, reviews and scripts."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from mtf.commands.init import init
from mtf.errors import MtfError
from tests.cli.lab import runs
from tests.cli.mtf import mtf, mtf_json
from tests.repos import Repo, git, make_remote, make_repo

if TYPE_CHECKING:
    from pathlib import Path

MODEL = """\
import os
import shared, torch
from helpers import size

class Net(torch.nn.Module):
    def __init__(self, num_classes, input_shape):
        super().__init__()
        assert os.path.basename(os.getcwd()) == "läb", os.getcwd()
        assert os.path.isfile("data.txt")
        self.layer = torch.nn.Linear(size, shared.CLASSES)
    def forward(self, x):
        return self.layer(x.flatten(1))
"""
SPEC = """\
kind: experiment
experiment_name: one
model: {type: "nets:Net"}
data: {dataset_name: digits, num_workers: 0}
training: {max_epochs: 1, batch_size: 256, use_amp: false}
optimizer: {lr: 1e-2}
rerun_on: [nets.py]
"""
FILES = {
    "README": "a larger repository",
    "shared/__init__.py": "CLASSES = 10\n",
    "läb/mtf.yaml": "executor: local\n",
    "läb/.gitignore": "/runs/\n",
    "läb/nets.py": MODEL,
    "läb/src/helpers.py": "size = 64\n",
    "läb/data.txt": "data",
    "läb/experiments/one.yaml": SPEC,
}


@pytest.fixture
def large(tmp_path: Path) -> Repo:
    repo = make_repo(tmp_path / "a large repo", FILES)
    make_remote(tmp_path / "large.git", repo)
    return repo


def test_the_daily_loop_works_in_the_folder(large: Repo) -> None:
    lab = large.path / "läb"
    assert mtf(lab, "validate").stderr == "2 files checked: no problems\n"
    assert "one  experiments/one.yaml" in mtf(lab, "plan").stdout
    mtf(lab, "sync", "--wait")
    (run,) = mtf_json(lab / "experiments", "status", "--json")
    assert (run["state"], run["reason"]) == ("completed", "")
    assert (lab / "runs" / run["run"]).is_dir()
    assert large.git("status", "--porcelain") == ""
    # a change beside the project changes nothing; one of its own file is a new run
    large.commit({"nets.py": "another"})
    large.git("push", "-q", "origin", "main")
    assert "nothing to do, 1 unchanged" in mtf(lab, "plan").stdout
    large.commit({"läb/nets.py": MODEL + "# changed\n"})
    large.git("push", "-q", "origin", "main")
    assert "1 to submit" in mtf(lab, "plan").stdout
    assert "1 run: 1 completed" in mtf(large.path, "-C", "läb", "status").stdout


def test_a_project_that_moves_keeps_its_runs(large: Repo) -> None:
    mtf(large.path / "läb", "sync", "--wait")
    large.git("mv", "läb", "moved")
    large.git("commit", "-qm", "move")
    large.git("push", "-q", "origin", "main")
    assert "nothing to do, 1 unchanged" in mtf(large.path / "moved", "plan").stdout
    assert runs(Repo(large.path / "moved"))["one"]["state"] == "completed"


def test_reviews_and_checks_of_commits_see_the_folder(large: Repo) -> None:
    large.git("switch", "-q", "-c", "wish")
    large.commit({"läb/experiments/one.yaml": SPEC.replace("1e-2", "1e-3"), "README": "x"})
    told = mtf(large.path / "läb", "plan", "--base", "main").stdout
    assert "optimizer.lr 0.01 -> 0.001" in told
    large.commit({"läb/experiments/one.yaml": SPEC.replace("max_epochs", "max_epoch")})
    for options in (["--rev", "HEAD"], ["--range", "main..HEAD"]):
        told = mtf(large.path / "läb", "validate", *options, code=1).stdout
        assert told.startswith("experiments/one.yaml:5:")
    annotation = mtf(large.path / "läb", "validate", "--format", "github", code=1).stdout
    assert annotation.startswith("::error file=läb/experiments/one.yaml,line=5")


def test_commands_outside_of_the_project_name_its_folder(large: Repo) -> None:
    for command in ("plan", "sync", "status", "validate"):
        told = mtf(large.path, command, code=1).stderr
        assert told == (
            "error: no mtf.yaml here or above, and one in läb."
            " Work there: cd läb, or mtf -C läb ...\n"
        )


def test_the_hooks_of_the_clone_check_the_project(large: Repo) -> None:
    bad = {"läb/experiments/one.yaml": SPEC.replace("max_epochs", "max_epoch")}
    mtf(large.path / "läb", "hooks", "install")
    large.write(bad)
    large.git("add", "-A")
    refused = subprocess.run(
        ["git", "commit", "-qm", "bad"], cwd=large.path / "läb", capture_output=True, text=True
    )
    assert refused.returncode == 1
    assert "läb/experiments/one.yaml:5:" in refused.stdout + refused.stderr
    large.git("commit", "-qnm", "bad")
    assert pushed(large).returncode == 1
    large.git("reset", "-q", "--hard", "origin/main")
    large.commit({"läb/experiments/one.yaml": SPEC.replace("1e-2", "1e-3")})
    done = pushed(large)
    assert (done.returncode, "mtf: main: 1 changed run" in done.stderr) == (0, True), done.stderr


def pushed(repo: Repo) -> subprocess.CompletedProcess[str]:
    command = ["git", "push", "-q", "origin", "main"]
    return subprocess.run(command, cwd=repo.path, capture_output=True, text=True, check=False)


def test_the_hook_of_the_server_checks_the_project(large: Repo) -> None:
    bare = large.path.parent / "large.git"
    mtf(bare, "hooks", "install")
    large.commit({"läb/experiments/one.yaml": SPEC.replace("max_epochs", "max_epoch")})
    refused = pushed(large)
    assert refused.returncode == 1
    assert "läb/experiments/one.yaml:5:" in refused.stderr
    assert git(bare, "rev-parse", "main") == large.git("rev-parse", "origin/main")


def test_a_controller_works_in_the_folder(large: Repo) -> None:
    unit = mtf(large.path / "läb", "controller", "unit").stdout
    assert f'"-C" "{large.path}/läb" "sync" "--watch"' in unit
    assert sys.executable in unit


def test_a_second_project_that_would_share_the_ledger_is_refused(large: Repo) -> None:
    mtf(large.path / "läb", "sync", "--wait")
    other = {"mtf.yaml": "executor: local\n", "experiments/one.yaml": SPEC}
    large.commit({f"other/{path}": text for path, text in other.items()})
    large.git("push", "-q", "origin", "main")
    for command in ("plan", "sync"):
        told = mtf(large.path / "other", command, code=1).stderr
        assert told.startswith("error: this repository has a project in läb, whose runs are in")
    assert "nothing to do, 1 unchanged" in mtf(large.path / "läb", "plan").stdout


def test_code_at_the_top_of_the_repository_is_known_to_every_check(large: Repo) -> None:
    spec = SPEC.replace("nets:Net", "shared.nets:Net")
    large.commit({"shared/nets.py": MODEL, "läb/experiments/one.yaml": spec})
    mtf(large.path / "läb", "validate")
    mtf(large.path / "läb", "validate", "--rev", "HEAD")
    wrong = spec.replace("shared.nets", "shared.nuts")
    large.write({"läb/experiments/one.yaml": wrong})
    assert "nuts" in mtf(large.path / "läb", "validate", code=1).stdout


def test_a_second_project_is_noticed_before_either_has_runs(large: Repo) -> None:
    expected = "warning: this repository has another project in läb. They would share one ledger"
    with pytest.raises(MtfError, match="another project in läb"):
        init(large.path / "other", demo=False)
    assert list((large.path / "other").iterdir()) == []
    large.commit({"other/mtf.yaml": "executor: local\n", "other/experiments/one.yaml": SPEC})
    large.git("push", "-q", "origin", "main")
    other = large.path / "other"
    for options in ((), ("--rev", "HEAD")):
        told = mtf(other, "validate", *options).stdout
        assert told.startswith(f"mtf.yaml:1:1: {expected}")
    told = mtf(large.path, "validate", "--staged").stdout
    assert told == ""  # nothing that concerns either
    large.write({"other/experiments/one.yaml": SPEC.replace("1e-2", "1e-3")})
    large.git("add", "-A")
    told = mtf(large.path, "validate", "--staged").stdout
    assert [line.partition(".")[0] for line in told.splitlines()] == ["läb/mtf", "other/mtf"]
    (finding,) = [
        f for f in mtf_json(other, "doctor", "--json")["findings"] if "another project" in f["what"]
    ]
    assert finding["severity"] == "warning"
