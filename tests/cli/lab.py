"""An experiments repository with models of its own, for tests that run jobs."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.cli.mtf import mtf, mtf_json
from tests.repos import Repo, make_remote, make_repo

if TYPE_CHECKING:
    from collections.abc import Callable

MODELS = """\
import os, time
import torch
from torch import nn

class Slow(nn.Module):
    "Has random dropout, and takes `pause` seconds a step, so that it can be interrupted."
    def __init__(self, num_classes, input_shape, pause=0.0, hidden_size=8):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, hidden_size), nn.Dropout(0.5), nn.Linear(hidden_size, num_classes))
        self.pause = pause
    def forward(self, x):
        time.sleep(self.pause)
        return self.net(x)

class Broken(Slow):
    def forward(self, x):
        raise ValueError("the flux is out of range")
"""
SPEC = """\
kind: experiment
experiment_name: {name}
model: {{type: "models:{model}", hidden_size: 8, pause: {pause}}}
data: {{dataset_name: digits, num_workers: 0}}
training: {{max_epochs: {epochs}, batch_size: 64, use_amp: false, seed: 3}}
optimizer: {{type: adamw, lr: 1e-2}}
slurm: {{time: "00:10:00"}}
"""
SETTINGS = """\
executor: local
runs_root: runs
local: {max_parallel: 2}
retry: {max_attempts: 2, backoff: 0}
"""
QUICK = """\
kind: base
model: {type: mlp, hidden_size: 16, num_layers: 1}
data: {dataset_name: digits, num_workers: 0}
training: {max_epochs: 2, use_amp: false}
optimizer: {type: adamw, lr: 1e-2}
checkpoint: {monitor: val_accuracy, mode: max}
slurm: {time: "00:10:00"}
"""
GRID = """\
kind: grid
name: search
base: quick.yaml
parameters: {optimizer.lr: [1e-3, 1e-2], training.seed: [1, 2]}
"""


def spec(name: str, *, model: str = "Slow", pause: float = 0.0, epochs: int = 2) -> str:
    return SPEC.format(name=name, model=model, pause=pause, epochs=epochs)


def make_lab(folder: Path, specs: dict[str, str], *, settings: str = SETTINGS) -> Repo:
    """Return a repository with these specs committed, and pushed to a remote."""
    files = {"mtf.yaml": settings, ".gitignore": "/runs/\n", "models.py": MODELS}
    lab = make_repo(folder / "lab", {**files, **{f"experiments/{n}": t for n, t in specs.items()}})
    make_remote(folder / "lab.git", lab)
    return lab


def push(lab: Repo, files: dict[str, str]) -> None:
    lab.commit(files)
    lab.git("push", "-q", "origin", "main")


def runs(lab: Repo, *arguments: str) -> dict[str, dict[str, Any]]:
    """Return the objects of `mtf status --json`, by experiment."""
    return {r["experiment"]: r for r in mtf_json(lab.path, "status", "--json", *arguments)}


def sync_until(
    lab: Repo, done: Callable[[dict[str, dict[str, Any]]], bool], seconds: float = 120
) -> dict[str, dict[str, Any]]:
    """Sync again and again until ``done`` is true of the runs, as of now and as recorded."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        mtf(lab.path, "sync", code=None)
        found = runs(lab)
        if found and done(found):
            recorded = runs(lab, "--recorded")
            news = [name for name, run in found.items() if run["state"] != recorded[name]["state"]]
            if not news:
                return found
        time.sleep(0.3)
    raise AssertionError(f"not done within {seconds} s: {runs(lab)}")


def wait_until(holds: Callable[[], bool], why: Callable[[], object], seconds: float = 120) -> None:
    """Wait for a condition; fail with the value of ``why`` if it stays false."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, why()
        time.sleep(0.1)


def states(found: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: run["state"] for name, run in found.items()}


def stop_jobs(folder: Path) -> None:
    """Kill the workers and jobs of a folder: every process with a path below it as argument."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                words = (process / "cmdline").read_text(errors="replace")
                if f"{folder}/" in words:
                    os.kill(int(process.name), signal.SIGKILL)
            except OSError:  # it has ended in the meantime
                continue
