"""Time of `mtf sync` for a grid of 100 runs on SLURM, against the floor for any such tool.

The clone has synced before: it has a ledger and compiled templates.

The floor is one `sbatch --array` of 100 tasks, one `git fast-import` of 100 records, and one
`git update-ref` transaction of two refs. Both sides submit held jobs, so that nothing runs.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.timing import alternately, init_repository, process_s

if TYPE_CHECKING:
    from collections.abc import Iterable

RUNS = 100
_GRID = """\
kind: grid
name: {name}
base: base.yaml
parameters: {{training.seed: [{seeds}]}}
naming: parameters
"""
_BASE = """\
kind: base
model: {type: mlp}
data: {dataset_name: digits}
training: {use_amp: false}
optimizer: {type: adamw}
slurm: {time: "00:05:00", extra: ["--hold"]}
"""


def _git(folder: Path, *args: str, stdin: str | None = None) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *args], input=stdin, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def _floor(folder: Path, number: int) -> float:
    start = time.perf_counter()
    script = "#!/bin/sh\nsleep 1\n"
    array = ["sbatch", "--parsable", "--hold", f"--array=0-{RUNS - 1}", "--output=/dev/null"]
    subprocess.run(array, input=script, capture_output=True, text=True, check=True)
    record = "x" * 1500
    files = "".join(
        f"M 100644 inline runs/{number}/{i}.json\ndata {len(record)}\n{record}\n"
        for i in range(RUNS)
    )
    head = f"commit refs/scratch/{number}\ncommitter b <b@b> now\ndata 1\nm\n"
    _git(folder, "fast-import", "--quiet", "--date-format=now", stdin=head + files)
    tip = _git(folder, "rev-parse", f"refs/scratch/{number}")
    refs = f"create refs/heads/l{number} {tip}\ncreate refs/heads/p{number} {tip}\n"
    _git(folder, "update-ref", "--stdin", stdin=refs)
    return time.perf_counter() - start


def _sync(folder: Path, number: int) -> float:
    """Return the time of a sync in a new repository, with no active run from earlier rounds."""
    folder = _synced_before(folder / str(number), number)
    _commit_grid(folder, "grid", range(number * RUNS, number * RUNS + RUNS))
    spent = float(_python(folder, _START + _SYNC).splitlines()[-1])
    subprocess.run(["scancel", "--me"], check=False)
    return spent


def _search(folder: Path, number: int) -> float:
    """Return the time of `framework.run_grid_search` for the same grid, like ``_sync``."""
    folder = _synced_before(folder / f"search{number}", number)
    spent = float(_python(folder, _START + _RUN_GRID_SEARCH).splitlines()[-1])
    subprocess.run(["scancel", "--me"], check=False)
    return spent


def _synced_before(folder: Path, number: int) -> Path:
    """Make a repository that has a ledger and compiled templates, and no active run."""
    (folder / "experiments").mkdir(parents=True)
    init_repository(folder)
    (folder / "experiments" / "base.yaml").write_text(_BASE)
    (folder / "mtf.yaml").write_text("runs_root: runs\nexecutor: slurm\n")
    (folder / ".gitignore").write_text("/runs/\n")
    _commit_grid(folder, "first", [number * RUNS - 1])
    _mtf(folder, "sync")
    _mtf(folder, "cancel", "first")
    _mtf(folder, "sync")
    return folder


def _commit_grid(folder: Path, name: str, seeds: Iterable[int]) -> None:
    text = _GRID.format(name=name, seeds=", ".join(map(str, seeds)))
    (folder / "experiments" / f"{name}.yaml").write_text(text)
    _git(folder, "add", "-A")
    _git(folder, "commit", "-qm", name)


def _python(folder: Path, text: str) -> str:
    command = [sys.executable, "-c", text]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def _mtf(folder: Path, *args: str) -> None:
    command = [str(Path(sys.executable).with_name("mtf")), *args]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def main() -> None:
    """Measure and print the figure; needs the cluster of SLURM_CONF."""
    if shutil.which("sbatch") is None:
        print("mtf sync, 100 runs           not measured: sbatch is not on PATH")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        init_repository(folder)
        numbers = iter(range(1, 100))
        try:
            sync, search, floor, start = alternately(
                7,
                lambda: _sync(folder, next(numbers)),
                lambda: _search(folder, next(numbers)),
                lambda: _floor(folder, next(numbers)),
                lambda: process_s([sys.executable, "-c", _START], folder),
            )
        finally:
            subprocess.run(["scancel", "--me"], check=False)
    print(
        f"mtf sync, {RUNS} runs           {sync:6.3f} s = {sync / floor:4.2f} x the floor"
        f" ({floor:.3f} s), without process start ({start:.3f} s)"
    )
    print(f"run_grid_search, {RUNS} runs    {search:6.3f} s = {search / sync:4.2f} x mtf sync")


# imports everything that a sync does, and compiles the sections, which pydantic does late
_START = """
import click, filelock, git, jinja2, pydantic, yaml._yaml
import mtf.cli.main, mtf.cli.sync, mtf.commands.sync
import mtf.executor.slurm.slurm_executor, mtf.project.project, mtf.reconcile.apply
import mtf.report.plans
from mtf.spec.schema import dotted_keys, settings, specs
settings.Settings()
for model in (specs.ExperimentSpec, specs.GridSpec, *dotted_keys.SECTIONS.values()):
    model.model_rebuild()
"""
_SYNC = """
import time
start = time.perf_counter()
try:
    mtf.cli.main.cli.main(["sync"], standalone_mode=False)
except SystemExit as e:
    assert not e.code
print(time.perf_counter() - start)
"""
_RUN_GRID_SEARCH = f"""
import time
from mtf import ModelTrainingFramework, ParameterGrid
framework = ModelTrainingFramework(".")
start = time.perf_counter()
base = dict(
    model=dict(type="mlp"), data=dict(dataset_name="digits"), training=dict(use_amp=False),
    optimizer=dict(type="adamw"), slurm=dict(time="00:05:00", extra=["--hold"]),
)
grid = ParameterGrid("grid", dict([("training.seed", range({RUNS}))]), naming="parameters")
assert len(framework.run_grid_search(base, [grid])) == {RUNS}
print(time.perf_counter() - start)
"""
