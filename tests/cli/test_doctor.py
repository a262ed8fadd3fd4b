"""`mtf doctor`: findings in sound and in faulty repositories, and their repairs."""

from __future__ import annotations

import hashlib
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from mtf.core.vocabulary.ids import CommitId
from mtf.core.vocabulary.records import Checkpoint
from mtf.core.vocabulary.states import RunState
from mtf.git.repo import GitRepo
from mtf.ledger.store import Change, LedgerStore
from tests.cli.lab import SETTINGS, make_lab, push, spec
from tests.cli.mtf import mtf, mtf_json
from tests.core.planner.worlds import experiment, record
from tests.repos import Repo, git, make_repo

if TYPE_CHECKING:
    from pathlib import Path


def found(folder: Path, *options: str, code: int) -> list[dict[str, Any]]:
    return list(mtf_json(folder, "doctor", "--json", *options, code=code)["findings"])


def test_a_sound_repository_has_no_findings_once_its_hooks_are_installed(tmp_path: Path) -> None:
    lab = make_lab(tmp_path, {"a.yaml": spec("a")})
    assert [f["what"].partition(":")[0] for f in found(lab.path, code=0)] == [
        "the git hooks are not installed"
    ]
    mtf(lab.path, "hooks", "install")
    text = mtf(lab.path, "doctor").stdout
    assert "0 errors, 0 warnings" in text
    assert "ok: repository, settings, storage, executor, environment, ledger, runs" in text


def by_place(folder: Path, below: Path, *options: str) -> dict[str, dict[str, Any]]:
    """Return the errors and warnings by the place they name, relative to ``below``."""
    findings = found(folder, *options, code=1)
    return {f["where"].removeprefix(f"{below}/"): f for f in findings}


def test_the_repair_of_a_blocking_branch_removes_the_finding(tmp_path: Path) -> None:
    lab = make_lab(tmp_path, {"a.yaml": spec("a")})
    lab.git("branch", "mtf")
    git(tmp_path / "lab.git", "branch", "slurm-job/old", "main")
    findings = by_place(lab.path, tmp_path)
    here, there = "refs/heads/mtf", "origin refs/heads/slurm-job/old"
    assert findings[here]["repair"] == "git branch -m mtf mtf-renamed"
    for place in (here, there):
        assert "keeps mtf's own branches from being created" in findings[place]["what"]
        lab.git(*findings[place]["repair"].split()[1:])
    mtf(lab.path, "doctor")


def test_the_repair_of_eager_pruning_removes_the_finding(tmp_path: Path) -> None:
    lab = make_lab(tmp_path, {"a.yaml": spec("a")})
    lab.git("config", "gc.pruneExpire", "now")
    finding = by_place(lab.path, tmp_path)["gc.pruneExpire"]
    assert finding["severity"] == "error"
    lab.git(*finding["repair"].split()[1:])
    mtf(lab.path, "doctor")


def test_a_committed_mistake_is_found_at_its_place(tmp_path: Path) -> None:
    lab = make_lab(tmp_path, {"a.yaml": spec("a")})
    push(lab, {"experiments/a.yaml": spec("a").replace("1e-2", "fast")})
    assert "lr" in by_place(lab.path, tmp_path)["main:experiments/a.yaml:6:30"]["what"]


def test_a_run_root_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    lab = make_lab(tmp_path, {"a.yaml": spec("a")})
    lab.write({"runs": "a file"})
    assert "cannot be written" in by_place(lab.path, tmp_path)["lab/runs"]["what"]


def test_a_remote_that_is_gone_is_an_error_with_gits_own_words(tmp_path: Path) -> None:
    lab = make_lab(tmp_path, {"a.yaml": spec("a")})
    (tmp_path / "lab.git").rename(tmp_path / "away.git")
    text = mtf(lab.path, "doctor", code=1).stdout
    assert "error: repository: the remote cannot be reached, so nothing can be synced: " in text
    assert "  fatal: Could not read from remote repository.\n" in text
    assert "  repair: git ls-remote origin\n" in text
    assert text.count("error: ") == 1, "the ledger's check does not report it again"


