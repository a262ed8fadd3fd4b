"""Time of `mtf validate` with one spec, `mtf status` with 100 runs, and `import mtf`, as processes.

The floor is an interpreter that imports what the command needs and does nothing; for runs that
wait in the queue of SLURM_CONF's cluster, it is `mtf status --recorded`, which asks nobody.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.timing import alternately, init_repository, process_s
from mtf.core.vocabulary.ids import CommitId, JobId, RunId, RunKey, Token, job_name
from mtf.core.vocabulary.records import Attempt, Best, Checkpoint, RunRecord
from mtf.core.vocabulary.states import RunState
from mtf.git.repo import GitRepo
from mtf.ledger.store import Change, LedgerStore

if TYPE_CHECKING:
    from collections.abc import Iterator

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


_TOKEN = Token(secrets.token_hex(8))  # of the jobs that wait
_NAME = job_name("search", _TOKEN)


def make_project(folder: Path, runs: int, *, waiting: bool = False) -> Path:
    """Make a repository with one committed spec and a ledger of completed runs; return it.

    ``waiting``: the runs wait in the queue of SLURM, as tasks of a held array.
    """
    folder.mkdir(exist_ok=True)
    init_repository(folder)
    (folder / "experiments").mkdir()
    (folder / "experiments" / "alone.yaml").write_text(SPEC)
    subprocess.run(["git", "-C", str(folder), "add", "-A"], check=True)
    subprocess.run(["git", "-C", str(folder), "commit", "-qm", "first"], check=True)
    repo = GitRepo(folder)
    store = LedgerStore(repo, None)
    records = tuple(_record(repo.commit("HEAD"), number) for number in range(runs))
    if waiting:
        records = _queued(records, folder)
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


def _queued(records: tuple[RunRecord, ...], folder: Path) -> tuple[RunRecord, ...]:
    """Submit a held array for these runs; return them as they are recorded after that."""
    root = folder / "runs"
    (root / ".code").mkdir(parents=True)
    array = ["sbatch", "--parsable", "--hold", f"--array=0-{len(records) - 1}"]
    command = [*array, f"--job-name={_NAME}", "--output=/dev/null", "--wrap=true"]
    job = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    return tuple(
        replace(
            record,
            state=RunState.PENDING,
            epoch=None,
            metrics={},
            best=None,
            checkpoint=None,
            run_dir=str(root / record.run),
            attempts=(replace(record.attempt, token=_TOKEN, index=n, job_id=JobId(f"{job}_{n}")),),
        )
        for n, record in enumerate(records)
    )


@contextmanager
def _empty_queue() -> Iterator[None]:
    try:
        yield
    finally:
        if shutil.which("scancel"):
            subprocess.run(["scancel", f"--name={_NAME}"], check=False, capture_output=True)


def main() -> None:
    """Measure and print the figure."""
    python = sys.executable
    with tempfile.TemporaryDirectory() as name, _empty_queue():
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
        figures["import mtf"] = ([python, "-c", "import mtf"], [python, "-c", "import typing"])
        folders: dict[str, Path] = {}
        if shutil.which("squeue"):
            for runs in (100, 1000):
                title = f"mtf status, {runs:,} that wait"
                folders[title] = make_project(Path(name, str(runs)), runs, waiting=True)
                ask = [python, "-m", "mtf.cli", "status"]
                figures[title] = (ask, [*ask, "--recorded"])
        for title, (command, floor) in figures.items():
            what = "its imports alone" if title not in folders else "--recorded"
            spent, base = alternately(
                7,
                partial(process_s, command, folders.get(title, folder)),
                partial(process_s, floor, folders.get(title, folder)),
            )
            bare = alternately(7, lambda: process_s([python, "-c", ""], folder))[0]
            print(
                f"{title:<28} {spent:6.3f} s   {spent / base:4.2f} x {what}"
                f" ({base:.3f} s)   {spent / bare:5.1f} x bare python ({bare:.3f} s)"
            )
