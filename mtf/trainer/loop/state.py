"""One rank's place in a training: phase, epoch, step, batch cursors, running sums, generators.

``resume.snapshot`` saves it in a checkpoint, beside weights, optimizers and schedulers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from mtf.trainer.compute.rng import RNGState
from mtf.trainer.loop.phases import Phase

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mtf.trainer.compute.rank_sync import RankSync

FORMAT = 2  # of a checkpoint's content; a reader refuses any other


@dataclass
class TrainMicroState:
    """Place in an epoch's training: counts of micro-batches, and the sums of their losses.

    Attributes:
        batch: micro-batches of this epoch that are done.
        window: those of them whose gradients wait for the optimizer step.
        offset: samples of this epoch that were done before, by another number of ranks.
        recent_loss: sum since the last row of scalars. A number on the CPU, where reading a loss
            is free; else a float64 tensor beside the losses, so that the CPU does not wait.
        epoch_loss: sum up to the last row of scalars.
        metrics: values of torchmetrics objects, from the end of the epoch's training part on.
    """

    batch: int = 0
    window: int = 0
    offset: int = 0
    recent_loss: torch.Tensor | float = 0.0
    recent_count: int = 0
    epoch_loss: float = 0.0
    epoch_count: int = 0
    metrics: dict[str, float] = field(default_factory=dict)

    def add(self, loss: torch.Tensor, *, tolerant: bool = False) -> float | None:
        """Count a micro-batch as done and its loss in the sums.

        Args:
            loss: the batch's mean loss.
            tolerant: whether a loss that is not finite is left out of the sums.

        Returns:
            The loss; None where reading it would make the CPU wait for the device.
        """
        value = None
        if loss.is_cpu:
            value = loss.item()
            if not tolerant or math.isfinite(value):
                self.recent_loss += value
        else:
            addend = loss.detach().double()
            addend = addend.nan_to_num(0.0, 0.0, 0.0) if tolerant else addend
            self.recent_loss = self.recent_loss + addend
        self.recent_count += 1
        self.batch += 1
        self.window += 1
        return value

    def close_recent(self) -> float:
        """Return the mean loss since the last call, and add the recent sum to the epoch's."""
        total, count = float(self.recent_loss), self.recent_count
        self.epoch_loss += total
        self.epoch_count += count
        self.recent_loss, self.recent_count = 0.0, 0
        return total / max(count, 1)

    def epoch_sum(self) -> tuple[float, float]:
        """Return the sum of the epoch's losses so far, and their number."""
        return self.epoch_loss + float(self.recent_loss), self.epoch_count + self.recent_count


@dataclass
class ValMicroState:
    """Place in a validation: batches done, and each metric's sum and count so far.

    Not means, since batches differ in size and a resumed validation continues the sums.
    """

    batch: int = 0
    sums: dict[str, torch.Tensor] = field(default_factory=dict)  # float64
    counts: dict[str, float] = field(default_factory=dict)
    returned: dict[str, str] = field(default_factory=dict)  # of torchmetrics objects: name, path

    def add(self, values: Mapping[str, tuple[torch.Tensor, float]]) -> None:
        """Add one batch's sums and counts."""
        for name, (total, count) in values.items():
            so_far = self.sums.get(name)
            self.sums[name] = total.double() if so_far is None else so_far + total
            self.counts[name] = self.counts.get(name, 0.0) + count

    def pairs(self) -> dict[str, tuple[torch.Tensor, float]]:
        """Return each metric's sum and count."""
        return {name: (total, self.counts[name]) for name, total in self.sums.items()}


@dataclass
class ResumeState:
    """One rank's place in a training. The object stays the same for a whole training.

    Attributes:
        phase: the instruction that is executed next.
        epoch: number of epochs done.
        global_step: number of optimizer steps done.
        rng: the generators' state, captured by a save.
        timestamp: of the save: ISO 8601, UTC.
        metrics: of the last epoch.
        skipped: number of optimizer steps skipped because gradients were not finite.
        ended_by: the reason for which the training ends before its last epoch.
        best: the monitored metric of the best checkpoints, by epochs and steps done.
    """

    phase: Phase = Phase.INIT
    epoch: int = 0
    global_step: int = 0
    version: int = FORMAT
    train: TrainMicroState = field(default_factory=TrainMicroState)
    val: ValMicroState = field(default_factory=ValMicroState)
    rng: RNGState | None = None
    timestamp: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    skipped: int = 0
    ended_by: str | None = None
    best: dict[tuple[int, int], float] = field(default_factory=dict)

    def position(self) -> tuple[Phase, int, int, int, int]:
        """Return the numbers that distinguish any two cuts of a training."""
        return self.phase, self.epoch, self.global_step, self.train.batch, self.val.batch

    def plain(self) -> dict[str, Any]:
        """Return the state as containers of tensors, text and numbers."""
        return {
            **vars(self),
            "phase": str(self.phase),
            "train": dict(vars(self.train)),
            "val": dict(vars(self.val)),
            "rng": self.rng.plain() if self.rng else None,
        }

    def load(self, plain: Mapping[str, Any], device: torch.device) -> None:
        """Take over the state that ``plain`` returned, its sums on ``device``."""
        train, val = dict(plain["train"]), dict(plain["val"])
        if isinstance(train["recent_loss"], torch.Tensor):
            train["recent_loss"] = train["recent_loss"].to(device)
        val["sums"] = {name: total.to(device) for name, total in val["sums"].items()}
        loaded = ResumeState(
            **{
                **plain,
                "phase": Phase(plain["phase"]),
                "train": TrainMicroState(**train),
                "val": ValMicroState(**val),
                "rng": RNGState(**plain["rng"]) if plain["rng"] else None,
            }
        )
        vars(self).update(vars(loaded))


def means_of(pairs: Mapping[str, tuple[Any, float]], rank_sync: RankSync) -> dict[str, float]:
    """Return each metric's mean over all ranks, from its sum and count on each.

    Ranks may have different metrics: one may depend on what is in a batch.
    """
    every = rank_sync.gather({name: (float(total), n) for name, (total, n) in pairs.items()})
    means: dict[str, float] = {}
    if every is not None:
        for name in dict.fromkeys(name for of_rank in every for name in of_rank):
            found = [of_rank[name] for of_rank in every if name in of_rank]
            means[name] = sum(total for total, _ in found) / max(sum(n for _, n in found), 1)
    shared: dict[str, float] = rank_sync.broadcast(means)
    return shared
