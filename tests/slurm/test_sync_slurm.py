"""`mtf sync` on a real cluster: training, preemption, refusals, and a submitter that dies."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mtf import rundir
from tests.cli.lab import (
    GRID,
    QUICK,
    SETTINGS,
    make_lab,
    push,
    runs,
    spec,
    states,
    sync_until,
    wait_until,
)
from tests.cli.mtf import mtf, mtf_json

if TYPE_CHECKING:
    from tests.repos import Repo
    from tests.slurm_cluster import Cluster

pytestmark = pytest.mark.slurm
ON_SLURM = SETTINGS.replace("executor: local", "executor: auto")
# a run that does not train: only the number of its starts matters
NOTE = """\
import pathlib, os
def main(run):
    with (pathlib.Path(run.run_dir) / "lives").open("a") as f:
        f.write(os.environ["MTF_JOB_ID"] + "\\n")
"""
NOTED = """\
kind: grid
name: noted
base:
  entrypoint: "note:main"
  model: {type: mlp}
  data: {dataset_name: digits}
  training: {use_amp: false}
  optimizer: {type: adamw}
  slurm: {time: "00:05:00"}
parameters: {training.seed: [1, 2, 3, 4]}
"""


@pytest.fixture
def shims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder at the head of PATH for programs that replace SLURM's."""
    folder = tmp_path / "shims"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def shim(folder: Path, text: str) -> Path:
    real = next(p for p in os.environ["PATH"].split(":")[1:] if (Path(p) / "sbatch").exists())
    path = folder / "sbatch"
    path.write_text(f"#!/bin/bash\nreal={real}/sbatch\n{text}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def lives(lab: Repo) -> list[int]:
    """Return the number of starts of each run of `noted`, as the run counted them."""
    found = [Path(r["run_dir"]) / "lives" for r in runs(lab).values()]
    return [len(p.read_text().splitlines()) if p.exists() else 0 for p in found]


def test_a_grid_is_trained_by_one_array_and_its_results_are_in_git(
    cluster: Cluster, tmp_path: Path
) -> None:
    lab = make_lab(tmp_path, {"quick.yaml": QUICK, "search.yaml": GRID}, settings=ON_SLURM)
    mtf(lab.path, "sync", "--wait", "--interval", "0.5", timeout=200)
    found = runs(lab)
    assert set(states(found).values()) == {"completed"}
    assert len({r["job_id"].split("_")[0] for r in found.values()}) == 1
    for run in found.values():
        assert (run["executor"], run["sync"]) == ("slurm", "Synced")
        assert run["attempts"][0]["node"].startswith("n")
        assert (Path(run["run_dir"]) / f"{run['job_id']}.out").exists()
        assert Path(run["checkpoint"]["path"]).exists()
    assert mtf_json(lab.path, "plan", "--format", "json")["actions"] == []
    assert "completed" in cluster.run("squeue", "-h", "-t", "all", "-o", "%T").lower()


def test_a_preempted_training_resumes_and_ends_bit_identical(
    cluster: Cluster, tmp_path: Path
) -> None:
    text = spec("slow", pause=0.15, epochs=3)
    text = text.replace("slurm: {time", "slurm: {partition: low, cpus_per_task: 4, time")
    lab = make_lab(
        tmp_path, {"slow.yaml": text, "twin.yaml": spec("twin", epochs=3)}, settings=ON_SLURM
    )
    sync_until(lab, lambda f: f["slow"]["state"] == "running" and (f["slow"]["step"] or 0) > 5)
    rivals = [
        "sbatch",
        "--parsable",
        "--partition=high",
        "--array=0-3",
        "--cpus-per-task=4",
        "--output=/dev/null",
    ]
    rival = cluster.run(*rivals, "--wrap=sleep 600").strip()
    found = sync_until(lab, lambda f: f["slow"]["state"] == "preempted")
    assert found["slow"]["reason"].startswith("requeued")
    job = found["slow"]["job_id"]
    cluster.run("scancel", rival)
    found = sync_until(lab, lambda f: set(states(f).values()) == {"completed"})
    assert found["slow"]["job_id"] == job
    facts = rundir.read_journal(Path(found["slow"]["run_dir"]))
    events = [f["event"] for f in facts]
    assert events.count("started") == 2
    assert [f["reason"] for f in facts if f["event"] == "stopped"] == ["SIGTERM"]
    assert found["slow"]["metrics"] == found["twin"]["metrics"]


def test_a_cancellation_by_hand_stays_and_is_shown_as_drift(
    cluster: Cluster, tmp_path: Path
) -> None:
    lab = make_lab(
        tmp_path, {"endless.yaml": spec("endless", pause=0.1, epochs=500)}, settings=ON_SLURM
    )
    found = sync_until(lab, lambda f: f["endless"]["state"] == "running")
    cluster.run("scancel", found["endless"]["job_id"])
    # without a sync, and before the accounting knows by whom
    wait_until(lambda: runs(lab)["endless"]["sync"] == "OutOfSync", lambda: runs(lab))
    assert runs(lab)["endless"]["state"] == "cancelled"
    found = sync_until(lab, lambda f: " by " in f["endless"]["reason"])
    who = f"cancelled by {pwd.getpwuid(os.getuid()).pw_name} outside mtf"
    assert found["endless"]["reason"].startswith(who)
    assert found["endless"]["cause"] == "cancelled"
    assert mtf_json(lab.path, "plan", "--format", "json")["actions"] == []


def test_a_refused_submission_is_recorded_with_slurms_words(
    cluster: Cluster, tmp_path: Path
) -> None:
    bad = spec("bad").replace("slurm: {time", "slurm: {partition: nowhere, time")
    lab = make_lab(tmp_path, {"bad.yaml": bad}, settings=ON_SLURM)
    done = mtf(lab.path, "sync", code=3)
    assert "Invalid partition name" in done.stderr
    found = runs(lab)["bad"]
    assert found["state"] == "failed"
    assert "Invalid partition name" in found["reason"]
    assert mtf_json(lab.path, "plan", "--format", "json")["actions"] == []
    assert [p.name for p in (lab.path / "runs").iterdir()] == [".code"], "nothing else is left"

    # the commit that corrects it is submitted, as if nothing had been
    push(
        lab, {"experiments/bad.yaml": spec("bad").replace("slurm: {", "slurm: {extra: [--hold], ")}
    )
    (action,) = mtf_json(lab.path, "plan", "--format", "json")["actions"]
    assert action["reason"] == f"{found['run']} was refused"
    mtf(lab.path, "sync")
    (new,) = mtf_json(lab.path, "status", "--json")
    assert (new["state"], new["run"] != found["run"]) == ("pending", True)
    left = mtf_json(lab.path, "plan", "--format", "json")["actions"]
    assert "submit" not in {action["action"] for action in left}


def test_a_controller_that_is_down_changes_nothing(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = make_lab(tmp_path, {"a.yaml": spec("a")}, settings=ON_SLURM)
    port = next(
        line for line in cluster.conf.read_text().splitlines() if line.startswith("SlurmctldPort=")
    )
    other = tmp_path / "slurm.conf"
    other.write_text(
        cluster.conf.read_text().replace(port, "SlurmctldPort=9") + "MessageTimeout=2\n"
    )
    with monkeypatch.context() as patch:
        patch.setenv("SLURM_CONF", str(other))
        assert "controller" in mtf(lab.path, "sync", code=1).stderr
        assert lab.git("for-each-ref", "refs/heads/mtf") == ""
    mtf(lab.path, "sync")
    assert states(runs(lab, "--recorded")) == {"a": "pending"}


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param('"$real" "$@" >/dev/null; kill -9 $PPID', id="killed right after sbatch"),
        pytest.param("kill -9 $PPID", id="killed right before sbatch"),
        pytest.param(
            '"$real" "$@" >/dev/null; echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2; exit 1',
            id="sbatch lies",
        ),
    ],
)
def test_every_run_is_executed_once_whatever_happens_at_its_submission(
    cluster: Cluster, tmp_path: Path, shims: Path, fault: str
) -> None:
    lab = make_lab(tmp_path, {"noted.yaml": NOTED}, settings=ON_SLURM)
    push(lab, {"note.py": NOTE})
    broken = shim(shims, fault)
    mtf(lab.path, "sync", code=None)
    broken.unlink()
    assert set(states(runs(lab, "--recorded")).values()) == {"claimed"}
    found = sync_until(lab, lambda f: set(states(f).values()) == {"completed"})
    assert len(found) == 4
    assert lives(lab) == [1, 1, 1, 1]
    assert mtf_json(lab.path, "plan", "--format", "json")["actions"] == []
    named = cluster.run("squeue", "-r", "-h", "-t", "all", "-o", "%j").split()
    assert len([n for n in named if n.startswith("noted+")]) % 4 == 0