def test_a_repository_without_its_remote_gets_a_warning(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "r", {"experiments/a.yaml": spec("a")})
    warnings = {f["where"]: f["repair"] for f in found(repo.path, code=0)}
    assert warnings["remote origin"] == "git remote add origin URL"


def test_a_shallow_clone_gets_a_warning(tmp_path: Path) -> None:
    lab = make_lab(tmp_path, {"a.yaml": spec("a")})
    push(lab, {"note": "x"})
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{tmp_path / 'lab.git'}", "shallow")
    findings = found(tmp_path / "shallow", code=0)
    assert "git fetch --unshallow" in {f["repair"] for f in findings}


def test_a_missing_virtual_environment_of_jobs_is_an_error(tmp_path: Path) -> None:
    settings = f"{SETTINGS}environment: {{venv: {tmp_path}/none}}\n"
    lab = make_lab(tmp_path, {"a.yaml": spec("a")}, settings=settings)
    finding = by_place(lab.path, tmp_path)["none/bin/python"]
    assert (finding["theme"], finding["severity"]) == ("environment", "error")
    assert finding["repair"].startswith(f"python3 -m venv {tmp_path}/none")


@pytest.fixture
def finished(tmp_path: Path) -> tuple[Repo, Path]:
    """Return a repository with a completed run in its ledger, and the run's checkpoint."""
    repo = make_repo(tmp_path / "r", {"mtf.yaml": SETTINGS, "experiments/a.yaml": spec("a")})
    mtf(repo.path, "hooks", "install")
    pin = CommitId(repo.git("rev-parse", "HEAD"))
    run = f"a/20260101T000000Z/{pin[:8]}"
    folder = repo.path / "runs" / run
    checkpoint = folder / "checkpoints" / "epoch_001_step_000010.ckpt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"weights")
    sha256 = hashlib.sha256(b"weights").hexdigest()
    done = record(
        experiment("a"),
        run,
        branch=f"slurm-job/{run}",
        commit=pin,
        state=RunState.COMPLETED,
        executor="local",
        run_dir=str(folder),
        max_epochs=1,
        checkpoint=Checkpoint(str(checkpoint), 10, sha256, 7),
    )
    store = LedgerStore(GitRepo(repo.path), None)
    pinned = {f"refs/heads/{done.branch}": pin}
    store.append(store.read(), Change(runs=(done,), branches=pinned), "one")
    return repo, checkpoint


def of_runs(repo: Repo, *options: str) -> list[str]:
    findings = mtf_json(repo.path, "doctor", "--json", *options, code=None)["findings"]
    return [f["what"] for f in findings if f["theme"] == "runs"]


def test_a_sound_run_has_no_findings(finished: tuple[Repo, Path]) -> None:
    repo, _ = finished
    assert of_runs(repo, "--checksums") == []


def test_a_missing_checkpoint_is_found(finished: tuple[Repo, Path]) -> None:
    repo, checkpoint = finished
    checkpoint.unlink()
    (what,) = of_runs(repo)
    assert what.endswith("is missing, so nothing can resume from it")


def test_a_truncated_checkpoint_is_found_by_its_size(finished: tuple[Repo, Path]) -> None:
    repo, checkpoint = finished
    checkpoint.write_bytes(b"weig")
    (what,) = of_runs(repo)
    assert "has 4 bytes instead of 7" in what


def test_a_damaged_checkpoint_is_found_by_its_checksum_alone(finished: tuple[Repo, Path]) -> None:
    repo, checkpoint = finished
    checkpoint.write_bytes(b"WEIGHTS")
    assert of_runs(repo) == []
    (what,) = of_runs(repo, "--checksums")
    assert "has another sha256 than recorded" in what


def test_a_missing_run_folder_is_found_once(finished: tuple[Repo, Path]) -> None:
    repo, checkpoint = finished
    shutil.rmtree(checkpoint.parents[1])
    (what,) = of_runs(repo)
    assert "is completed, but its folder is gone, with its checkpoints" in what


