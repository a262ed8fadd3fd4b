"""Small repositories with a grid of short jobs, for tests that kill syncs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from mtf.packaged_files import data_dir
from tests.repos import Repo, make_repo

SETTINGS = """\
executor: {executor}
runs_root: {root}
local: {{max_parallel: 2}}
retry: {{max_attempts: 2, backoff: 0}}
lease: {lease}
"""
GRID = """\
kind: grid
name: {name}
base:
  entrypoint: "none:main"
  model: {{type: mlp}}
  data: {{dataset_name: digits}}
  training: {{use_amp: false}}
  optimizer: {{type: adamw}}
  slurm: {{time: "00:05:00", mem: 100M}}
parameters: {{training.seed: {seeds}}}
"""
_SHORT_JOB = '{{ command | replace("-m mtf.trainer", code_dir ~ "/short_job.py") }}'


def grid(name: str = "many", seeds: int = 2) -> str:
    return GRID.format(name=name, seeds=list(range(seeds)))


def make_world(
    folder: Path,
    *,
    executor: str,
    remote: bool,
    seeds: int = 2,
    lease: int = 600,
    root: str = "runs",
) -> Repo:
    """Return a repository in ``folder/lab``, its remote ``folder/lab.git`` by a relative path.

    Since the path is relative, a copy of the folder has a remote of its own.
    """
    templates = data_dir("templates")
    job_templates = {
        f"templates/{name}": (templates / name).read_text().replace("{{ command }}", _SHORT_JOB)
        + ": mtf.trainer\n"
        for name in ("job.sbatch.j2", "local.sh.j2")
    }
    lab = make_repo(
        folder / "lab",
        {
            "mtf.yaml": SETTINGS.format(executor=executor, root=root, lease=lease),
            ".gitignore": "/runs/\n",
            "short_job.py": Path(__file__).with_name("short_job.py").read_text(),
            "experiments/many.yaml": grid(seeds=seeds),
            **job_templates,
        },
    )
    if remote:
        lab.git("init", "-q", "--bare", "-b", "main", str(folder / "lab.git"))
        lab.git("remote", "add", "origin", "../lab.git")
        lab.git("push", "-q", "origin", "main")
    return lab


def copy_world(source: Path, target: Path) -> Repo:
    shutil.copytree(source, target, symlinks=True)
    return Repo(target / "lab")


def records(lab: Repo) -> list[dict[str, object]]:
    """Return the ledger's records as git has them."""
    names = lab.git("ls-tree", "-r", "--name-only", "mtf/ledger", "runs/", check=False).split()
    return [json.loads(lab.git("show", f"mtf/ledger:{name}")) for name in names]


def lives(folder: Path) -> dict[str, int]:
    """Return the number of executions of each run folder below ``folder``."""
    return {str(p.parent): len(p.read_text().splitlines()) for p in sorted(folder.rglob("lives"))}
