"""Progress of a training: rows of scalars, progress events for the journal, the display's data."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mtf.trainer.components.lr_schedulers import Length
from mtf.trainer.loop.state import means_by_name
from mtf.trainer.loop.step_values import LOSS
from mtf.trainer.tracking.progress_bar import ProgressStatus
from mtf.trainer.tracking.throughput import ProgressMark

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mtf.trainer.data.batches import Batches
    from mtf.trainer.loop.state import ResumeState
    from mtf.trainer.storage.journal import Journal
    from mtf.trainer.storage.scalars import Scalars
    from mtf.trainer.tracking.tracking import Tracking


@dataclass
class ProgressReport:
    """Writes scalars and progress to files, mirrors and display; holds no state of the training.

    Attributes:
        scalars: None on all ranks but the first.
        world_size: number of ranks.
        length: of the whole training.
        loss: the newest mean loss that was logged.
    """

    journal: Journal
    scalars: Scalars | None
    tracking: Tracking
    world_size: int
    length: Length = field(default_factory=lambda: Length(0, 0))
    loss: float | None = None
    _batch_size: int = 0  # the greatest so far; 0: unknown

    def log_row(self, row: Mapping[str, Any]) -> None:
        """Append a row to the scalars and to their mirrors, such as wandb."""
        if self.scalars is not None:
            self.scalars.append(row)
            self.tracking.mirrors.show(row)

    def log_step(
        self,
        state: ResumeState,
        sums: Mapping[str, tuple[float, float]],
        rates: Mapping[str, float],
    ) -> float:
        """Append a row of a step: means since the last one, and learning rates.

        Returns:
            The mean loss.
        """
        means = means_by_name(sums)
        self.loss = means[LOSS]
        self.log_row({"epoch": state.epoch, "step": state.global_step, **means, **rates})
        return self.loss

    def log_observed(self, epoch: int, step: int, observed: Mapping[str, Any]) -> None:
        """Append a row of an observer's values, such as histograms, if there are any."""
        if observed:
            self.log_row({"epoch": epoch, "step": step, **observed})

    def journal_progress(self, state: ResumeState, batches: int, samples: int | None) -> None:
        """Append a progress event to the journal.

        Args:
            state: place in the training.
            batches: number that this rank has done, in all epochs.
            samples: number in the newest training batch, to learn the batch size from; None:
                unknown.
        """
        throughput, total = self.tracking.throughput, self.length.steps
        throughput.add(ProgressMark(time.monotonic(), state.global_step, batches))
        self.journal.progress(
            state.epoch,
            state.global_step,
            total,
            steps_per_s=throughput.steps_per_s,
            samples_per_s=self._samples_per_s(samples),
            eta_s=throughput.eta_s(total),
        )

    def _samples_per_s(self, samples: int | None) -> float | None:
        """Return the samples a second of all ranks, None while unknown."""
        self._batch_size = max(self._batch_size, samples or 0)
        batches_per_s = self.tracking.throughput.batches_per_s
        if batches_per_s is None or not self._batch_size:
            return None
        return batches_per_s * self._batch_size * self.world_size

    def standing(self, state: ResumeState, num_val_batches: int) -> ProgressStatus:
        """Return the training's progress for a display; may be called from any thread."""
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


def newest_batch(state: ResumeState, batches: Batches) -> str:
    """Return the newest micro-batch in words: epoch, step, batch and its samples."""
    batch = max(state.train.batch - 1, 0)
    place = f"epoch {state.epoch + 1}, step {state.global_step}, batch {batch}"
    samples = getattr(batches, "samples", lambda *_: None)(state.epoch, batch)
    return f"{place} (samples {', '.join(map(str, samples))})" if samples else place
