"""What a host can see of runs: claims of dead submitters, and folders out of reach."""

from __future__ import annotations

import os
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from mtf.core.vocabulary.ids import Token
from mtf.project.project import open_project
from mtf.reconcile.run_access import abandoned, is_elsewhere
from tests.core.planner.worlds import experiment, record
from tests.repos import make_repo

if TYPE_CHECKING:
    from pathlib import Path


def test_a_claim_is_abandoned_when_its_submitter_on_this_host_has_ended() -> None:
    zombie = subprocess.Popen(["true"])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)  # it stays one
    alive = subprocess.Popen(["sleep", "100"])
    ended = subprocess.Popen(["true"])
    ended.wait()
    host = socket.gethostname()
    claims = {
        "ended": f"me@{host}:{ended.pid}",
        "zombie": f"me@{host}:{zombie.pid}",
        "us": f"me@{host}:{os.getpid()}",
        "alive": f"me@{host}:{alive.pid}",
        "elsewhere": f"me@x{host}:{ended.pid}",
    }
    records = [
        record(experiment(), attempt={"token": Token(name), "claimed_by": who})
        for name, who in claims.items()
    ]
    try:
        assert abandoned(records) == {"ended", "zombie", "us"}
    finally:
        alive.kill()
        alive.wait()
        zombie.wait()


@pytest.mark.parametrize(
    "run_dir", ["", "runs/alone", "/", "/alone", "../alone/20260101T110000Z/cccccccc"]
)
def test_a_run_whose_record_names_an_impossible_folder_is_elsewhere(
    tmp_path: Path, run_dir: str
) -> None:
    project = open_project(make_repo(tmp_path, {"a": "1"}).path)
    right = record(experiment())
    assert not is_elsewhere(
        project.runs_root, record(experiment(), run_dir=f"{project.runs_root}/{right.run}")
    )
    assert is_elsewhere(project.runs_root, record(experiment(), run_dir=run_dir))
