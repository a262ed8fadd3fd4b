"""The run's journal as the job writes it: one method for each kind of event.

A full disk does not end a training: events that cannot be appended are kept and appended later. No
event is appended once another start of the run has taken over: all methods raise ShutOutError then.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

from mtf import rundir
from mtf.trainer.runtime import start_claim
from mtf.trainer.runtime.console import say
from mtf.trainer.runtime.start_claim import ShutOutError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mtf.spec.schema.run_config import ExperimentConfig
    from mtf.trainer.storage.checkpoint_store import Saved

PROGRESS_EVERY_S = 2.0


class Journal:
    """Appends events to a run's journal.

    Args:
        run_dir: the run folder.
        is_first_rank: the events of other ranks are dropped, except ``refused`` and ``failed``.
    """

    def __init__(self, run_dir: Path, *, is_first_rank: bool = True) -> None:
        self._run_dir = run_dir
        self.is_first_rank = is_first_rank
        self._next_progress = 0.0
        self._lock = threading.Lock()  # checkpoints are journaled by the thread that writes them
        # events that the disk did not take
        self._unwritten: list[tuple[str, Mapping[str, Any]]] = []

    def started(self, **facts: Any) -> None:
        """Record that a job has started on this run, and from which checkpoint."""
        self._append("started", facts)

    def proof(self, **facts: Any) -> None:
        """Record which code is proved to run."""
        self._append("proof", facts)

    def refused(self, reason: str, traceback: str) -> None:
        """Record that the job could not train, and what to change."""
        self._append_end("refused", reason, traceback)

    def progress(
        self, epoch: int, step: int, total_steps: int | None, **pace: float | None
    ) -> None:
        """Record the progress of the training, and its ``pace`` where it is known."""
        self._next_progress = time.monotonic() + PROGRESS_EVERY_S
        measured = {name: round(value, 3) for name, value in pace.items() if value is not None}
        where = {"epoch": epoch, "step": step, "total_steps": total_steps}
        self._append("progress", where | measured)

    def progress_is_due(self) -> bool:
        """Return True if the last ``progress`` is old enough for another."""
        return self.is_first_rank and time.monotonic() >= self._next_progress

    def metrics(self, epoch: int, step: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of an epoch."""
        self._append("metrics", {"epoch": epoch, "step": step, "metrics": dict(metrics)})

    def checkpoint(self, saved: Saved) -> None:
        """Record a durable checkpoint."""
        path = saved.path.relative_to(self._run_dir).as_posix()
        where = {"path": path, "epoch": saved.epoch, "step": saved.step}
        self._append("checkpoint", {**where, "sha256": saved.sha256, "bytes": saved.bytes})

    def unsaved(self, epoch: int, step: int, reason: str) -> None:
        """Record a checkpoint that could not be written."""
        self._append("unsaved", {"epoch": epoch, "step": step, "reason": reason})

    def stopped(self, reason: str, epoch: int, step: int) -> None:
        """Record that the training has stopped as asked, its state saved."""
        self._append("stopped", {"reason": reason, "epoch": epoch, "step": step})

    def failed(self, reason: str, traceback: str) -> None:
        """Record that the job has failed."""
        self._append_end("failed", reason, traceback)

    def initialised(self, facts: Mapping[str, Any]) -> None:
        """Record which run's checkpoint this run began from, and what was not loaded."""
        self._append("initialised", facts)

    def tracked(self, *, wandb: bool, reason: str) -> None:
        """Record whether this start logs to W&B, where the configuration leaves it open."""
        self._append("tracking", {"wandb": wandb, "reason": reason})

    def noted(self, reason: str) -> None:
        """Record a note on a complete training, such as the reason for which it ended early."""
        self._append("noted", {"reason": reason})

    def finished(self, epoch: int, step: int, metrics: Mapping[str, float]) -> None:
        """Record that the training is complete.

        Raises:
            OSError: the disk is full: this event, and perhaps earlier ones, are not written.
        """
        self._append("finished", {"epoch": epoch, "step": step, "metrics": dict(metrics)})
        with self._lock:
            self._flush()

    def resources(self, who: Mapping[str, Any], used: Mapping[str, float]) -> None:
        """Record the resources that a process of the training, of any rank, has used so far."""
        with suppress(OSError, ShutOutError):  # not worth a word
            facts = {**who, **used}
            rundir.append_journal(self._run_dir, "resources", facts, start_claim.require)

    def _append_end(self, event: str, reason: str, traceback: str) -> None:
        """Record the end of any rank that was refused or failed; the caller handles a full disk."""
        facts = {"reason": reason, "traceback": traceback}
        rundir.append_journal(self._run_dir, event, facts, start_claim.require)

    def _append(self, event: str, facts: Mapping[str, Any]) -> None:
        if not self.is_first_rank:
            return
        with self._lock:
            is_new = not self._unwritten
            # of several progress events, the newest is enough
            self._unwritten = [old for old in self._unwritten if old[0] != "progress"]
            self._unwritten.append((event, facts))
            try:
                self._flush()
            except OSError as e:
                if is_new:
                    say(f"could not write the journal: {e}. Its events are kept and written later")

    def _flush(self) -> None:
        while self._unwritten:
            rundir.append_journal(self._run_dir, *self._unwritten[0], start_claim.require)
            del self._unwritten[0]


def metric_modes(config: ExperimentConfig) -> dict[str, Literal["min", "max"]]:
    """Return the direction in which each metric improves that the configuration says it of."""
    modes: dict[str, Literal["min", "max"]] = {}
    stopping, metric = config.callbacks.early_stopping, monitored(config)
    if stopping is not None and stopping.monitor is not None and stopping.mode is not None:
        modes[stopping.monitor] = stopping.mode
    return modes if metric is None else {**modes, metric: config.checkpoint.mode}


def monitored(config: ExperimentConfig) -> str | None:
    """Return the metric that decides which checkpoint is best, None where there is none."""
    if config.checkpoint.monitor is not None:
        return config.checkpoint.monitor
    return "val_loss" if config.data is None or config.data.val_split is not None else None
