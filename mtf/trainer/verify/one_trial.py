"""One trial in this process: the training as a job runs it, watched, and perhaps interrupted."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

import mtf
from mtf.trainer.compute.fabric import build_fabric
from mtf.trainer.context import RunContext
from mtf.trainer.job import run_job
from mtf.trainer.job.code_proof import put_first
from mtf.trainer.runtime import signals
from mtf.trainer.verify.hidden_state import Own, hidden_state
from mtf.trainer.verify.ops import OpNotes
from mtf.trainer.verify.random_sources import Watcher
from mtf.trainer.verify.recorder import LOADS, Place, Recorder, place_of, shorten

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mtf.spec.schema.run_config import ExperimentConfig
    from mtf.trainer.loop.loop import Loop
    from mtf.trainer.loop.phases import Phase
    from mtf.trainer.verify.trials import Trial

_INSTALLED = (f"{Path(os.__file__).parent}/", f"{Path(mtf.__file__).parent}/")
LIVES, HIDDEN, END = "lives", "hidden.jsonl", "end.json"


def run(trial: Trial) -> None:
    """Train as a trial says.

    Raises:
        Stopped: it was interrupted, its state saved.
    """
    folder = Path(trial.run_dir)
    config = _config_of(trial)
    os.environ["MTF_RUN_DIR"] = str(folder)
    known = frozenset(sys.modules)
    own = Own(Path(config.mtf.code_dir))
    put_first(Path(config.mtf.code_dir))
    sys.dont_write_bytecode = True
    os.fsync = _left_out  # type: ignore[assignment]
    life = _next_life(folder)
    probe = None
    if trial.probed_to is not None:
        Watcher(folder, own).install()
        probe = _Probe(folder, own, life, trial.probed_to)
    recorder = Recorder(folder, life, probe.watching if probe else None)
    recorder.install()
    shorten(trial.batches, trial.val_batches)
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
        imported = [name for name in sys.modules if name not in known and _is_installed(name)]
        end = {"phases": recorder.counts, "seconds": time.monotonic() - started}
        (folder / END).write_text(json.dumps({**end, "modules": imported}))


def read_end(folder: Path) -> tuple[dict[str, int], float, list[str]]:
    """Return phases, seconds and imports of the last process that ended by itself."""
    value = json.loads((folder / END).read_text())
    return value["phases"], value["seconds"], value["modules"]


def read_lives(folder: Path) -> int:
    """Return how many processes a training took."""
    return (folder / LIVES).stat().st_size


def read_hidden(folder: Path) -> dict[tuple[int, ...], dict[str, str]]:
    """Return what a training kept beside its state before each batch; the last life's."""
    path = folder / HIDDEN
    found: dict[tuple[int, ...], dict[str, str]] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        if line.endswith("}"):
            value = json.loads(line)
            found[tuple(value["place"])] = value["state"]
    return found


class _Probe:
    """Looks into each phase up to a batch: every operation, and the state that is not saved."""

    def __init__(self, folder: Path, own: Own, life: int, to: tuple[int, bool, int]) -> None:
        self._folder = folder
        self._own = own
        self._life = life
        self._to = to

    @contextmanager
    def watching(self, loop: Loop, phase: Phase) -> Iterator[None]:
        """Watch while a handler runs."""
        place = place_of(loop, phase)
        if place.key > self._to:
            yield
            return
        if phase in LOADS:
            self._note_hidden(loop, place)
        with OpNotes(self._folder, self._own, place, phase, self._life):
            yield

    def _note_hidden(self, loop: Loop, place: Place) -> None:
        state = hidden_state(loop, self._own)
        line = {"place": place.key, "state": state}
        with (self._folder / HIDDEN).open("a") as file:
            file.write(json.dumps(line) + "\n")


def _config_of(trial: Trial) -> ExperimentConfig:
    config = run_job.read_config(Path(trial.run_dir))
    if trial.num_workers is None:
        return config
    data = config.data.model_copy(update={"num_workers": trial.num_workers})
    return config.model_copy(update={"data": data})


def _next_life(folder: Path) -> int:
    """Return the number of this process among those of its training, from 1."""
    with (folder / LIVES).open("a") as file:
        file.write(".")
        return file.tell()


def _is_installed(module: str) -> bool:
    """Return whether a module is nothing that a user works on."""
    file = getattr(sys.modules[module], "__file__", None) or ""
    return "-packages/" in file or file.startswith(_INSTALLED)


def _left_out(_fd: int) -> None:
    """Stand in for ``os.fsync``: a process that dies loses nothing written, a machine does."""
