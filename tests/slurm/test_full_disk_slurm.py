"""A file system of a real cluster's nodes that is full while a training runs there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.lab import make_lab, runs, spec, sync_until, wait_until
from tests.cli.mtf import mtf
from tests.security.test_full_disk import fill, small

if TYPE_CHECKING:
    from tests.slurm_cluster import Cluster

pytestmark = pytest.mark.slurm
__all__ = ["small"]  # a fixture
VENV = Path(sys.executable).parent.parent


def test_a_run_whose_node_cannot_write_any_more_says_so_and_can_be_retried(
    cluster: Cluster, small: Path, tmp_path: Path
) -> None:
    settings = f"executor: slurm\nruns_root: {small}/runs\nslurm: {{venv: {VENV}}}\n"
    lab = make_lab(tmp_path, {"x.yaml": spec("x", pause=0.01, epochs=20)}, settings=settings)
    cluster.restart_nodes()  # they were started before the small file system was mounted
    mtf(lab.path, "sync")
    wait_until(lambda: any(small.rglob("checkpoints/*.ckpt")), lambda: list(small.rglob("*")))
    filled = fill(small)
    found = sync_until(lab, lambda found: found["x"]["state"] in ("failed", "completed"))["x"]
    assert (found["state"], found["cause"]) == ("failed", "storage")
    assert found["checkpoint"] is not None
    assert "could not write into" in found["reason"]
    shown = mtf(lab.path, "show", "x").stdout
    assert (
        "free space or make the folder writable; mtf retry continues from the checkpoint" in shown
    )
    filled.unlink()
    mtf(lab.path, "retry", "x")
    sync_until(lab, lambda found: found["x"]["state"] == "completed")
    assert len(runs(lab)["x"]["attempts"]) == 2
