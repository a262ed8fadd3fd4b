"""Files that a sync writes: they follow the umask and contain no secrets."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.cli.lab import QUICK, make_lab, runs, stop_jobs
from tests.cli.mtf import mtf

if TYPE_CHECKING:
    from pathlib import Path

SPEC = QUICK.replace("kind: base", "kind: experiment\nexperiment_name: quick")
SECRET = "hunter2-and-more"


def everything(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if not p.is_symlink()]


def test_files_follow_the_umask_and_contain_no_secret_of_the_environment(tmp_path: Path) -> None:
    lab = make_lab(tmp_path, {"quick.yaml": SPEC})
    environment = {**os.environ, "WANDB_API_KEY": SECRET, "AWS_SECRET_ACCESS_KEY": SECRET}
    command = f"umask 027; exec {sys.executable} -m mtf.cli sync --executor local"
    subprocess.run(["sh", "-c", command], cwd=lab.path, env=environment, check=True)
    found = everything(lab.path / "runs") + everything(lab.path / ".git" / "mtf")
    assert len(found) > 10
    for path in found:
        assert stat.S_IMODE(path.stat().st_mode) & 0o027 == 0, path
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path
    (run,) = runs(lab)
    assert SECRET not in lab.git("log", "-p", "--all")
    assert SECRET not in lab.git("show", "mtf/ledger:README.md")
    mtf(lab.path, "cancel", run)
    stop_jobs(tmp_path)
