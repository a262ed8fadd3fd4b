"""Accumulation windows: the weight of each micro-batch, so that a gradient is a mean over samples.

A micro-batch of n samples adds the gradient of its mean loss with the weight ``n * ranks / total``,
where ``total`` samples are in the window on all ranks, whose gradients DDP averages. If only the
batches or the steps tell their numbers, ``total`` is a guess, and the sum of the window's gradients
is divided at its end by what was wrong with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mtf.errors import MtfError
from mtf.trainer.components.lr_schedulers import Length
from mtf.trainer.data.mixing import deal
from mtf.trainer.data.sample_counts import known_samples
from mtf.trainer.loop.step_values import nonzero

if TYPE_CHECKING:
    from mtf.spec.schema.sections import TrainingConfig
    from mtf.trainer.compute.rank_sync import RankSync
    from mtf.trainer.data.batches import Batches
    from mtf.trainer.data.epoch_reader import EpochReader
    from mtf.trainer.loop.state import ResumeState, TrainMicroState
    from mtf.trainer.loop.step_values import Loss, Scalar


def shared_out(
    train: Batches, state: ResumeState, training: TrainingConfig, rank_sync: RankSync
) -> tuple[Batches, Accumulation]:
    """Return this rank's part of the batches, and the windows that it accumulates.

    The batches are made for as many processes as the training began with, which ``state.shares``
    tells and remembers. Other ranks than these accumulate more of them, or fewer.
    """
    here = rank_sync.world_size
    state.shares = state.shares or here
    size = training.gradient_accumulation_steps * state.shares // here
    return deal(train, state.shares, here), Accumulation(size, rank_sync)


class Accumulation:
    """Weighs the micro-batches of a training's accumulation windows.

    Attributes:
        size: micro-batches in a whole window.
        is_trivial: whether each window is one micro-batch of one rank, so that nothing is weighed.
    """

    def __init__(self, micro_batches: int, rank_sync: RankSync) -> None:
        self.size, self._sync = micro_batches, rank_sync
        self.is_trivial = micro_batches == 1 and rank_sync.is_alone
        self._reader: EpochReader | None = None
        self._planned: list[int | None] | None = None  # samples of each batch, on all ranks
        self._of_data: tuple[Batches, int] | None = None

    def open_epoch(self, batches: Batches, epoch: int, reader: EpochReader) -> None:
        """Learn the sizes of an epoch's batches, where the data knows them. All ranks call it."""
        self._reader, self._of_data = reader, (batches, epoch)
        if self._sync.is_alone:
            return
        mine = [known_samples(batches, epoch, batch) for batch in range(reader.num_batches)]
        is_known = self._sync.minimum(int(None not in mine))
        self._planned = None
        if is_known:
            self._planned = self._sync.total(torch.tensor(mine)).tolist()

    def length(self, state: ResumeState, num_batches: int, max_epochs: int) -> Length:
        """Return the length of a training if all epochs to come have as many batches as this."""
        done = -(-(state.train.batch - state.train.window) // self.size)
        left = (max_epochs - state.epoch) * -(-num_batches // self.size)
        return Length(state.global_step - done + left, max_epochs)

    def window_size(self, train: TrainMicroState) -> int:
        """Return the micro-batches in the present window, fewer at the end of an epoch.

        Call it before a micro-batch is counted as done.
        """
        if self.size == 1:
            return 1
        assert self._reader is not None
        return min(self.size, train.window + self._reader.num_batches - train.batch)

    def weighed(self, train: TrainMicroState, loss: Loss, samples: int | None) -> torch.Tensor:
        """Return a micro-batch's loss with its weight in the window, and count its samples there.

        Args:
            train: the place in the epoch, before the micro-batch is counted as done.
            loss: the micro-batch's loss.
            samples: its number of samples, None if unknown.
        """
        if train.window == 0:
            self._begin(train, loss, samples)
        ranks, total = self._sync.world_size, train.window_total
        weight = loss.weight(samples)
        train.window_count = train.window_count + weight
        if loss.total is not None:
            train.window_is_measured = True
            return loss.total if ranks == total else loss.total * (ranks / total)
        if loss.own_count is not None:
            self._require_one_rank()
            train.window_is_measured = True
        size = self.window_size(train)
        if weight * ranks * size == total:  # all are alike: the exact bits of the usual division
            return loss.mean if size == 1 else loss.mean / size
        return loss.mean * (weight * ranks / total)

    def divisor(self, train: TrainMicroState) -> Scalar | None:
        """Return the divisor of a whole window's gradients, None for 1. All ranks call it."""
        if not train.window_is_measured:
            return None
        count = self._sync.total(train.window_count)
        if not isinstance(count, torch.Tensor) and count in {0, train.window_total}:
            return None
        return nonzero(count) / train.window_total

    def _require_one_rank(self) -> None:
        """Refuse a mean over fewer samples than are planned, which other ranks do not know of.

        Raises:
            MtfError: there are several ranks.
        """
        if not self._sync.is_alone:
            raise MtfError(
                "a batch has targets of -100, which cross entropy leaves out, so the processes"
                " differ in what their losses are a mean of: define in the model a"
                " training_step(batch) that returns a pair (sum, count)"
            )

    def _begin(self, train: TrainMicroState, loss: Loss, samples: int | None) -> None:
        """Set a window's total: as planned, as its first micro-batch suggests, or 1 for counts."""
        train.window_count, train.window_is_measured = 0, False
        if loss.total is not None:
            train.window_total = self._sync.world_size
            return
        size = self.window_size(train)
        total = self._plan(train.batch, size)
        if total is None:
            train.window_is_measured = size > 1
            total = size * self._sync.total(loss.weight(samples))
        train.window_total = max(total, 1)

    def _plan(self, first: int, size: int) -> int | None:
        """Return the samples of a window on all ranks, None if the data does not know them."""
        if self._sync.is_alone:
            assert self._of_data is not None
            batches, epoch = self._of_data
            numbers = [known_samples(batches, epoch, first + i) for i in range(size)]
        else:
            numbers = self._planned[first : first + size] if self._planned else [None]
        return None if None in numbers else sum(n for n in numbers if n is not None)
