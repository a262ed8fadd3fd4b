"""The training loop: one handler for each phase, which executes it and names the next.

``HANDLERS`` is the machine that ``GenericTrainer`` runs on. A handler leaves the state whole unless
the next phase is one of ``phases.REPLAYED``.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from mtf.trainer.best import with_value
from mtf.trainer.journal import monitored
from mtf.trainer.phases import Phase
from mtf.trainer.rng import seed_all, seed_at
from mtf.trainer.state import ResumeState, TrainMicroState, ValMicroState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from lightning.fabric import Fabric

    from mtf.spec.schema import ExperimentConfig
    from mtf.trainer.data import Batches
    from mtf.trainer.engine import Engine
    from mtf.trainer.journal import Journal
    from mtf.trainer.schedulers import Length, Schedule
    from mtf.trainer.task import Task, Totals
    from mtf.trainer.tracking import Mirror, Scalars


@dataclass
class Loop:
    """What the handlers work on. Only ``state`` and what it counts is part of a checkpoint."""

    config: ExperimentConfig
    fabric: Fabric
    engine: Engine
    task: Task
    schedule: Schedule | None
    train: Batches
    validation: Batches | None
    length: Length
    journal: Journal
    scalars: Scalars | None  # on the first rank only
    mirror: Mirror
    state: ResumeState = field(default_factory=ResumeState)
    save_is_due: bool = False
    saved_at_s: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        modules = self.engine.module.modules()
        # a part that the user froze in evaluation mode stays in it
        self._in_training = [module for module in modules if module.training]
        self._batches: Iterator[Any] | None = None
        self._batch: Any = None
        self._loss: torch.Tensor | None = None
        self._totals: Totals = {}
        self._accumulated = self.config.training.gradient_accumulation_steps
        self._num_batches = len(self.train)
        self._num_val_batches = len(self.validation) if self.validation else 0
        self._log_every = self.config.logging.log_scalars_every_n_steps

    # -- training ----------------------------------------------------------------------------------

    def init(self) -> Phase:
        """Give the training its own random numbers, however many the building has drawn."""
        seed_all(seed_at("train", self.config.training.seed, self.fabric.global_rank))
        self.engine.optimizer.zero_grad()
        return Phase.TRAIN_START_EPOCH

    def train_start_epoch(self) -> Phase:
        """Clear the epoch's cursor and sums."""
        self.state.train = TrainMicroState()
        return Phase.TRAIN_BATCH_LOAD

    def train_batch_load(self) -> Phase:
        """Fetch the batch at the cursor."""
        if self._batches is None:
            self._batches = self._open(self.train, self.state.epoch, self.state.train.batch)
            for module in self._in_training:
                module.training = True
        self._batch = self.engine.placed(next(self._batches))
        return Phase.TRAIN_BATCH_FORWARD

    def train_batch_forward(self) -> Phase:
        """Compute the loss."""
        self._loss = self.engine.compute(self.task.loss, self._batch)
        return Phase.TRAIN_BATCH_BACKWARD

    def train_batch_backward(self) -> Phase:
        """Add the gradients of the window's mean loss, and count the batch as done."""
        loss, train = self._loss, self.state.train
        assert loss is not None
        window = self._window_size(train.batch)
        self.engine.backward(loss if window == 1 else loss / window)
        train.add(loss)  # the graph stays until the next one: freeing it now costs 10 µs a step
        return Phase.TRAIN_BATCH_OPTIM_STEP if train.window == window else Phase.TRAIN_BATCH_END

    def train_batch_optim_step(self) -> Phase:
        """Commit the window's gradients."""
        self.engine.commit(self.config.training.max_grad_norm)
        self.state.global_step += 1
        self.state.train.window = 0
        return Phase.SCHEDULER_BATCH_STEP

    def scheduler_batch_step(self) -> Phase:
        """Step a scheduler that counts optimizer steps."""
        if self.schedule is not None:
            self.schedule.after_step()
        return Phase.TRAIN_BATCH_END

    def train_batch_end(self) -> Phase:
        """Log and ask for a checkpoint where they are due."""
        if self.state.train.window == 0:
            self._after_step()
        if self.journal.progress_is_due():
            self._say_progress()
        if self.state.train.batch < self._num_batches:
            return Phase.TRAIN_BATCH_LOAD
        self._batches = self._batch = self._loss = None
        return Phase.SCHEDULER_EPOCH_STEP

    def scheduler_epoch_step(self) -> Phase:
        """Step a scheduler that counts epochs."""
        if self.schedule is not None:
            self.schedule.after_epoch()
        return Phase.EPOCH_END if self.validation is None else Phase.VAL_START_EPOCH

    # -- validation --------------------------------------------------------------------------------

    def val_start_epoch(self) -> Phase:
        """Clear the validation's cursor and sums."""
        self.state.val = ValMicroState()
        return Phase.VAL_BATCH_LOAD

    def val_batch_load(self) -> Phase:
        """Fetch the validation batch at the cursor; all epochs validate on the same ones."""
        if self._batches is None:
            assert self.validation is not None
            self._batches = self._open(self.validation, 0, self.state.val.batch)
            self.engine.module.eval()
        self._batch = self.engine.placed(next(self._batches))
        return Phase.VAL_BATCH_FORWARD

    def val_batch_forward(self) -> Phase:
        """Compute the batch's sums."""
        with torch.no_grad():
            self._totals = self.engine.compute(self.task.totals, self._batch)
        return Phase.VAL_BATCH_END

    def val_batch_end(self) -> Phase:
        """Add them and count the batch as done."""
        self.state.val.add(self._totals)
        self.state.val.batch += 1
        self._check_clock()
        if self.journal.progress_is_due():
            self._say_progress()
        if self.state.val.batch < self._num_val_batches:
            return Phase.VAL_BATCH_LOAD
        self._batches = self._batch = None
        return Phase.EPOCH_END

    # -- the end of an epoch -----------------------------------------------------------------------

    def epoch_end(self) -> Phase:
        """Report what the epoch has come to, and count it as done."""
        state = self.state
        metrics = {"train_loss": state.train.epoch_mean()}
        if self.validation is not None:
            metrics |= _means(self.fabric, state.val)
        if self.schedule is not None:
            self.schedule.after_metrics(metrics)
        state.metrics = metrics
        state.epoch += 1
        state.train, state.val = TrainMicroState(), ValMicroState()
        self._log({"epoch": state.epoch, "step": state.global_step, **metrics})
        self.journal.metrics(state.epoch, state.global_step, metrics)
        self._say_progress()
        every = self.config.checkpoint.every_n_epochs
        self.save_is_due |= bool(every and state.epoch % every == 0)
        self.save_is_due |= self._is_among_the_best()
        complete = state.epoch >= self.config.training.max_epochs
        return Phase.TRAINING_COMPLETE if complete else Phase.TRAIN_START_EPOCH

    # -- parts of several handlers -----------------------------------------------------------------

    def _window_size(self, batch: int) -> int:
        """Return the size of the accumulation window of a batch; the epoch's last may be less."""
        if self._accumulated == 1:
            return 1
        start = batch - batch % self._accumulated
        return min(self._accumulated, self._num_batches - start)

    def _open(self, batches: Batches, epoch: int, start: int) -> Iterator[Any]:
        return _exactly(len(batches) - start, batches.batches(epoch, start))

    def _after_step(self) -> None:
        step = self.state.global_step
        if step % self._log_every == 0:
            self._log_step()
        every = self.config.checkpoint.every_n_steps
        if every is not None and step % every == 0:
            self.save_is_due = True
        self._check_clock()

    def _check_clock(self) -> None:
        minutes = self.config.checkpoint.every_n_minutes
        if minutes is not None and time.monotonic() - self.saved_at_s >= minutes * 60:
            self.save_is_due = True

    def _is_among_the_best(self) -> bool:
        """Return whether this end of an epoch is, and note it."""
        state, policy = self.state, self.config.checkpoint
        value = state.metrics.get(monitored(self.config) or "")
        if value is None or not policy.keep_best:
            return False
        place = (state.epoch, state.global_step)
        state.best = with_value(state.best, place, value, keep=policy.keep_best, mode=policy.mode)
        return place in state.best

    def _log_step(self) -> None:
        state = self.state
        rate = float(self.engine.optimizer.param_groups[0]["lr"])
        row = {"epoch": state.epoch, "step": state.global_step}
        self._log({**row, "train_loss": state.train.close_recent(), "lr": rate})

    def _log(self, row: Mapping[str, Any]) -> None:
        if self.scalars is not None:
            self.scalars.append(row)
            self.mirror.log(row)

    def _say_progress(self) -> None:
        self.journal.progress(self.state.epoch, self.state.global_step, self.length.steps)


