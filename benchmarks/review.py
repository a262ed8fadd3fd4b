"""Time of `mtf plan --base` for a pull request that changes 1 spec of 1,000, as a whole process.

The floor is an interpreter that imports what the command needs and does nothing.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.timing import alternately, init_repository, process_s

SPECS = 1_000
_LIMIT_S = 0.7
_SPEC = """\
# What this experiment asks: does width {number} help?
kind: experiment
experiment_name: width_{number}
description: The width of the hidden layers, all else as in the baseline.
owner: alice

model:
  type: mlp
  hidden_size: {number}
  num_layers: 2
  dropout: 0.1
  activation: relu

data:
  dataset_name: digits
  num_workers: 0

training:
  max_epochs: 20
  batch_size: 32
  gradient_accumulation_steps: 1
  max_grad_norm: 1.0
  use_amp: false
  seed: 0

optimizer:
  type: adamw
  lr: 1e-3
  weight_decay: 0.01
  betas: [0.9, 0.999]

scheduler:
  type: cosine

checkpoint:
  every_n_epochs: 1
  keep_last: 3
  monitor: val_accuracy
  mode: max

slurm:
  partition: low
  nodes: 1
  ntasks_per_node: 1
  gpus_per_node: 0
  cpus_per_task: 1
  mem: 2G
  time: "00:10:00"

logging:
  use_wandb: false
  log_scalars_every_n_steps: 50
"""
_IMPORTS = (
    "import mtf.cli.main, mtf.cli.sync, mtf.commands.review, mtf.commands.plan, mtf.report.comments"
)


def _make_repository(folder: Path) -> None:
    init_repository(folder)
    (folder / "experiments").mkdir()
    for number in range(1, SPECS + 1):
        text = _SPEC.format(number=number)
        (folder / "experiments" / f"width_{number}.yaml").write_text(text)
    (folder / "mtf.yaml").write_text("policies: {max_gpu_hours: 100, require: [owner]}\n")
    _git(folder, "add", "-A")
    _git(folder, "commit", "-qm", "specs")
    _git(folder, "checkout", "-qb", "feature")
    changed = _SPEC.format(number=7).replace("lr: 1e-3", "lr: 1e-2")
    (folder / "experiments" / "width_7.yaml").write_text(changed)
    _git(folder, "commit", "-qam", "one spec")


def _git(folder: Path, *args: str) -> None:
    subprocess.run(["git", "-C", str(folder), *args], check=True)


def main() -> None:
    """Measure and print the figure."""
    command = [sys.executable, "-m", "mtf.cli", "plan", "--base", "main", "--format", "markdown"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _make_repository(folder)
        spent, floor = alternately(
            7,
            lambda: process_s(command, folder),
            lambda: process_s([sys.executable, "-c", _IMPORTS], folder),
        )
    print(
        f"mtf plan --base, 1 of {SPECS:,} {spent:6.3f} s   {spent / floor:4.2f} x its imports alone"
        f" ({floor:.3f} s)   wanted: under {_LIMIT_S} s"
    )
