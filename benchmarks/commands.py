"""Time of `mtf validate` with one spec and of `mtf status` with 100 runs, as whole processes.

The floor is an interpreter that imports what the command needs and does nothing.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.timing import alternately, init_repository, process_s
from mtf.core.vocabulary.ids import CommitId, JobId, RunId, RunKey, Token
from mtf.core.vocabulary.records import Attempt, Best, Checkpoint, RunRecord
from mtf.core.vocabulary.states import RunState
from mtf.git.repo import GitRepo
from mtf.ledger.store import Change, LedgerStore

# pydantic imports its parts only when they are used
MODELS = "from pydantic import BaseModel, Field, field_validator; import click"
SPEC = """\
kind: experiment
experiment_name: alone
model: {type: mlp, hidden_size: 16, num_layers: 1}
data: {dataset_name: digits, num_workers: 0}
training: {max_epochs: 1, use_amp: false, seed: 0}
optimizer: {type: adamw, lr: 1e-3}
"""


def make_project(folder: Path, runs: int) -> Path:
    """Make a repository with one committed spec and a ledger of completed runs; return it."""
    init_repository(folder)
    (folder / "experiments").mkdir()
    (folder / "experiments" / "alone.yaml").write_text(SPEC)
    subprocess.run(["git", "-C", str(folder), "add", "-A"], check=True)
    subprocess.run(["git", "-C", str(folder), "commit", "-qm", "first"], check=True)
    repo = GitRepo(folder)
    store = LedgerStore(repo, None)
    records = tuple(_record(repo.commit("HEAD"), number) for number in range(runs))
    if records:
        store.append(store.read(), Change(runs=records), "runs")
    return folder


def _record(commit: CommitId, number: int) -> RunRecord:
    run = RunId(f"search/20260101T120000Z/{commit[:8]}/seed={number}")
    at = "2026-01-01T12:00:00+00:00"
    attempt = Attempt(Token(f"{number:016x}"), number, at, "b@b:1", at, JobId(f"7_{number}"), at)
    base = RunRecord(
        run=run,
        experiment=f"seed={number}",
        grid="search",
        branch=f"slurm-job/search/20260101T120000Z/{commit[:8]}",
        commit=commit,
        key=RunKey("a" * 64),
        generation=1,
        spec="experiments/search.yaml",
        executor="slurm",
        cluster="default",
        state=RunState.COMPLETED,
        reason="",
        claimed_at=at,
        run_dir=f"/runs/{run}",
        attempts=(attempt,),
    )
    return replace(
        base,
        epoch=20,
        max_epochs=20,
        metrics={"val_loss": 0.1, "val_accuracy": 0.97},
        best=Best("val_accuracy", 0.97, 20, 1000, "max"),
        checkpoint=Checkpoint(
            f"/runs/{run}/checkpoints/epoch_020_step_001000.ckpt", 1000, "f" * 64, 1
        ),
    )


def main() -> None:
    """Measure and print the figure."""
    python = sys.executable
    with tempfile.TemporaryDirectory() as name:
        folder = make_project(Path(name), 100)
        figures = {
            "mtf validate, one spec": (
                [python, "-m", "mtf.cli", "validate", "experiments/alone.yaml"],
                [python, "-c", f"{MODELS}, yaml"],
            ),
            "mtf status, 100 runs": (
                [python, "-m", "mtf.cli", "status"],
                [python, "-c", f"{MODELS}, yaml, git"],
            ),
        }
        for title, (command, floor) in figures.items():
            spent, base = alternately(
                7, partial(process_s, command, folder), partial(process_s, floor, folder)
            )
            bare = alternately(7, lambda: process_s([python, "-c", ""], folder))[0]
            print(
                f"{title:<28} {spent:6.3f} s   {spent / base:4.2f} x its imports alone"
                f" ({base:.3f} s)   {spent / bare:5.1f} x bare python ({bare:.3f} s)"
            )
