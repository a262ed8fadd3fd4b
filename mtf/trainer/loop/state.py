"""One rank's place in a training: phase, epoch, step, batch cursors, running sums, generators.

``resume.snapshot`` saves it in a checkpoint, beside weights, optimizers and schedulers.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from mtf.core.vocabulary.times import parse_time
from mtf.errors import MtfError
from mtf.trainer.compute.rng import RNGState
from mtf.trainer.loop.phases import Phase
from mtf.trainer.loop.step_values import LOSS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mtf.trainer.compute.rank_sync import RankSync
    from mtf.trainer.loop.step_values import Loss, Scalar

FORMAT = 3  # of a checkpoint's content; a reader refuses any other, with one exception
UNWEIGHED_FORMAT = 2
VERSION = "v2.0"  # of ``ResumeState``, for programs that read it


def is_readable(content: Mapping[str, Any], version: int) -> bool:
    """Return True if a checkpoint of another format means the same as one of this format.

    Format 2 summed losses over batches, not samples, so it must have been saved between epochs.
    """
    is_old = version == UNWEIGHED_FORMAT and "ranks" in content
    return is_old and all(rank["train"]["batch"] == 0 for rank in content["ranks"])


@dataclass
class TrainMicroState:
    """Place in an epoch's training: counts of micro-batches, and the sums of their values.

    A sum goes with the count of what it is over: samples, or what the step counts, such as tokens.
    Sums and counts are numbers on the CPU, where reading a loss is free; else float64 tensors
    beside the losses, so that the CPU does not wait.

    Attributes:
        batch: micro-batches of this epoch that are done.
        window: those of them whose gradients wait for the optimizer step.
        window_total: what the window's gradients were weighed for, see ``loop.accumulation``.
        window_count: samples of the window's micro-batches so far.
        window_is_measured: whether its gradients must be divided by what was really in it.
        recent_loss: sum since the last row of scalars.
        epoch_loss: sum up to the last row of scalars.
        recent_others: sums and counts of a step's further values, by metric, like ``recent_loss``.
        epoch_others: likewise.
        metrics: values of torchmetrics objects, from the end of the epoch's training part on.
        returned: names and paths of the torchmetrics objects that the steps returned.
        seen_end: batches of this epoch, of data that only tells it by ending; 0: not in sight.
        before_window: recent sums and counts when the window began, see ``undo_window``.
        newest: the mean loss of the newest micro-batch, None if there is none.
    """

    batch: int = 0
    window: int = 0
    window_total: float = 0
    window_count: Scalar = 0
    window_is_measured: bool = False
    recent_loss: Scalar = 0.0
    recent_count: Scalar = 0
    epoch_loss: float = 0.0
    epoch_count: float = 0
    recent_others: dict[str, tuple[Scalar, Scalar]] = field(default_factory=dict)
    epoch_others: dict[str, tuple[float, float]] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    returned: dict[str, str] = field(default_factory=dict)
    seen_end: int = 0
    before_window: dict[str, tuple[Scalar, Scalar]] = field(default_factory=dict)
    newest: Scalar | None = None

    @property
    def newest_loss(self) -> torch.Tensor | None:
        """Return the mean loss of the newest micro-batch as a tensor without a graph."""
        return None if self.newest is None else torch.as_tensor(self.newest, dtype=torch.float64)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> TrainMicroState:
        """Return the state of a checkpoint.

        Raises:
            MtfError: an earlier version of mtf had changed the number of processes in its epoch.
        """
        values = dict(plain)
        if values.pop("offset", 0):
            raise MtfError(
                "the checkpoint lies in an epoch that an earlier version of mtf continued with"
                " another number of processes, in smaller batches: end the epoch with that version"
            )
        return cls(**values)

    def undo_window(self) -> None:
        """Return to the beginning of the present accumulation window, if one has begun."""
        if self.window:
            before = dict(self.before_window)
            self.recent_loss, self.recent_count = before.pop(LOSS)
            self.recent_others = before
            self.batch -= self.window
            self.window = 0

    def add_sums(self, other: TrainMicroState) -> None:
        """Add the values of another rank that is at the same place."""
        for key in ("recent_loss", "recent_count", "epoch_loss", "epoch_count"):
            setattr(self, key, getattr(self, key) + getattr(other, key))
        self.recent_others = _added(self.recent_others, other.recent_others)
        self.epoch_others = _added(self.epoch_others, other.epoch_others)

    def add(self, loss: Loss, samples: int | None, *, tolerant: bool = False) -> float | None:
        """Count a micro-batch as done and its values in the sums.

        Args:
            loss: the batch's loss.
            samples: number of samples in the batch, None if unknown.
            tolerant: whether a batch whose loss is not finite is left out of sums and counts.

        Returns:
            The mean loss; None where reading it would make the CPU wait for the device.
        """
        mean, total, weight, others = loss
        if weight is None:
            weight = loss.weight(None) if samples is None else samples
        value = None
        if self.window == 0:
            self.before_window = {LOSS: (self.recent_loss, self.recent_count)}
            if self.recent_others:
                self.before_window |= self.recent_others
        if mean.is_cpu and not isinstance(weight, torch.Tensor):
            value = mean.item()
            if not tolerant or math.isfinite(value):
                self.recent_loss += value * weight if total is None else total.item()
                self.recent_count += weight
                if others:
                    self._add_others(loss, weight, None)
        else:
            self._add_on_device(loss, weight, tolerant=tolerant)
        self.newest = mean.detach() if value is None else value
        self.batch += 1
        self.window += 1
        return value

    def _add_on_device(self, loss: Loss, weight: Scalar, *, tolerant: bool) -> None:
        """Add a batch whose loss is on an accelerator, without reading it."""
        mean = loss.mean.detach().double().reshape(())
        total = mean * weight if loss.total is None else loss.total.detach().double().reshape(())
        kept = mean.isfinite() if tolerant else None
        self.recent_loss = self.recent_loss + _masked(total, kept)
        self.recent_count = self.recent_count + _masked(weight, kept)
        self._add_others(loss, weight, kept)

    def _add_others(self, loss: Loss, weight: Scalar, kept: torch.Tensor | None) -> None:
        for name, addend, number in loss.pairs_of_others(weight):
            total, count = self.recent_others.get(name, (0.0, 0))
            self.recent_others[name] = total + _masked(addend, kept), count + _masked(number, kept)

    def close_recent(self) -> dict[str, tuple[float, float]]:
        """Return sums and counts since the last call, by metric, and add them to the epoch's."""
        recent = _floats({LOSS: (self.recent_loss, self.recent_count), **self.recent_others})
        total, count = recent[LOSS]
        self.epoch_loss += total
        self.epoch_count += count
        for name in self.recent_others:
            total, count = self.epoch_others.get(name, (0.0, 0))
            self.epoch_others[name] = total + recent[name][0], count + recent[name][1]
        self.recent_loss, self.recent_count, self.recent_others = 0.0, 0, {}
        return recent

    def epoch_sums(self) -> dict[str, tuple[float, float]]:
        """Return the epoch's sums and counts so far, by metric."""
        so_far = copy.copy(self)
        so_far.epoch_others = dict(self.epoch_others)
        so_far.close_recent()
        return {LOSS: (so_far.epoch_loss, so_far.epoch_count), **so_far.epoch_others}

    def to(self, device: torch.device) -> TrainMicroState:
        """Return the state with its tensors on a device."""

        def moved(value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(map(moved, value))
            if isinstance(value, dict):
                return {name: moved(part) for name, part in value.items()}
            return value.to(device) if isinstance(value, torch.Tensor) else value

        return TrainMicroState(**moved(dict(vars(self))))


def _added(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, Any]:
    """Return sums and counts by name, those of both added up."""
    added = dict(left)
    for name, (total, count) in right.items():
        so_far = added.get(name, (0.0, 0))
        added[name] = (so_far[0] + total, so_far[1] + count)
    return added


def _masked(value: Scalar, kept: torch.Tensor | None) -> Scalar:
    """Return a value, 0 in its place where it is not kept; everything is if ``kept`` is None."""
    if kept is None:
        return value
    value = torch.as_tensor(value, dtype=torch.float64, device=kept.device)
    return torch.where(kept, value, torch.zeros_like(value))


def _floats(pairs: Mapping[str, tuple[Scalar, Scalar]]) -> dict[str, tuple[float, float]]:
    return {name: (float(total), float(count)) for name, (total, count) in pairs.items()}


@dataclass
class ValMicroState:
    """Place in a validation: batches done, and each metric's sum and count so far.

    Not means, since batches differ in size and a resumed validation continues the sums.
    """

    batch: int = 0
    sums: dict[str, torch.Tensor] = field(default_factory=dict)  # float64
    counts: dict[str, float] = field(default_factory=dict)
    returned: dict[str, str] = field(default_factory=dict)  # of torchmetrics objects: name, path
    seen_end: int = 0  # as of ``TrainMicroState``

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
        version: of the names of these attributes.
        rng: the generators' state, captured by a save.
        timestamp: of the save: seconds since 1970, UTC; 0: never saved.
        metrics: of the last epoch.
        skipped: number of optimizer steps skipped because gradients were not finite.
        ended_by: the reason for which the training ends before its last epoch.
        best: the monitored metric of the best checkpoints, by epochs and steps done.
        shares: number of processes that the training began with, whose batches make a step; 0:
            it has not begun.
    """

    phase: Phase = Phase.INIT
    epoch: int = 0
    global_step: int = 0
    version: str = VERSION
    train: TrainMicroState = field(default_factory=TrainMicroState)
    val: ValMicroState = field(default_factory=ValMicroState)
    rng: RNGState | None = None
    timestamp: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    skipped: int = 0
    ended_by: str | None = None
    best: dict[tuple[int, int], float] = field(default_factory=dict)
    shares: int = 0

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
        train, val = TrainMicroState.of(plain["train"]), dict(plain["val"])
        val["sums"] = {name: total.to(device) for name, total in val["sums"].items()}
        loaded = ResumeState(
            **{
                **plain,
                "version": VERSION,
                "timestamp": _seconds(plain["timestamp"]),
                "phase": Phase(plain["phase"]),
                "train": train.to(device),
                "val": ValMicroState(**val),
                "rng": RNGState(**plain["rng"]) if plain["rng"] else None,
            }
        )
        vars(self).update(vars(loaded))


def _seconds(saved: float | str) -> float:
    """Return the time of a save in seconds; earlier versions of mtf wrote it as ISO 8601."""
    if isinstance(saved, str):
        return parse_time(saved).timestamp() if saved else 0.0
    return saved


def means_of(pairs: Mapping[str, tuple[Any, float]], rank_sync: RankSync) -> dict[str, float]:
    """Return each metric's mean over all ranks, from its sum and count on each.

    Ranks may have different metrics: one may depend on what is in a batch.
    """
    return means_by_name(rank_sync.sums(pairs))


def means_by_name(sums: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Return the mean of each sum and count."""
    return {name: mean_of(total, count) for name, (total, count) in sums.items()}


def mean_of(total: float, count: float) -> float:
    """Return a mean; that of nothing is not a number."""
    return total / count if count else math.nan