def test_a_torn_journal_line_is_found_by_its_number(finished: tuple[Repo, Path]) -> None:
    repo, checkpoint = finished
    journal = checkpoint.parents[1] / "journal.jsonl"
    journal.write_text('{"event": "started"}\n{"event": "che\n\n{"event": "finished"}\n')
    findings = mtf_json(repo.path, "doctor", "--json", code=None)["findings"]
    torn = [f["where"] for f in findings if "torn" in f["what"]]
    assert torn == [f"{journal}:2"]


def test_leftovers_of_killed_syncs_are_found(finished: tuple[Repo, Path]) -> None:
    repo, _ = finished
    half = repo.path / "runs" / ".code" / ".half"
    half.mkdir(parents=True)
    repo.git("update-ref", "refs/mtf/scratch/1", "HEAD")
    places = {f["where"] for f in mtf_json(repo.path, "doctor", "--json", code=None)["findings"]}
    assert places >= {str(half), "refs/mtf/scratch/1"}


def test_a_folder_outside_a_repository_is_a_finding(tmp_path: Path) -> None:
    (only,) = found(tmp_path, code=1)
    assert "not in a git repository" in only["what"]
    assert only["repair"].startswith("mtf init")


def test_before_the_first_commit_the_repair_is_to_commit(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (only,) = found(tmp_path, code=1)
    assert only["repair"].startswith("commit first: git add --all && git commit")


def test_a_lab_with_policies_is_told_what_does_not_hold_them_up(tmp_path: Path) -> None:
    lab = make_lab(
        tmp_path, {"a.yaml": spec("a")}, settings=SETTINGS + "policies: {require_signed: true}\n"
    )

    def places() -> dict[str, str]:
        findings = mtf_json(lab.path, "doctor", "--json", code=None)["findings"]
        return {f["where"]: f["repair"] for f in findings if f["theme"] == "security"}

    found = places()
    hook = tmp_path / "lab.git" / "hooks" / "pre-receive"
    assert found.keys() == {
        "mtf.yaml: policies.require_signed",
        "mtf/ledger",
        "mtf.yaml",
        str(hook),
    }
    for place in ("mtf.yaml: policies.require_signed", "mtf/ledger"):
        lab.git(*found[place].split()[1:])
    mtf(tmp_path / "lab.git", "hooks", "install")
    push(lab, {".github/CODEOWNERS": "/mtf.yaml @boss\n/templates/ @boss\n"})
    assert places() == {}
    lab.git("config", "gpg.format", "ssh")
    assert places().keys() == {"gpg.ssh.allowedSignersFile"}
    lab.git("config", "gpg.format", "openpgp")
    lab.git("config", "gpg.program", "no-such-gpg")
    assert places().keys() == {"gpg.program"}
    hook.chmod(0o644)  # git does not run it
    push(lab, {".github/CODEOWNERS": "* @boss\n/mtf.yaml\n"})  # nobody in particular
    assert places().keys() == {"gpg.program", "mtf.yaml", str(hook)}
    push(lab, {".github/CODEOWNERS": "[Lab] @boss\n/mtf.yaml\n"})  # the owners of the section
    assert places().keys() == {"gpg.program", str(hook)}


def test_variables_of_sbatch_that_mtf_does_not_pass_on_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mtf.commands.doctor.check_executors import unused_environment
    from mtf.commands.doctor.finding import Checkup
    from mtf.project.project import open_project

    lab = make_lab(tmp_path, {"a.yaml": spec("a")}, settings=f"{SETTINGS}slurm: {{qos: high}}\n")
    given = {"SBATCH_ACCOUNT": "lab", "SBATCH_QOS": "low", "SBATCH_GRES": "gpu:1"}
    for name, value in {**given, "SQUEUE_FORMAT": "%i"}.items():
        monkeypatch.setenv(name, value)
    checkup = Checkup(open_project(lab.path), checksums=False)
    monkeypatch.setattr(Checkup, "executor", "slurm")
    findings = {f.what.split()[0]: f.repair for f in unused_environment(checkup)}
    assert findings.keys() == {"SBATCH_ACCOUNT", "SBATCH_GRES", "SQUEUE_FORMAT"}
    assert "slurm: {account: ...}" in findings["SBATCH_ACCOUNT"]
    assert "slurm: {extra: ...}" in findings["SBATCH_GRES"]
