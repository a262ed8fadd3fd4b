"""Runs the trainings to be compared: whole or interrupted, in forks or in new interpreters."""

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
from textwrap import indent
from typing import TYPE_CHECKING, Any

from mtf import rundir
from mtf.errors import MtfError
from mtf.trainer.job import run_job
from mtf.trainer.verify import one_trial, trial_process
from mtf.trainer.verify.batch_records import read_records
from mtf.trainer.verify.compare_trainings import result
from mtf.trainer.verify.parallel_trials import run_parallel, trainings_that_fit
from mtf.trainer.verify.trial_process import (
    COMPLETE,
    ERROR,
    OUTPUT,
    OVERDUE,
    STOPPED,
    Interruption,
    Trial,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mtf.trainer.verify.batch_records import BatchRecord
    from mtf.trainer.verify.parallel_trials import Steps
    from mtf.trainer.verify.trial_process import ChildProcess

# the time limit of a training: seconds, plus a multiple of what the first training took
_LIMIT_S, _LIMIT_FACTOR = 600.0, 20.0
_INTERRUPTED = frozenset({STOPPED, -signal.SIGKILL})


@dataclass(frozen=True)
class VerifyRequest:
    """What to verify, as ``mtf verify-resume`` writes it into the scratch folder."""

    batches: int
    val_batches: int
    phases: tuple[str, ...]  # empty: all phases
    stops: int
    jobs: int | None  # trainings at once; None: as many as cores and memory allow

    @classmethod
    def read(cls, path: Path) -> VerifyRequest:
        """Return the request in a JSON file."""
        value = json.loads(path.read_text())
        return cls(**{**value, "phases": tuple(value["phases"])})


@dataclass(frozen=True)
class Training:
    """A complete training, with or without interruptions."""

    folder: Path
    result: Mapping[str, Any]
    records: Mapping[Any, BatchRecord]


class TrainingFailedError(MtfError):
    """A training failed by itself; the message holds the whole error."""


class TrainingRunner:
    """Runs the trainings of one verification, each in a folder of its own."""

    def __init__(self, scratch: Path, request: VerifyRequest, *, forks: bool) -> None:
        """Take the scratch folder, the request, and whether forks of this process can train."""
        self._scratch = scratch
        self._request = request
        self._numbers = itertools.count(1)
        data = run_job.read_config(scratch).data
        self.num_workers = data.num_workers if data else 0
        self.forks = forks
        self.processes = 0  # started so far
        self.at_once = 1  # trainings that run in parallel
        self._limit_s: float | None = None

    def train(self, interruptions: Sequence[Interruption] = (), **options: Any) -> Training:
        """Train to the end, with the options of ``steps`` and nothing in parallel."""
        return next(run_parallel(1, [self.steps(interruptions, **options)]))

    def steps(
        self,
        interruptions: Sequence[Interruption] = (),
        *,
        fresh: bool = False,
        env: Mapping[str, str] | None = None,
        **changes: Any,
    ) -> Steps[Training]:
        """Train to the end, through all interruptions.

        Args:
            interruptions: the first one for the first process, the next one for the process that
                resumes after it, and so on.
            fresh: use new interpreters instead of forks of this process.
            env: environment variables for new interpreters.
            changes: fields of ``Trial``.

        Raises:
            TrainingFailedError: one of the processes failed, or did not end in time.
        """
        folder = self._scratch / "trainings" / f"{next(self._numbers):03}"
        folder.mkdir(parents=True)
        shutil.copy(self._scratch / rundir.CONFIG, folder)
        trial = Trial(
            str(folder),
            batches=self._request.batches,
            val_batches=self._request.val_batches,
            **changes,
        )
        for interruption in (*interruptions, None):
            self.processes += 1
            code = yield self._start(trial.interrupted(interruption), fresh=fresh, env=env or {})
            if code == COMPLETE:
                break
            if interruption is None or code not in _INTERRUPTED:
                raise TrainingFailedError(_failure_text(folder, code, interruption))
        return Training(folder, result(folder), read_records(folder))

    def discard(self, training: Training) -> None:
        """Remove a training's folder: its checkpoints may be large."""
        shutil.rmtree(training.folder, ignore_errors=True)

    def prepare_parallel(self, seconds: float, modules: Sequence[str]) -> None:
        """Set the time limit and the number of trainings at once; import what each would import.

        Args:
            seconds: how long the first training took.
            modules: the installed modules that it imported.
        """
        self._limit_s = _LIMIT_S + _LIMIT_FACTOR * seconds
        if not self.forks:  # on a GPU, one training at a time
            return
        for name in modules:
            with suppress(Exception):  # imports may fail in any way
                importlib.import_module(name)
        gc.freeze()  # the garbage collector of each fork would touch, and so copy, all objects
        threads = int(os.environ.get("MTF_CPUS") or 1)
        processes = max(threads, 1 + self.num_workers)
        self.at_once = self._request.jobs or trainings_that_fit(processes)

    def _start(self, trial: Trial, *, fresh: bool, env: Mapping[str, str]) -> ChildProcess:
        log = Path(trial.run_dir) / OUTPUT
        if self.forks and not fresh:
            return trial_process.fork(lambda: one_trial.run(trial), log=log, limit_s=self._limit_s)
        command = [sys.executable, "-m", "mtf.trainer.verify", "--trial", trial.dumps()]
        return trial_process.spawn(command, log=log, limit_s=self._limit_s, **env)


def _failure_text(folder: Path, code: int, interruption: Interruption | None) -> str:
    """Return the error message of a failed training, with the whole error that ended it."""
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else "failed"
    if code == OVERDUE:
        how = "did not end within its time limit and was killed"
    which = f"the training to be interrupted by {interruption}" if interruption else "a training"
    error, output = folder / ERROR, folder / OUTPUT
    if code > 0 and error.exists():
        text = error.read_text().strip()
    else:
        printed = output.read_text(errors="replace").splitlines() if output.exists() else []
        text = "\n".join(printed[-_SHOWN_LINES:]).strip() or "no output"
    text = f"\n{indent(text, '  ')}\n" if "\n" in text else f" {text} "
    return f"{which} {how}:{text}(full output: {output})"


_SHOWN_LINES = 30  # of the output of a training that was killed
