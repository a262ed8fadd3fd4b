"""`mtf run`: one experiment at once, with the code of HEAD or of a snapshot."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cli.lab import GRID, QUICK, make_lab, runs, spec, states, stop_jobs, wait_until
from tests.cli.mtf import mtf, mtf_json
from tests.repos import git, make_repo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.repos import Repo

A, S = "experiments/a.yaml", "experiments/search.yaml"


@pytest.fixture(autouse=True)
def stop_worker(tmp_path: Path) -> Iterator[None]:
    yield
    stop_jobs(tmp_path)


@pytest.fixture
def lab(tmp_path: Path) -> Repo:
    return make_lab(tmp_path, {"a.yaml": spec("a"), "quick.yaml": QUICK, "search.yaml": GRID})


def refused(lab: Repo, *args: str) -> str:
    """Return the error of `mtf run`, which has changed nothing."""
    before = lab.git("for-each-ref"), lab.git("status", "--porcelain")
    error = mtf(lab.path, "run", *args, code=1).stderr
    assert (lab.git("for-each-ref"), lab.git("status", "--porcelain")) == before
    return error


def started(lab: Repo, *args: str) -> subprocess.Popen[str]:
    """Start `mtf run` in a process of its own."""
    command = [sys.executable, "-m", "mtf.cli", "run", *args]
    env = dict(os.environ)
    return subprocess.Popen(command, cwd=lab.path, stderr=subprocess.PIPE, text=True, env=env)


def test_uncommitted_specs_and_code_are_refused_by_name(lab: Repo) -> None:
    lab.write({"README.md": "notes", "data/x.csv": "1"})  # of which no run depends
    lab.write({"models.py": "raise SystemExit", "experiments/b.yaml": spec("b"), "new/code.py": ""})
    lab.write({"mtf.yaml": (lab.path / "mtf.yaml").read_text() + "\n"})
    lab.git("add", "mtf.yaml")
    error = refused(lab, "experiments/b.yaml")
    for name in ("experiments/b.yaml", "models.py", "new/", "mtf.yaml", "mtf run --snapshot"):
        assert name in error
    assert "README" not in error
    assert "x.csv" not in error


def test_a_spec_that_cannot_run_is_refused_with_what_to_do(lab: Repo) -> None:
    assert "Did you mean 'experiments/a.yaml'?" in refused(lab, "experiments/aa.yaml")
    grid = refused(lab, S)
    assert "a grid of 4 runs" in grid
    assert "--member NAME: optimizer.lr=0.001,training.seed=1" in grid
    assert "has no member lr=3" in refused(lab, S, "--member", "lr=3")
    assert "is a base" in refused(lab, "experiments/quick.yaml")
    lab.write({".gitignore": "/runs/\nmine.yaml\n", "experiments/mine.yaml": spec("mine")})
    assert "git ignores it" in refused(lab, "experiments/mine.yaml", "--snapshot")
    lab.write({"elsewhere.yaml": spec("c")})
    assert "in experiments/ of the project" in refused(lab, "elsewhere.yaml", "--snapshot")
    lab.write({A: spec("a").replace("max_epochs", "max_epoch")})
    assert f"{A}:5:" in refused(lab, A, "--snapshot")


def test_a_snapshot_of_what_no_commit_should_have_is_refused(lab: Repo, tmp_path: Path) -> None:
    (lab.path / "weights.bin").write_bytes(bytes(11 << 20))
    error = refused(lab, A, "--snapshot")
    assert "weights.bin (11 MiB)" in error
    assert ".gitignore" in error
    (lab.path / "weights.bin").unlink()
    make_repo(lab.path / "vendored", {"x": "1"})
    assert "vendored: a snapshot cannot have the changes of another" in refused(
        lab, A, "--snapshot"
    )


@pytest.mark.parametrize("policy", ["branches: [main]", "require_signed: true"])
def test_a_snapshot_is_refused_where_commits_are_reviewed(lab: Repo, policy: str) -> None:
    settings = (lab.path / "mtf.yaml").read_text()
    lab.commit({"mtf.yaml": f"{settings}policies: {{{policy}}}\n"})
    lab.git("push", "-q", "origin", "main")
    lab.write({A: spec("a", epochs=1), "mtf.yaml": settings})  # the snapshot cannot drop the rule
    error = refused(lab, A, "--snapshot")
    assert "a snapshot of the work tree is unsigned and nobody has reviewed it" in error
    assert policy.partition(":")[0] in error


def test_a_run_and_its_snapshot_are_recorded_like_any_other(lab: Repo, tmp_path: Path) -> None:
    # a first run of HEAD, which is that of the committed spec
    done = mtf(lab.path, "run", A, "--local")
    assert "epoch    2/2, step" in done.stderr
    assert "completed a/" in done.stderr
    first = runs(lab, "a")["a"]
    assert (first["state"], first["commit"]) == ("completed", lab.git("rev-parse", "HEAD"))
    actions = mtf_json(lab.path, "plan", "--format", "json", "--prune")["actions"]
    assert [a["experiment"] for a in actions if a["experiment"] == "a"] == []

    # the same code and values: nothing is submitted
    again = mtf_json(lab.path, "run", A, "--json")
    assert (again["run"], again["is_new"]) == (first["run"], False)

    # a snapshot of changed code is another run, and never that of the committed spec
    models = (lab.path / "models.py").read_text().replace("0.5", "0.25")
    lab.write({"models.py": models, "experiments/b.yaml": spec("b", epochs=1)})
    before = lab.git("status", "--porcelain"), lab.git("rev-parse", "HEAD")
    new = json.loads(mtf(lab.path, "run", A, "--snapshot", "--fast", "--json").stdout)
    assert (lab.git("status", "--porcelain"), lab.git("rev-parse", "HEAD")) == before
    assert (new["state"], new["snapshot_of"], new["trial"]) == ("completed", before[1], True)
    assert (new["experiment"], new["step"], new["epoch"]) == ("a-fast", 3, 1)
    assert git(tmp_path / "lab.git", "show", f"{new['branch']}:models.py") == models.strip()
    assert "snapshot" in mtf(lab.path, "show", "a-fast").stdout
    assert "snapshot, trial" in mtf(lab.path, "status").stdout
    assert "started it" in mtf(lab.path, "rerun", "a-fast", "--yes", code=1).stderr

    # no sync touches it, whatever is committed then
    lab.git("checkout", "-q", "models.py")
    lab.git("rm", "-q", A, S)
    lab.git("commit", "-q", "-m", "none")
    lab.git("push", "-q", "origin", "main")
    assert mtf_json(lab.path, "plan", "--format", "json", "--prune")["actions"] == []


def test_a_failed_run_is_run_again_in_its_place(lab: Repo) -> None:
    lab.commit({A: spec("a", model="Broken")})
    process = started(lab, A, "--fast")
    _, said = process.communicate(timeout=120)
    assert process.returncode == 3
    assert "Traceback" in said  # the job's own
    assert "is failed: ValueError: the flux is out of range (models.py:17)" in said
    old = runs(lab)["a-fast"]
    assert (old["state"], len(old["attempts"])) == ("failed", 1)
    mtf(lab.path, "run", A, "--fast", "--no-wait")
    new = runs(lab)["a-fast"]
    assert new["run"] != old["run"]
    assert runs(lab, "--all", old["run"])["a-fast"]["superseded_by"] == new["run"]


def test_ctrl_c_cancels_a_run_on_this_machine(lab: Repo) -> None:
    lab.commit({A: spec("a", pause=0.05, epochs=50)})
    process = started(lab, A)
    wait_until(lambda: bool(runs(lab).get("a", {}).get("step")), lambda: runs(lab))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert f"cancelled {runs(lab)['a']['run']}" in said
    assert "mtf retry" in said
    assert states(runs(lab, "--recorded")) == {"a": "cancelled"}
