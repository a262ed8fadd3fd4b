"""What a job says to the outside: one typed function for each fact of the run's journal.

A full disk ends no training: what cannot be appended is said, kept, and appended with the next.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from mtf import rundir
from mtf.trainer.runtime.console import say

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mtf.spec.schema.run_config import ExperimentConfig
    from mtf.trainer.storage.checkpoint_store import Saved

PROGRESS_EVERY_S = 2.0


class Journal:
    """Appends facts to the journal of a run; but for bad ends, only the first rank's are heard."""

    def __init__(self, run_dir: Path, *, speaks: bool = True) -> None:
        self._run_dir = run_dir
        self._speaks = speaks
        self._next_progress = 0.0
        self._lock = threading.Lock()  # checkpoints are journaled by the thread that writes them
        self._kept: list[tuple[str, Mapping[str, Any]]] = []  # facts that the disk did not take

    def started(self, **facts: Any) -> None:
        """Say that a job has started on this run, and from where."""
        self._append("started", facts)

    def proof(self, **facts: Any) -> None:
        """Say what is proved to run."""
        self._append("proof", facts)

    def refused(self, reason: str, traceback: str) -> None:
        """Say that nothing could be trained, and what to change."""
        self._append_end("refused", reason, traceback)

    def progress(
        self, epoch: int, step: int, total_steps: int | None, **pace: float | None
    ) -> None:
        """Say how far the training is, and its ``pace`` where it is known."""
        self._next_progress = time.monotonic() + PROGRESS_EVERY_S
        known = {name: round(value, 3) for name, value in pace.items() if value is not None}
        where = {"epoch": epoch, "step": step, "total_steps": total_steps}
        self._append("progress", where | known)

    def progress_is_due(self) -> bool:
        """Return whether the last ``progress`` is old enough for another."""
        return self._speaks and time.monotonic() >= self._next_progress

    def metrics(self, epoch: int, step: int, metrics: Mapping[str, float]) -> None:
        """Say what an epoch has come to."""
        self._append("metrics", {"epoch": epoch, "step": step, "metrics": dict(metrics)})

    def checkpoint(self, saved: Saved) -> None:
        """Say that a checkpoint is durable."""
        path = saved.path.relative_to(self._run_dir).as_posix()
        where = {"path": path, "epoch": saved.epoch, "step": saved.step}
        self._append("checkpoint", {**where, "sha256": saved.sha256, "bytes": saved.bytes})

    def unsaved(self, epoch: int, step: int, reason: str) -> None:
        """Say that a checkpoint could not be written."""
        self._append("unsaved", {"epoch": epoch, "step": step, "reason": reason})

    def stopped(self, reason: str, epoch: int, step: int) -> None:
        """Say that the training has stopped as asked, all of it saved."""
        self._append("stopped", {"reason": reason, "epoch": epoch, "step": step})

    def failed(self, reason: str, traceback: str) -> None:
        """Say that the job has failed."""
        self._append_end("failed", reason, traceback)

    def initialised(self, facts: Mapping[str, Any]) -> None:
        """Say which run's checkpoint this one has begun from, and what was left out of it."""
        self._append("initialised", facts)

    def noted(self, reason: str) -> None:
        """Say what people should know of a complete training, such as why it has ended early."""
        self._append("noted", {"reason": reason})

    def finished(self, epoch: int, step: int, metrics: Mapping[str, float]) -> None:
        """Say that the training is complete.

        Raises:
            OSError: it cannot be said; all that was not either.
        """
        self._append("finished", {"epoch": epoch, "step": step, "metrics": dict(metrics)})
        with self._lock:
            self._flush()

    def _append_end(self, event: str, reason: str, traceback: str) -> None:
        """Say a bad end, of whichever rank; a full disk is the caller's care."""
        said = {"reason": reason, "traceback": traceback}
        rundir.append_journal(self._run_dir, event, said)

    def _append(self, event: str, facts: Mapping[str, Any]) -> None:
        if not self._speaks:
            return
        with self._lock:
            is_new = not self._kept
            self._kept = [kept for kept in self._kept if kept[0] != "progress"]  # out of date
            self._kept.append((event, facts))
            try:
                self._flush()
            except OSError as e:
                if is_new:
                    say(f"the journal cannot be written, and is to be made up for: {e}")

    def _flush(self) -> None:
        while self._kept:
            rundir.append_journal(self._run_dir, *self._kept[0])
            del self._kept[0]


def monitored(config: ExperimentConfig) -> str | None:
    """Return the metric that says which checkpoint is best, None where there is none."""
    if config.checkpoint.monitor is not None:
        return config.checkpoint.monitor
    return "val_loss" if config.data.val_split is not None else None
