"""`mtf doctor`: what is wrong, where, and the command that repairs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.cli.lab import make_lab, push, spec
from tests.cli.mtf import mtf, mtf_json
from tests.repos import git

if TYPE_CHECKING:
    from pathlib import Path


def found(folder: Path, *options: str, code: int) -> list[dict[str, Any]]:
    return list(mtf_json(folder, "doctor", "--json", *options, code=code)["findings"])


def test_a_sound_repository_is_told_to_be_so(tmp_path: Path) -> None:
    lab = make_lab(tmp_path, {"a.yaml": spec("a")})
    assert [f["what"].partition(":")[0] for f in found(lab.path, code=0)] == [
        "the git hooks are not installed"
    ]
    mtf(lab.path, "hooks", "install")
    told = mtf(lab.path, "doctor").stdout
    assert "0 errors, 0 warnings" in told
    assert "ok: repository, settings, storage, executor, environment, ledger, runs" in told


def test_what_hinders_a_repository_is_named_with_its_cure(tmp_path: Path) -> None:
    lab = make_lab(tmp_path, {"a.yaml": spec("a")})
    push(lab, {"experiments/a.yaml": spec("a").replace("1e-2", "fast")})
    lab.git("branch", "mtf")
    git(tmp_path / "lab.git", "branch", "slurm-job/old", "main")
    lab.git("config", "gc.pruneExpire", "now")
    lab.write({"runs": "a file"})
    wrong = {f["where"].removeprefix(f"{tmp_path}/"): f for f in found(lab.path, code=1)}
    assert wrong["refs/heads/mtf"]["repair"] == "git branch -m mtf mtf-renamed"
    lab.git(*wrong["refs/heads/mtf"]["repair"].split()[1:])
    assert wrong["gc.pruneExpire"]["severity"] == "error"
    remote = wrong["origin refs/heads/slurm-job/old"]
    lab.git(*remote["repair"].split()[1:])
    assert "lr" in wrong["main:experiments/a.yaml:6:30"]["what"]
    assert "cannot be written" in wrong["lab/runs"]["what"]
    again = {f["where"] for f in found(lab.path, code=1)}
    assert not again & {"refs/heads/mtf", "origin refs/heads/slurm-job/old"}


def test_no_repository_is_a_finding_too(tmp_path: Path) -> None:
    (only,) = found(tmp_path, code=1)
    assert "not in a git repository" in only["what"]
