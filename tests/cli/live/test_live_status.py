"""`mtf status` and `mtf show` as of now: executors asked once, stale rows dated, nothing written."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.cli.lab import make_lab, runs, spec, stop_jobs, wait_until
from tests.cli.mtf import mtf, mtf_json
from tests.repos import git

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def stop_worker(tmp_path: Path) -> Iterator[None]:
    yield
    stop_jobs(tmp_path)


def test_status_follows_a_run_from_start_to_end_without_any_sync(tmp_path: Path) -> None:
    lab = make_lab(tmp_path, {"a.yaml": spec("a", pause=0.05, epochs=1)})
    mtf(lab.path, "sync")
    tip = lab.git("rev-parse", "mtf/ledger")
    wait_until(lambda: runs(lab)["a"]["state"] == "running", lambda: runs(lab))
    assert runs(lab)["a"]["live"]
    wait_until(lambda: runs(lab)["a"]["state"] == "completed", lambda: runs(lab))
    (now,) = mtf_json(lab.path, "show", "a", "--json")
    assert (now["state"], now["epoch"], now["live"]) == ("completed", 1, True)
    (recorded,) = mtf_json(lab.path, "status", "--json", "--recorded")
    assert (recorded["state"], recorded["epoch"], recorded["live"]) == ("pending", None, False)
    assert recorded["as_of"] < now["as_of"]
    assert lab.git("rev-parse", "mtf/ledger") == tip


def test_another_clone_says_how_old_the_states_are_that_it_cannot_see(tmp_path: Path) -> None:
    lab = make_lab(tmp_path, {"a.yaml": spec("a", pause=0.1, epochs=500)})
    mtf(lab.path, "sync")
    git(tmp_path, "clone", "-q", str(tmp_path / "lab.git"), "laptop")
    (row,) = mtf_json(tmp_path / "laptop", "status", "--json")
    assert not row["live"]
    shown = mtf(tmp_path / "laptop", "status")
    assert "AS OF" in shown.stdout
    assert (
        "another clone, host or cluster runs them: 1 active run shown as last seen" in shown.stderr
    )
    assert "another clone" in mtf(tmp_path / "laptop", "show", "a").stdout
    mtf(lab.path, "cancel", "a")


def test_a_cluster_that_cannot_be_asked_leaves_its_runs_as_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = make_lab(tmp_path, {"a.yaml": spec("a")})
    programs = tmp_path / "bin"
    programs.mkdir()
    away = "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1"
    texts = {"sbatch": "echo 77", "scontrol": "echo MaxArraySize = 1001", "squeue": away}
    for name, text in texts.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    mtf(lab.path, "sync", "--executor", "slurm")
    (programs / "scontrol").write_text(f"#!/bin/sh\n{away}\n")
    (row,) = mtf_json(lab.path, "status", "--json")
    assert (row["state"], row["live"], row["job_id"]) == ("pending", False, "77")
    shown = mtf(lab.path, "status")
    assert "slurm cannot be asked (slurm_load_jobs error: Unable to contact" in shown.stderr
    assert "1 active run shown as last seen" in shown.stderr
    assert "AS OF" in shown.stdout
