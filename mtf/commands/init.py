"""Scaffolds an experiments repository; existing files are never overwritten."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from mtf import proc
from mtf.commands.hooks.install import shipped_hooks
from mtf.errors import MtfError
from mtf.packaged_files import data_dir
from mtf.project import editor_schemas
from mtf.project.editor_schemas import modeline

if TYPE_CHECKING:
    from pathlib import Path

_SETTINGS = """\
# Settings of this experiments repository. Every key has a default; an unknown key is an error.
branch: main            # the tracked branch: the specs at its tip are what runs
# remote: origin        # where the tracked branch and the ledger are shared; null: local only
runs_root: runs         # folder of all runs; on a cluster, a path that the compute nodes share
executor: auto          # slurm if sbatch is there, else local
local: {max_parallel: 2}
# slurm: {partition: gpu, account: lab}    # defaults under every spec's own `slurm`
# environment: {venv: null, conda: null, modules: [], container: null, variables: {}}
retry: {max_attempts: 3, on: [node-failure, preempted, time-limit], backoff: 60}
"""
_IGNORED = """\
/runs/
__pycache__/
.venv/
"""
_TEMPLATES = """\
Job scripts are rendered from the templates that mtf ships. To change one, put a file of the same
name here and commit it: `job.sbatch.j2` (SLURM), `local.sh.j2` (the local executor),
`environment.sh.j2` (modules, venv, conda, container: included by both).
"""
_DEMO = ("digits_baseline.yaml", "digits_search.yaml")
_EXPERIMENT = """\
# A first experiment: commit it, then `mtf plan` and `mtf sync`.
kind: experiment
experiment_name: first
model: {type: mlp, hidden_size: 64, num_layers: 2}
data: {dataset_name: digits, num_workers: 0}
training: {max_epochs: 5, batch_size: 32, use_amp: false, seed: 0}
optimizer: {type: adamw, lr: 1e-3}
slurm: {cpus_per_task: 1, mem: 2G, time: "00:10:00"}
"""


def init(folder: Path, *, demo: bool) -> list[str]:
    """Scaffold ``folder`` and return the paths of the new files, relative to it.

    Raises:
        MtfError: the folder cannot be written, is no root of a repository, or git fails.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _git_init(folder)
        return _write(folder, demo=demo)
    except OSError as e:
        raise MtfError(f"{e.filename}: {e.strerror}") from e


def _git_init(folder: Path) -> None:
    inside = proc.run(("git", "-C", str(folder), "rev-parse", "--show-cdup"), timeout_s=30)
    if inside.code == 0:
        if up := inside.stdout.strip():
            raise MtfError(
                f"{folder}: inside a git repository, whose root holds mtf.yaml and the specs."
                f" Run mtf init {(folder / up).resolve()}"
            )
        return
    made = proc.run(("git", "init", "--quiet", "-b", "main", str(folder)), timeout_s=30)
    if made.code:
        raise MtfError(f"git init: {made.stderr.strip()}")


def _write(folder: Path, *, demo: bool) -> list[str]:
    texts = {"mtf.yaml": _SETTINGS, ".gitignore": _IGNORED, "templates/README.md": _TEMPLATES}
    copies = {f"hooks/{p.name}": p for p in shipped_hooks()}
    if demo:
        shipped = data_dir("experiments")
        texts |= {f"experiments/{name}": (shipped / name).read_text("utf-8") for name in _DEMO}
    else:
        texts["experiments/first.yaml"] = _EXPERIMENT
    texts = {
        name: modeline(name) + text if name.endswith(".yaml") else text
        for name, text in texts.items()
    }
    made = editor_schemas.write(folder)
    for name, text in texts.items():
        if not (folder / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8", newline="\n")
            made.append(name)
    for name, source in copies.items():
        if not (folder / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder / name)
            made.append(name)
    return sorted(made)
