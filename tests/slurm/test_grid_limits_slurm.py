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
    assert {line.split()[1] for line in waiting(cluster)} == {"Dependency"}
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
