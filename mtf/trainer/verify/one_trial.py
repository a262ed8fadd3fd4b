"""Runs one trial in this process: a training as a job runs it, recorded and maybe interrupted."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mtf.core.vocabulary import json_text
from mtf.packaged_files import PACKAGE
from mtf.trainer.compute.fabric import build_fabric
from mtf.trainer.context import RunContext
from mtf.trainer.job import run_job
from mtf.trainer.job.code_proof import put_first
from mtf.trainer.runtime import signals
from mtf.trainer.verify.batch_records import LOADS, BatchPosition, BatchRecorder, shorten_epochs
from mtf.trainer.verify.hidden_state import hidden_state
from mtf.trainer.verify.random_sources import SourceRecorder
from mtf.trainer.verify.tensor_ops import OpRecorder
from mtf.trainer.verify.user_code import UserCode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed import FileDescriptorLike

    from mtf.spec.schema.run_config import ExperimentConfig
    from mtf.trainer.loop.loop import Loop
    from mtf.trainer.loop.phases import Phase
    from mtf.trainer.verify.trial_process import Trial

_INSTALLED = (f"{Path(os.__file__).parent}/", f"{PACKAGE}/")
PROCESSES, HIDDEN, END = "processes", "hidden.jsonl", "end.json"


def run(trial: Trial) -> None:
    """Train as a trial says.

    Raises:
        Stopped: the training was interrupted and has saved its state.
    """
    folder = Path(trial.run_dir)
    config = _config_of(trial)
    os.environ["MTF_RUN_DIR"] = str(folder)
    modules_before = frozenset(sys.modules)
    user_code = UserCode(Path(config.mtf.code_dir))
    put_first(config.mtf)
    sys.dont_write_bytecode = True
    os.fsync = _no_fsync
    process = _next_process_number(folder)
    probe = None
    if trial.probed_to is not None:
        SourceRecorder(folder, user_code).install()
        probe = _Probe(folder, user_code, process, trial.probed_to)
    recorder = BatchRecorder(folder, process, probe.probing if probe else None)
    recorder.install()
    shorten_epochs(trial.batches, trial.val_batches)
    if trial.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(mode=True)
    signals.install()
    context = RunContext(config, folder, build_fabric(config, os.environ))
    if trial.interruption is not None:
        trial.interruption.install()
    started = time.monotonic()
    try:
        run_job.train(context, lambda: None)
    finally:
        imported = [
            name for name in sys.modules if name not in modules_before and _is_installed(name)
        ]
        end = {"phases": recorder.counts, "seconds": time.monotonic() - started}
        (folder / END).write_text(json_text.dumps({**end, "modules": imported}))


def read_end(folder: Path) -> tuple[dict[str, int], float, list[str]]:
    """Return the phase counts, seconds and imports of the last process that ended by itself."""
    value = json_text.loads((folder / END).read_text())
    return value["phases"], value["seconds"], value["modules"]


def read_process_count(folder: Path) -> int:
    """Return the number of processes that a training took."""
    return (folder / PROCESSES).stat().st_size


def read_hidden(folder: Path) -> dict[tuple[int, ...], dict[str, str]]:
    """Return the unsaved state before each batch; of a replayed batch, that of the last process."""
    path = folder / HIDDEN
    found: dict[tuple[int, ...], dict[str, str]] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        if line.endswith("}"):
            value = json_text.loads(line)
            found[tuple(value["batch"])] = value["state"]
    return found


class _Probe:
    """Records every tensor operation and the unsaved state, in each phase up to a batch."""

    def __init__(
        self, folder: Path, user_code: UserCode, process: int, last_batch: tuple[int, bool, int]
    ) -> None:
        self._folder = folder
        self._user_code = user_code
        self._process = process
        self._last_batch = last_batch

    @contextmanager
    def probing(self, loop: Loop, position: BatchPosition, phase: Phase) -> Iterator[None]:
        """Record while the handler of a phase runs."""
        if position.key > self._last_batch:
            yield
            return
        if phase in LOADS:
            roots = (loop.engine.module, loop.train, loop.validation, loop.objective)
            self._write_hidden(position, hidden_state(roots, self._user_code))
        with OpRecorder(self._folder, self._user_code, position, phase, self._process):
            yield

    def _write_hidden(self, position: BatchPosition, state: dict[str, str]) -> None:
        line = {"batch": position.key, "state": state}
        with (self._folder / HIDDEN).open("a") as file:
            file.write(json_text.dumps(line) + "\n")


def _config_of(trial: Trial) -> ExperimentConfig:
    config = run_job.read_config(Path(trial.run_dir))
    if trial.num_workers is None or config.data is None:
        return config
    data = config.data.model_copy(update={"num_workers": trial.num_workers})
    return config.model_copy(update={"data": data})


def _next_process_number(folder: Path) -> int:
    """Return the number of this process among those of its training, counted from 1."""
    with (folder / PROCESSES).open("a") as file:
        file.write(".")
        return file.tell()


def _is_installed(module: str) -> bool:
    """Return True if a module is installed, and so cannot change between trials."""
    file = getattr(sys.modules[module], "__file__", None) or ""
    return "-packages/" in file or file.startswith(_INSTALLED)


def _no_fsync(fd: FileDescriptorLike) -> None:
    """Replace ``os.fsync``, which trials do not need: a killed process loses no written data."""
