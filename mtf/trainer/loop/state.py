"""The snapshot that a training resumes from: its program counter, cursors and running sums.

Weights, optimizer and scheduler stand beside it in a checkpoint; see ``resume.snapshot``.
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

    from lightning.fabric import Fabric

FORMAT = 2  # of a checkpoint's content; a reader refuses a greater one


@dataclass
class TrainMicroState:
    """Where in the training of an epoch: counts of micro-batches, and the sums behind the loss."""

    batch: int = 0  # micro-batches of this epoch that are done
    window: int = 0  # of these, the newest whose gradients still wait for the optimizer
    offset: int = 0  # samples of this epoch that another number of ranks did before these batches
    # Sums of losses since the last scalars, and of those before. On the CPU, where reading a loss
    # costs nothing, they are numbers; else float64 tensors beside the losses, for nobody to wait.
    recent_loss: torch.Tensor | float = 0.0
    recent_count: int = 0
    epoch_loss: float = 0.0
    epoch_count: int = 0

    def add(self, loss: torch.Tensor, *, tolerant: bool = False) -> float | None:
        """Count a micro-batch as done, its gradients waiting for the optimizer.

        Args:
            loss: its mean.
            tolerant: whether a loss that is no finite number is left out of the sums.

        Returns:
            The loss, None where reading it would make the CPU wait for the device.
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
        """Return the mean loss since the last call, and add its sum to the epoch's."""
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
    """Where in a validation: batches done, and for each metric its sum and count so far.

    Sums and counts, not means: batches differ in size, and a resumed validation adds on.
    """

    batch: int = 0
    sums: dict[str, torch.Tensor] = field(default_factory=dict)  # float64
    counts: dict[str, float] = field(default_factory=dict)

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
    """One process's place in the training. ``phase`` is the instruction it executes next."""

    phase: Phase = Phase.INIT
    epoch: int = 0  # epochs done
    global_step: int = 0  # optimizer steps done
    version: int = FORMAT
    train: TrainMicroState = field(default_factory=TrainMicroState)
    val: ValMicroState = field(default_factory=ValMicroState)
    rng: RNGState | None = None  # captured when saving, never before
    timestamp: str = ""  # ISO 8601, UTC, of the save
    metrics: dict[str, float] = field(default_factory=dict)  # of the last epoch
    skipped: int = 0  # optimizer steps that were left out, for gradients that are not finite
    ended_by: str | None = None  # why the training ends before its last epoch
    # the monitored metric of the best checkpoints, by epochs and steps done
    best: dict[tuple[int, int], float] = field(default_factory=dict)

    def position(self) -> tuple[Phase, int, int, int, int]:
        """Return what tells two cuts of one training apart."""
        return self.phase, self.epoch, self.global_step, self.train.batch, self.val.batch

    def plain(self) -> dict[str, Any]:
        """Return it as containers of tensors, text and numbers."""
        return {
            **vars(self),
            "phase": str(self.phase),
            "train": dict(vars(self.train)),
            "val": dict(vars(self.val)),
            "rng": self.rng.plain() if self.rng else None,
        }

    @classmethod
    def read(cls, plain: Mapping[str, Any], device: torch.device) -> ResumeState:
        """Return the state that ``plain`` returned, its sums on ``device``."""
        train, val = dict(plain["train"]), dict(plain["val"])
        if isinstance(train["recent_loss"], torch.Tensor):
            train["recent_loss"] = train["recent_loss"].to(device)
        val["sums"] = {name: total.to(device) for name, total in val["sums"].items()}
        return cls(
            **{
                **plain,
                "phase": Phase(plain["phase"]),
                "train": TrainMicroState(**train),
                "val": ValMicroState(**val),
                "rng": RNGState(**plain["rng"]) if plain["rng"] else None,
            }
        )


def means_of(
    pairs: Mapping[str, tuple[torch.Tensor | float, float]], fabric: Fabric
) -> dict[str, float]:
    """Return the mean of each metric over the samples of all ranks, from its sum and count."""
    if fabric.world_size == 1:
        return {name: float(total) / max(count, 1) for name, (total, count) in pairs.items()}
    mine = [[float(total), float(count)] for total, count in pairs.values()]
    sums = torch.tensor(mine, dtype=torch.float64, device=fabric.device)
    summed = fabric.all_reduce(sums, reduce_op="sum").tolist()  # type: ignore[union-attr]
    return {name: total / max(count, 1) for name, (total, count) in zip(pairs, summed, strict=True)}