def test_a_grid_above_the_users_job_limit_is_submitted_in_parts_and_executed_once(
    cluster: Cluster, tmp_path: Path
) -> None:
    few = NOTED.replace("slurm: {time", "slurm: {qos: few, time")
    lab = make_lab(tmp_path, {"noted.yaml": few}, settings=ON_SLURM)
    push(lab, {"note.py": NOTE})
    stderr = mtf(lab.path, "sync", code=3).stderr
    assert "3 runs -> slurm" in stderr
    assert "put off  noted: 1 run: QOSMaxSubmitJobPerUserLimit" in stderr
    waits = [r for r in runs(lab).values() if not r["job_id"]]
    assert [r["state"] for r in waits] == ["pending"]
    assert "slurm could not accept it yet: QOSMaxSubmitJobPerUserLimit" in waits[0]["reason"]
    found = sync_until(lab, lambda f: set(states(f).values()) == {"completed"})
    assert {len(r["attempts"]) for r in found.values()} == {1}
    assert lives(lab) == [1, 1, 1, 1]


def test_a_temporary_refusal_puts_off_the_run_and_all_others_of_its_queue(
    cluster: Cluster, tmp_path: Path, shims: Path
) -> None:
    names = ("a", "b", "c")
    lab = make_lab(tmp_path, {f"{n}.yaml": spec(n) for n in names}, settings=ON_SLURM)
    refusal = "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)"
    broken = shim(shims, f'echo x >> {shims}/calls; echo "{refusal}" >&2; exit 1')
    assert "put off" in mtf(lab.path, "sync", code=3).stderr
    assert (shims / "calls").read_text() == "x\n"
    mtf(lab.path, "sync", code=3)
    found = runs(lab)
    assert {r["state"] for r in found.values()} == {"pending"}
    assert "(tried 2 times): Batch job submission failed" in found["a"]["reason"]
    broken.unlink()
    mtf(lab.path, "sync")
    found = runs(lab)
    assert all(r["job_id"] for r in found.values())
    assert {len(r["attempts"]) for r in found.values()} == {1}
    mtf(lab.path, "cancel", *names)


