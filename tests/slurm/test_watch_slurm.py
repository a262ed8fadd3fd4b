"""`mtf sync --watch` on a real cluster, from a commit to the ends of its runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cli.controllers import lease, watching
from tests.cli.lab import make_lab, push, runs, states, wait_until
from tests.executor.local.bench import processes
from tests.slurm.test_sync_slurm import NOTE, NOTED, ON_SLURM, lives

if TYPE_CHECKING:
    from pathlib import Path

    from tests.slurm_cluster import Cluster

pytestmark = pytest.mark.slurm


def test_a_controller_runs_and_records_commits_and_leaves_nothing_behind(
    cluster: Cluster, tmp_path: Path
) -> None:
    lab = make_lab(tmp_path, {}, settings=ON_SLURM)
    with watching(lab.path, "--interval", "1") as controller:
        wait_until(lambda: lease(tmp_path) != {}, lambda: controller.output)
        push(lab, {"note.py": NOTE, "experiments/noted.yaml": NOTED})
        controller.wait_for("submit   noted: 4 runs -> slurm")
        wait_until(
            lambda: list(states(runs(lab)).values()) == ["completed"] * 4, lambda: controller.output
        )
        assert controller.stop() == 0
    assert lives(lab) == [1, 1, 1, 1]
    ledger = lab.git("rev-parse", "mtf/ledger")
    assert lab.git("ls-remote", "origin", "refs/heads/mtf/ledger").split()[0] == ledger
    assert lease(tmp_path)["released"]
    assert processes(tmp_path) == []
    assert cluster.run("squeue", "-h", "-o", "%j") == ""
