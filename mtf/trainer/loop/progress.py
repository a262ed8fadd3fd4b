"""What a loop tells of itself as it goes: rows of scalars, how far it is, how fast it gets on."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mtf.trainer.loop.objective import num_samples
from mtf.trainer.tracking.progress_bar import ProgressStatus
from mtf.trainer.tracking.throughput import ProgressMark

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mtf.trainer.components.lr_schedulers import Length
    from mtf.trainer.loop.state import ResumeState
    from mtf.trainer.storage.journal import Journal
    from mtf.trainer.storage.scalars import Scalars
    from mtf.trainer.tracking.tracking import Tracking


@dataclass
class ProgressReport:
    """Tells what the loop hands it; holds no state of the training.

    Attributes:
        world_size: number of ranks.
        loss: the newest that was logged.
    """

    journal: Journal
    scalars: Scalars | None  # on the first rank only
    tracking: Tracking
    length: Length
    world_size: int
    loss: float | None = None
    _batch_size: int = 0  # the greatest seen; 0: not known

    def row(self, row: Mapping[str, Any]) -> None:
        """Add a row, and show it where rows are shown."""
        if self.scalars is not None:
            self.scalars.append(row)
            self.tracking.mirrors.show(row)

    def seen(self, epoch: int, step: int, seen: Mapping[str, Any]) -> None:
        """Add a row of what an observer has seen, if it has seen anything."""
        if seen:
            self.row({"epoch": epoch, "step": step, **seen})

    def progress(self, state: ResumeState, batches: int, batch: Any) -> None:
        """Journal how far the training is.

        Args:
            state: where it is.
            batches: of this rank, those done in all epochs.
            batch: one whose size tells that of the others; None: there is none at hand.
        """
        throughput, total = self.tracking.throughput, self.length.steps
        throughput.add(ProgressMark(time.monotonic(), state.global_step, batches))
        self.journal.progress(
            state.epoch, state.global_step, total,
            steps_per_s=throughput.steps_per_s, samples_per_s=self._samples_per_s(batch),
            eta_s=throughput.eta_s(total),
        )  # fmt: skip

    def _samples_per_s(self, batch: Any) -> float | None:
        """Return the samples of all ranks a second, None while that is not known."""
        if batch is not None:
            with suppress(Exception):  # batches may be anything; only the rate needs it
                self._batch_size = max(self._batch_size, num_samples(batch))
        batches_per_s = self.tracking.throughput.batches_per_s
        if batches_per_s is None or not self._batch_size:
            return None
        return batches_per_s * self._batch_size * self.world_size

    def standing(self, state: ResumeState, num_val_batches: int) -> ProgressStatus:
        """Return where the training is, as people want to know it; called from any thread."""
        throughput, total = self.tracking.throughput, self.length.steps
        validating = state.phase.startswith("VAL_")
        return ProgressStatus(
            epoch=min(state.epoch + 1, self.length.epochs),
            max_epochs=self.length.epochs,
            step=state.global_step,
            total_steps=total,
            loss=self.loss,
            steps_per_s=throughput.steps_per_s,
            eta_s=throughput.eta_s(total),
            validation=(state.val.batch, num_val_batches) if validating else None,
        )