def test_the_attempt_after_a_node_failure_keeps_the_changes_of_a_retry(
    cluster: Cluster, tmp_path: Path
) -> None:
    text = spec("endless", pause=0.1, epochs=500).replace("slurm: {", "slurm: {requeue: false, ")
    lab = make_lab(tmp_path, {"endless.yaml": text}, settings=ON_SLURM)
    mtf(lab.path, "sync")
    mtf(lab.path, "cancel", "endless")
    sync_until(lab, lambda f: f["endless"]["state"] == "cancelled")
    mtf(lab.path, "retry", "--where", "cause=cancelled", "--set", "slurm.mem=321M", "--yes")
    found = sync_until(lab, lambda f: f["endless"]["state"] == "running")["endless"]
    memory = ["squeue", "-h", "-o", "%m", "-j"]
    assert cluster.run(*memory, found["job_id"]).strip() == "321M"
    with cluster.failed(found["attempts"][-1]["node"]):
        found = sync_until(lab, lambda f: len(f["endless"]["attempts"]) == 3)["endless"]
    first, failed, after = found["attempts"]
    assert (first["outcome"], failed["outcome"]) == ("cancelled", "node-failure")
    assert "NodeDown" in failed["reason"]
    assert (failed["changes"], after["changes"]) == ({"slurm.mem": "321M"},) * 2
    assert cluster.run(*memory, found["job_id"]).strip() == "321M"
    assert "slurm.mem=321M" in mtf(lab.path, "show", "endless").stdout
    mtf(lab.path, "cancel", "endless")