P = Phase
HANDLERS: dict[Phase, Callable[[Loop], Phase]] = {
    P.INIT: Loop.init,
    P.TRAIN_START_EPOCH: Loop.train_start_epoch,
    P.TRAIN_BATCH_LOAD: Loop.train_batch_load,
    P.TRAIN_BATCH_FORWARD: Loop.train_batch_forward,
    P.TRAIN_BATCH_BACKWARD: Loop.train_batch_backward,
    P.TRAIN_BATCH_OPTIM_STEP: Loop.train_batch_optim_step,
    P.SCHEDULER_BATCH_STEP: Loop.scheduler_batch_step,
    P.TRAIN_BATCH_END: Loop.train_batch_end,
    P.SCHEDULER_EPOCH_STEP: Loop.scheduler_epoch_step,
    P.VAL_START_EPOCH: Loop.val_start_epoch,
    P.VAL_BATCH_LOAD: Loop.val_batch_load,
    P.VAL_BATCH_FORWARD: Loop.val_batch_forward,
    P.VAL_BATCH_END: Loop.val_batch_end,
    P.EPOCH_END: Loop.epoch_end,
}


def _exactly(count: int, batches: Iterator[Any]) -> Iterator[Any]:
    """Yield ``count`` batches.

    Raises:
        RuntimeError: there are fewer.
    """
    for done in range(count):
        try:
            batch = next(batches)
        except StopIteration:
            raise RuntimeError(
                f"the loader promised {count} batches and gave {done}: its __len__ is wrong"
            ) from None
        yield batch


def _means(fabric: Fabric, val: ValMicroState) -> dict[str, float]:
    """Return the validation metrics over the samples of all ranks."""
    if fabric.world_size == 1:
        return val.means()
    totals = {
        name: torch.stack([total.to(fabric.device), total.new_tensor(val.counts[name])])
        for name, total in val.sums.items()
    }
    summed = {name: fabric.all_reduce(pair, reduce_op="sum") for name, pair in totals.items()}
    return {name: float(pair[0] / pair[1]) for name, pair in summed.items()}
