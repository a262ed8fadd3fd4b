"""Time to validate 1,000 specs against that to parse them, and to plan a grid of 10,000 runs.

The floor of the first is libyaml's parse to nodes with positions (no parser for Python is faster;
it reads YAML 1.1, so mtf resolves scalars itself), or its events alone; and pydantic's own time for
the same values. The second is a whole process: wall time and memory.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from yaml import CSafeLoader, compose

from benchmarks.timing import alternately, init_repository
from mtf.spec.lint.plausibility import warnings
from mtf.spec.load import load_specs
from mtf.spec.schema.settings import Settings
from mtf.spec.schema.specs import ExperimentSpec
from mtf.spec.yaml.event_parsers import libyaml_events
from mtf.spec.yaml.reader import read

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SPECS, RUNS = 1000, 10_000
SPEC = """\
# experiment {i} of many
# that differ in their seed
kind: experiment
experiment_name: exp_{i}
description: one of many
owner: somebody
model:
  type: mlp
  hidden_size: 128
  num_layers: 2
  dropout: 0.1
  activation: relu
  norm: layer
data:
  dataset_name: digits
  train_split: train
  val_split: validation
  num_workers: 0
  pin_memory: false
training:
  max_epochs: 12
  batch_size: 32
  gradient_accumulation_steps: 1
  max_grad_norm: 1.0
  use_amp: false
  seed: {i}
optimizer:
  type: adamw
  lr: 1e-3
  weight_decay: 0.01
  betas: [0.9, 0.999]
scheduler:
  type: cosine
callbacks:
  early_stopping:
    monitor: val_loss
    patience: 5
checkpoint:
  every_n_epochs: 1
  keep_last: 3
  keep_best: 1
  monitor: val_accuracy
  mode: max
logging:
  use_wandb: false
  log_scalars_every_n_steps: 20
  tensorboard: false
  csv: true
slurm:
  partition: low
  nodes: 1
  ntasks_per_node: 1
  cpus_per_task: 1
  mem: 2G
  time: "00:10:00"
  signal_lead: 60
  requeue: true
  variables:
    OMP_NUM_THREADS: "1"
rerun_on: [src]
"""
BASE = """\
kind: base
model: {type: mlp, hidden_size: 128}
data: {dataset_name: digits, num_workers: 0}
training: {max_epochs: 5, use_amp: false}
slurm: {time: "00:10:00"}
"""


def _grid() -> str:
    values = (
        (100, "training.seed", "{}"),
        (10, "optimizer.lr", "1.{}e-3"),
        (10, "model.dropout", "0.{}"),
    )
    lines = (f"  {key}: [{', '.join(map(form.format, range(n)))}]" for n, key, form in values)
    return "kind: grid\nname: big\nbase: base.yaml\nparameters:\n" + "\n".join(lines) + "\n"


def _parse(files: Mapping[str, bytes]) -> None:
    for raw in files.values():
        found = libyaml_events(raw.decode())
        assert found is not None
        source = found[0]
        while type(source.next()) is not source.types.stream_end:
            pass


def _compose(files: Mapping[str, bytes]) -> None:
    for raw in files.values():
        compose(raw.decode(), CSafeLoader)


def _validate(files: Mapping[str, bytes]) -> None:
    loaded = load_specs(files, Settings(), "20260101T120000Z")
    found = [*loaded.problems, *(p for spec in loaded.desired for p in warnings(spec))]
    assert not found, found[0]


def _cpu_s(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def _specs() -> None:
    gc.set_threshold(100_000)  # as the program has it
    files = {f"experiments/e{i}.yaml": SPEC.format(i=i).encode() for i in range(SPECS)}
    values = [read(raw, path).value for path, raw in files.items()]
    ours, events, parsed, checked = alternately(
        7,
        lambda: _cpu_s(lambda: _validate(files)),
        lambda: _cpu_s(lambda: _parse(files)),
        lambda: _cpu_s(lambda: _compose(files)),
        lambda: _cpu_s(lambda: [ExperimentSpec.model_validate(value) for value in values]),
    )
    own = ours - checked
    print(
        f"validate {SPECS:,} specs of {SPEC.count(chr(10))} lines  {ours:6.3f} s of CPU   without"
        f" pydantic's {checked:.3f} s {own / parsed:4.2f} x the bare parse to nodes"
        f" ({parsed:.3f} s), {own / events:4.2f} x its events alone ({events:.3f} s)"
    )


def _plan(folder: Path) -> None:
    init_repository(folder)
    (folder / "experiments").mkdir()
    (folder / "experiments" / "base.yaml").write_text(BASE)
    (folder / "experiments" / "big.yaml").write_text(_grid())
    (folder / "mtf.yaml").write_text("executor: local\nremote: none\n")
    subprocess.run(["git", "-C", str(folder), "add", "-A"], check=True)
    subprocess.run(["git", "-C", str(folder), "commit", "-qm", "first"], check=True)
    start = time.perf_counter()
    started = subprocess.Popen(
        [sys.executable, "-m", "mtf.cli", "plan"],
        cwd=folder,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert started.stdout is not None
    said = started.stdout.read().decode()
    _, status, used = os.wait4(started.pid, 0)
    spent = time.perf_counter() - start
    started.returncode = os.waitstatus_to_exitcode(status)
    if started.returncode or f"{RUNS:,}" not in said.replace("10000", f"{RUNS:,}"):
        raise RuntimeError(f"mtf plan: {said}")
    print(
        f"plan a grid of {RUNS:,} runs            {spent:6.3f} s"
        f" ({used.ru_utime + used.ru_stime:.3f} s of CPU)   {used.ru_maxrss / 1024:.0f} MB"
    )


def main() -> None:
    """Measure and print the figure."""
    with tempfile.TemporaryDirectory() as name:
        _plan(Path(name))  # first: the peak memory of a child includes its parent's at the fork
    _specs()
