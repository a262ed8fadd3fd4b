"""Makes trainings to be compared: whole or interrupted, forked or in new interpreters."""

from __future__ import annotations

import gc
import importlib
import itertools
import json
import os
import shutil
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtf import rundir
from mtf.errors import MtfError
from mtf.trainer.job import run_job
from mtf.trainer.verify import one_trial, trials
from mtf.trainer.verify.compare_trainings import result
from mtf.trainer.verify.parallel_trials import at_once, places_for
from mtf.trainer.verify.recorder import read_records
from mtf.trainer.verify.trials import COMPLETE, OUTPUT, OVERDUE, STOPPED, Interruption, Trial

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mtf.trainer.verify.parallel_trials import Steps
    from mtf.trainer.verify.recorder import Record
    from mtf.trainer.verify.trials import Child

_PATIENCE_S, _PATIENCE = 600.0, 20.0  # a trial may take so long, and so many times the whole one
_INTERRUPTED = frozenset({STOPPED, -signal.SIGKILL})


@dataclass(frozen=True)
class Order:
    """What is to be proved, as the command has written it into the scratch folder."""

    batches: int
    val_batches: int
    phases: tuple[str, ...]  # none: all of them
    stops: int
    jobs: int | None  # trainings at once; None: as many as there is room for

    @classmethod
    def read(cls, path: Path) -> Order:
        """Read it from its file."""
        value = json.loads(path.read_text())
        return cls(**{**value, "phases": tuple(value["phases"])})


@dataclass(frozen=True)
class Training:
    """A training that is complete, however often it was interrupted."""

    folder: Path
    result: Mapping[str, Any]
    records: Mapping[Any, Record]


class FailedError(MtfError):
    """A training of the proof has failed by itself: what it said last."""


class Laboratory:
    """Makes the trainings of one proof, each in a folder of its own."""

    def __init__(self, scratch: Path, order: Order, *, forks: bool) -> None:
        """Take the scratch folder, what to prove, and whether forks of this process can train."""
        self._scratch = scratch
        self._order = order
        self._numbers = itertools.count(1)
        self.num_workers = run_job.read_config(scratch).data.num_workers
        self.forks = forks
        self.processes = 0  # that have been started
        self.at_once = 1  # trainings
        self._limit_s: float | None = None

    def train(self, interruptions: Sequence[Interruption] = (), **how: Any) -> Training:
        """Train to the end; as ``steps``, with nothing beside it."""
        return next(at_once(1, [self.steps(interruptions, **how)]))

    def steps(
        self, interruptions: Sequence[Interruption] = (), *, fresh: bool = False, env: Any = None,
        **changes: Any,
    ) -> Steps[Training]:  # fmt: skip
        """Train to the end through all interruptions.

        Args:
            interruptions: one after the other, each in the process that the one before has left.
            fresh: in interpreters of their own, not in forks of this one.
            env: variables for these.
            changes: of the ``Trial``.

        Raises:
            FailedError: one of the processes failed, or did not end.
        """
        folder = self._scratch / "trainings" / f"{next(self._numbers):03}"
        folder.mkdir(parents=True)
        shutil.copy(self._scratch / rundir.CONFIG, folder)
        trial = Trial(
            str(folder), batches=self._order.batches, val_batches=self._order.val_batches, **changes
        )
        for interruption in (*interruptions, None):
            self.processes += 1
            code = yield self._start(trial.interrupted(interruption), fresh=fresh, env=env or {})
            if code == COMPLETE:
                break
            if interruption is None or code not in _INTERRUPTED:
                raise FailedError(_last_words(folder, code, interruption))
        return Training(folder, result(folder), read_records(folder))

    def discard(self, training: Training) -> None:
        """Remove what a training has left: its checkpoints may be large."""
        shutil.rmtree(training.folder, ignore_errors=True)

    def settle(self, seconds: float, modules: Sequence[str]) -> None:
        """Take the measure of a whole training, and import what each would import."""
        self._limit_s = _PATIENCE_S + _PATIENCE * seconds
        if not self.forks:  # but on a GPU, which one training has for itself
            return
        for name in modules:
            with suppress(Exception):  # a plug-in that is not for us
                importlib.import_module(name)
        gc.freeze()  # or each fork's collector would touch, and thereby copy, all of it
        threads = int(os.environ.get("MTF_CPUS") or 1)
        self.at_once = self._order.jobs or places_for(max(threads, 1 + self.num_workers))

    def _start(self, trial: Trial, *, fresh: bool, env: Mapping[str, str]) -> Child:
        log = Path(trial.run_dir) / OUTPUT
        if self.forks and not fresh:
            return trials.fork(lambda: one_trial.run(trial), log=log, limit_s=self._limit_s)
        command = [sys.executable, "-m", "mtf.trainer.verify", "--trial", trial.dumps()]
        return trials.spawn(command, log=log, limit_s=self._limit_s, **env)


def _last_words(folder: Path, code: int, interruption: Interruption | None) -> str:
    """Return how a training failed, and the end of its output."""
    path = folder / OUTPUT
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    said = next((line for line in reversed(lines) if line.strip()), "it said nothing")
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else "failed"
    if code == OVERDUE:
        how = "did not end and was killed"
    when = f" that was to get {interruption}" if interruption else ""
    return f"a training{when} {how}: {said.strip()} (all of it: {path})"
