"""`max_parallel` on a real cluster: over several arrays, when it is changed, and for a retry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.lab import make_lab, push, runs, wait_until
from tests.cli.mtf import mtf, mtf_json
from tests.slurm.test_sync_slurm import ON_SLURM

if TYPE_CHECKING:
    from tests.repos import Repo
    from tests.slurm_cluster import Cluster

pytestmark = pytest.mark.slurm
# a run that waits until a file lets it end
WAIT = """\
import pathlib, time
def main(run):
    while not pathlib.Path(run.run_dir, "end").exists():
        time.sleep(0.05)
"""
# members that need different resources are in different arrays
MANY = """\
kind: grid
name: many
max_parallel: 2
base:
  entrypoint: "wait:main"
  model: {type: mlp}
  data: {dataset_name: digits}
  training: {use_amp: false}
  slurm: {time: "00:05:00"}
linked:
  - [{training.seed: 1, slurm.mem: 101M}, {training.seed: 2, slurm.mem: 102M},
     {training.seed: 3, slurm.mem: 103M}, {training.seed: 4, slurm.mem: 103M}]
"""


def running(cluster: Cluster) -> list[str]:
    return cluster.run("squeue", "-h", "-t", "R", "-r", "-o", "%i").split()


def waiting(cluster: Cluster) -> list[str]:
    return cluster.run("squeue", "-h", "-t", "PD", "-r", "-o", "%i %r").splitlines()


def end(lab: Repo, job: str) -> None:
    (found,) = (r for r in runs(lab).values() if r["job_id"] == job)
    Path(found["run_dir"], "end").touch()


def test_max_parallel_holds_over_all_arrays_of_a_grid(cluster: Cluster, tmp_path: Path) -> None:
    lab = make_lab(tmp_path, {"many.yaml": MANY}, settings=ON_SLURM)
    push(lab, {"wait.py": WAIT})
    mtf(lab.path, "sync")
    wait_until(lambda: len(running(cluster)) == 2, lambda: running(cluster))
    first, second = sorted(running(cluster))
    wait_until(  # the reason is none until SLURM has looked at the job
        lambda: {line.split()[1] for line in waiting(cluster)} == {"Dependency"},
        lambda: waiting(cluster),
    )
    # a lower limit: the two that run are left alone, and only one of the others will follow
    push(lab, {"experiments/many.yaml": MANY.replace("max_parallel: 2", "max_parallel: 1")})
    assert "at most 1 of its runs at a time" in mtf(lab.path, "plan").stdout
    mtf(lab.path, "sync")
    assert mtf_json(lab.path, "plan", "--format", "json")["actions"] == []
    end(lab, first)
    end(lab, second)
    wait_until(lambda: bool(set(running(cluster)) - {first, second}), lambda: running(cluster))
    mtf(lab.path, "sync")
    (third,) = set(running(cluster)) - {first, second}
    # no limit: the last one starts as well
    push(lab, {"experiments/many.yaml": MANY.replace("max_parallel: 2\n", "")})
    mtf(lab.path, "sync")
    wait_until(lambda: len(running(cluster)) == 2, lambda: running(cluster))
    assert third in running(cluster)


def test_changed_resources_reach_the_waiting_tasks_of_an_array_and_not_the_running_one(
    cluster: Cluster, tmp_path: Path
) -> None:
    spec = MANY.replace("max_parallel: 2", "max_parallel: 1")
    spec = spec[: spec.index("linked:")] + "parameters: {training.seed: [1, 2, 3]}\n"
    lab = make_lab(tmp_path, {"many.yaml": spec}, settings=ON_SLURM)
    push(lab, {"wait.py": WAIT})
    mtf(lab.path, "sync")
    wait_until(lambda: len(running(cluster)) == 1, lambda: running(cluster))
    (first,) = running(cluster)
    before = {name: run["job_id"] for name, run in runs(lab).items()}
    push(lab, {"experiments/many.yaml": spec.replace("slurm: {", "slurm: {partition: nosuch, ")})
    refused = mtf(lab.path, "sync", code=3).stderr  # before any job was given up
    assert "slurm would refuse its new jobs (invalid partition specified: nosuch" in refused
    assert before == {name: run["job_id"] for name, run in runs(lab).items()}
    push(lab, {"experiments/many.yaml": spec.replace("00:05:00", "00:07:00")})
    planned = mtf(lab.path, "plan").stdout
    assert planned.count("slurm.time: 00:05:00 -> 00:07:00") == 3  # with the note on the first
    assert "Plan: 2 to update" in planned
    mtf(lab.path, "sync")
    after = {name: run["job_id"] for name, run in runs(lab).items()}
    lines = cluster.run("squeue", "-h", "-r", "-o", "%i %l").splitlines()
    limits = [limit for job, limit in map(str.split, lines) if job in after.values()]
    assert sorted(limits) == ["5:00", "7:00", "7:00"]
    assert [before[name] == after[name] for name in sorted(before)].count(True) == 1
    assert first in after.values()
    for _ in range(3):  # and still one at a time, each once
        end_the_one_that_runs(cluster, lab)
        assert len(running(cluster)) <= 1


def end_the_one_that_runs(cluster: Cluster, lab: Repo) -> None:
    wait_until(lambda: len(running(cluster)) == 1, lambda: running(cluster))
    (job,) = running(cluster)
    end(lab, job)
    wait_until(lambda: job not in running(cluster), lambda: running(cluster))
