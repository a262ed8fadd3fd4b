"""A machine without SLURM: what it trains by itself, and what it leaves to the cluster."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mtf.core.vocabulary.ids import CommitId
from mtf.core.vocabulary.states import RunState
from mtf.errors import MtfError
from mtf.framework import ModelTrainingFramework
from mtf.git.repo import GitRepo
from mtf.ledger.store import Change, LedgerStore
from tests.cli.lab import QUICK, make_lab, runs
from tests.cli.mtf import mtf, mtf_json
from tests.core.planner.worlds import experiment, record

if TYPE_CHECKING:
    from tests.repos import Repo

SLURM = {"sbatch", "scancel", "scontrol", "sinfo", "squeue", "sacct", "srun"}
SETTINGS = "executor: auto\nretry: {backoff: 0}\n"


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for folder in os.environ["PATH"].split(":"):
        for program in Path(folder).glob("*"):
            if program.name not in SLURM and not (programs / program.name).is_symlink():
                (programs / program.name).symlink_to(program)
    monkeypatch.setenv("PATH", str(programs))


def spec(name: str, slurm: str) -> str:
    text = QUICK.replace("kind: base", f"kind: experiment\nexperiment_name: {name}")
    return text.replace('slurm: {time: "00:10:00"}', f"slurm: {slurm}")


@pytest.fixture
def lab(tmp_path: Path) -> Repo:
    specs = {
        "here.yaml": spec("here", "{cpus_per_task: 1}"),
        "there.yaml": spec("there", "{partition: gpu}"),
    }
    return make_lab(tmp_path, specs, settings=SETTINGS)


def test_runs_for_a_partition_wait_and_the_others_train_here(lab: Repo) -> None:
    plan = mtf_json(lab.path, "plan", "--format", "json")
    assert [a["experiment"] for a in plan["actions"]] == ["here"]
    assert (plan["executor"], plan["cluster"], plan["waiting_for_slurm"]) == ("local", "default", 1)
    told = mtf(lab.path, "plan").stdout.splitlines()
    assert told[-3:-1] == [
        "new jobs: local (cluster default)",
        "note: there: 1 of its runs wait for a machine with SLURM: they ask for partition gpu."
        " To run them here: mtf sync --executor local",
    ]
    assert told[-1].startswith("Plan: 1 to submit, 0 unchanged, 1 waiting for SLURM.")
    told_by_sync = mtf(lab.path, "sync", "--wait").stderr
    assert (
        "new jobs: local (cluster default)\nSynced: 1 submitted, 1 waiting for SLURM"
        in told_by_sync
    )
    assert {n: r["state"] for n, r in runs(lab).items()} == {"here": "completed"}
    assert "1 to submit" in mtf(lab.path, "plan", "--executor", "local").stdout
    assert "1 to submit" in mtf(lab.path, "sync", "--dry-run", "--executor", "local").stdout
    assert "Synced: 1 submitted" in mtf(lab.path, "sync", "--executor", "local").stderr


def test_a_project_with_runs_on_slurm_trains_nothing_here_by_accident(lab: Repo) -> None:
    on_slurm(lab, RunState.COMPLETED)
    lab.commit({"experiments/new.yaml": spec("new", "{cpus_per_task: 1}")})
    lab.git("push", "-q", "origin", "main")
    told = mtf(lab.path, "sync").stderr
    assert "new: 1 of its runs wait for a machine with SLURM: runs of this repository have" in told
    assert sorted(runs(lab)) == ["alone"]
    (finding,) = doctor(lab)
    assert "New runs wait: runs of this repository have" in finding


def doctor(lab: Repo) -> list[str]:
    """Return the findings of doctor about the executor of the settings."""
    findings = json.loads(mtf(lab.path, "doctor", "--json", code=None).stdout)["findings"]
    return [f["what"] for f in findings if f["where"] == "mtf.yaml: executor"]


def test_doctor_says_where_the_runs_of_an_executor_that_is_not_named_train(lab: Repo) -> None:
    (finding,) = doctor(lab)
    assert "auto means local here" in finding
    lab.commit({"mtf.yaml": SETTINGS.replace("auto", "local")})
    lab.git("push", "-q", "origin", "main")
    assert doctor(lab) == []


def test_runs_go_to_a_named_executor_while_slurm_cannot_be_asked_about_others(lab: Repo) -> None:
    on_slurm(lab, RunState.PENDING)
    told = mtf(lab.path, "sync", "--executor", "local", code=3).stderr
    assert "slurm cannot be read" in told
    assert "Synced: 2 submitted" in told
    found = runs(lab)
    assert {n: r["executor"] for n, r in found.items()} == {
        "alone": "slurm",
        "here": "local",
        "there": "local",
    }
    assert found["alone"]["state"] == "pending"


def test_python_says_that_a_run_waits(lab: Repo) -> None:
    config = {
        "experiment_name": "asked",
        "model": {"type": "mlp"},
        "data": {"dataset_name": "digits"},
        "slurm": {"account": "lab"},
    }
    framework = ModelTrainingFramework(lab.path)
    with pytest.raises(MtfError, match=r"asked: .* they ask for account lab"):
        framework.run_experiment(config)
    assert runs(lab) == {}


def on_slurm(lab: Repo, state: RunState) -> None:
    """Record a run on SLURM, as a sync on the cluster does."""
    pin = CommitId(lab.git("rev-parse", "HEAD"))
    name = f"alone/20260101T000000Z/{pin[:8]}"
    run = record(experiment(), name, commit=pin, state=state, run_dir=str(lab.path / "runs" / name))
    store = LedgerStore(GitRepo(lab.path), "origin")
    store.fetch("main")
    store.append(store.read(), Change(runs=(run,)), "test")
