"""The training loop: one handler for each phase, which executes it and returns the next phase.

``GenericTrainer`` calls the handlers of ``HANDLERS`` in turn. After each handler the state can be
saved, unless the next phase is in ``phases.REPLAYED``.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from mtf.errors import TrainingError
from mtf.trainer.components.batch_norm import refuse_single_sample
from mtf.trainer.components.optimizers import learning_rates
from mtf.trainer.compute.rng import seed_all, seed_at
from mtf.trainer.data.epoch_reader import EpochReader
from mtf.trainer.loop.accumulation import shared_out
from mtf.trainer.loop.best_epochs import is_among_the_best
from mtf.trainer.loop.metric_values import metrics_of_epoch, values_over_ranks
from mtf.trainer.loop.phases import Phase
from mtf.trainer.loop.progress import ProgressReport, newest_batch
from mtf.trainer.loop.save_request import SaveRequests
from mtf.trainer.loop.state import ResumeState, TrainMicroState, ValMicroState
from mtf.trainer.loop.step_values import LOSS
from mtf.trainer.storage.journal import monitored
from mtf.trainer.tracking.tracking import Tracking

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lightning.fabric import Fabric
    from torch import nn

    from mtf.spec.schema.run_config import ExperimentConfig
    from mtf.trainer.components.lr_schedulers import Schedule
    from mtf.trainer.compute.rank_sync import RankSync
    from mtf.trainer.compute.step import StepEngine
    from mtf.trainer.data.batches import Batches
    from mtf.trainer.loop.metric_objects import MetricObjects
    from mtf.trainer.loop.objective import Objective, Totals
    from mtf.trainer.loop.step_values import Loss
    from mtf.trainer.storage.journal import Journal
    from mtf.trainer.storage.scalars import Scalars
    from mtf.trainer.tracking.progress_bar import ProgressStatus

# Cuts that every rank comes to: here several ranks exchange their requests to stop or to save.
_EXCHANGE_POINTS = frozenset({Phase.TRAIN_BATCH_LOAD, Phase.SCHEDULER_EPOCH_STEP, Phase.EPOCH_END})


@dataclass
class Loop:
    """The parts of a training that the handlers work on, and the handlers.

    Attributes:
        val_objective: what validation computes; differs from ``objective`` where a callback
            replaces the module that is validated. So does ``val_metrics``.
        scalars: None on all ranks but the first.
        with_own_metrics: adds the metrics of callbacks to those of an epoch.
        saves: requests for checkpoints, made by the handlers and taken by the trainer at cuts.
        batch: the present batch, on the device; None if a resume has come after it was used.
        loss: the present batch's mean loss, with its graph unless a resume has come after it.
        samples: number of samples in the present batch, None if unknown.
    """

    config: ExperimentConfig
    fabric: Fabric
    rank_sync: RankSync
    engine: StepEngine
    objective: Objective
    val_objective: Objective
    train_metrics: MetricObjects
    val_metrics: MetricObjects
    schedules: Mapping[str, Schedule]
    train: Batches
    validation: Batches | None
    journal: Journal
    scalars: Scalars | None
    tracking: Tracking = field(default_factory=Tracking)
    with_own_metrics: Callable[[Loop, dict[str, float]], dict[str, float]] = lambda _, m: m
    state: ResumeState = field(default_factory=ResumeState)
    batch: Any = None
    loss: torch.Tensor | None = None
    samples: int | None = None

    def __post_init__(self) -> None:
        self._totals: Totals = {}
        self._computed: Loss | None = None
        limit = self.config.training.limit_val_batches
        self._val_reader = EpochReader(self.validation or [], self.rank_sync, most=limit)
        self._log_every = self.config.logging.log_scalars_every_n_steps
        self._save_every = self.config.checkpoint.every_n_steps
        self.saves = SaveRequests(self.config.checkpoint.every_n_minutes, self.rank_sync)
        self._tolerant = self.config.training.on_nonfinite is not None
        self._names = tuple(self.engine.optimizers)
        self._takes_turns = self.objective.takes_turns
        self._has_several_ranks = not self.rank_sync.is_alone
        self._losses = {n: functools.partial(self.objective.loss, turn=n) for n in self._names}
        self._observer = self.tracking.observer
        self._progress = ProgressReport(
            self.journal, self.scalars, self.tracking, self.fabric.world_size
        )
        self.adapt_to_state()

    def adapt_to_state(self) -> None:
        """Choose the batches by ``state``: those of as many processes as the training began with.

        If that is another number than now, each rank accumulates more of them, or fewer.
        """
        self._epoch_batches, self._accumulation = shared_out(
            self.train, self.state, self.config.training, self.rank_sync
        )
        self._reader = EpochReader(
            self._epoch_batches,
            self.rank_sync,
            ahead=self._accumulation.size,
            is_even=True,
            most=self.config.training.limit_train_batches,
        )
        epoch = min(self.state.epoch, self.config.training.max_epochs - 1)
        self._reader.begin(epoch, self.state.train)
        self._accumulation.open_epoch(self._epoch_batches, epoch, self._reader)
        self._progress.length = self._accumulation.length(
            self.state, self._reader.expected, self.config.training.max_epochs
        )
        self._val_reader.begin(self.state.epoch, self.state.val)
        self.loss = self.state.train.newest_loss if self.loss is None else self.loss

    @property
    def validated(self) -> nn.Module:
        """Return the module that is validated: the trained one, or a callback's in its place."""
        return self.val_metrics.module

    def end(self, reason: str) -> None:
        """Complete the training at the end of this epoch. All ranks must call it."""
        if self.state.epoch < self.config.training.max_epochs:  # the last epoch ends it anyway
            self.state.ended_by = reason

    def say(self, text: str) -> None:
        """Print a line to the job's log, once for all ranks."""
        self.rank_sync.say(text)

    def is_exchange_point(self, phase: Phase) -> bool:
        """Return True if every rank comes to this cut, so that they can exchange requests there."""
        if phase is Phase.VAL_BATCH_LOAD:
            return self.state.val.batch < self._val_reader.common
        return phase in _EXCHANGE_POINTS

    # -- training ----------------------------------------------------------------------------------

    def init(self) -> Phase:
        """Seed the training, so that it does not depend on what building the model has drawn."""
        seed_all(seed_at("train", self.config.training.seed, self.fabric.global_rank))
        self.engine.drop_gradients()
        refuse_single_sample(self.engine.module, self._epoch_batches, self._reader.num_batches)
        return Phase.TRAIN_START_EPOCH

    def train_start_epoch(self) -> Phase:
        """Reset the epoch's cursor and sums."""
        self.state.train = TrainMicroState()
        self.train_metrics.reset()
        self.adapt_to_state()  # epochs may differ in their length
        return Phase.TRAIN_BATCH_LOAD

    def train_batch_load(self) -> Phase:
        """Fetch the batch at the cursor."""
        batch, self.samples = self._reader.read(self.state.epoch, self.state.train)
        self.batch = self.engine.placed(self.objective.inspected(batch))
        if self._observer is not None and self.state.train.window == 0:
            step = self.state.global_step + 1
            self._progress.log_observed(
                self.state.epoch, step, self._observer.observe_batch(self.batch, step)
            )
        return Phase.TRAIN_BATCH_FORWARD

    def train_batch_forward(self) -> Phase:
        """Compute the loss."""
        if self._has_several_ranks:
            size = self._accumulation.window_size(self.state.train)
            self.engine.delay_exchange(delayed=self.state.train.window + 1 < size)
        if self._tolerant:
            self.engine.note_buffers()
        compute_loss = self._losses[self._active()[0]] if self._takes_turns else self.objective.loss
        self._computed = self.engine.compute(compute_loss, self.batch)
        self.loss = self._computed.mean
        return Phase.TRAIN_BATCH_BACKWARD

    def train_batch_backward(self) -> Phase:
        """Add the gradients of the window's mean loss, and count the batch as done."""
        loss, train = self._computed, self.state.train
        assert loss is not None
        size, is_trivial = self._accumulation.window_size(train), self._accumulation.is_trivial
        self.engine.backward(
            loss.mean if is_trivial else self._accumulation.weighed(train, loss, self.samples)
        )
        # ``loss`` keeps its graph until the next one: freeing it here costs 10 µs a step
        value = train.add(loss, self.samples, tolerant=self._tolerant)
        if self.objective.returned:
            train.returned |= self.train_metrics.paths_of(self.objective.returned)
        if value is not None and not math.isfinite(value):
            self._handle_nonfinite(f"the training loss is {value}")
        return Phase.TRAIN_BATCH_OPTIM_STEP if train.window == size else Phase.TRAIN_BATCH_END

    def train_batch_optim_step(self) -> Phase:
        """Take an optimizer step with the window's gradients, unless they are not finite."""
        state = self.state
        if (
            state.train.window_is_measured
            and (divisor := self._accumulation.divisor(state.train)) is not None
        ):
            self.engine.divide_gradients(divisor, self._active())
        if self._observer is not None:
            step = state.global_step + 1
            self._progress.log_observed(state.epoch, step, self._observer.observe_gradients(step))
        if not self.engine.commit(self._active(), self._recomputed):
            state.skipped += 1
            if self.config.training.on_nonfinite == "stop":
                state.ended_by = f"gradients are not finite at {self._newest_batch()}"
                return Phase.TRAINING_COMPLETE
            self.say(f"gradients are not finite at {self._newest_batch()}: this step is skipped")
        state.global_step += 1
        state.train.window = 0
        return Phase.SCHEDULER_BATCH_STEP

    def _recomputed(self) -> torch.Tensor:
        """Return the loss of the present batch, computed again with the present weights."""
        return self.engine.compute(self.objective.loss, self.batch).mean

    def scheduler_batch_step(self) -> Phase:
        """Step the schedulers that count optimizer steps, of the optimizers that just stepped."""
        if self.schedules:
            for name in self._active(self.state.global_step - 1):
                self.schedules[name].after_step()
        return Phase.TRAIN_BATCH_END

    def train_batch_end(self) -> Phase:
        """Log, and request a checkpoint, where they are due."""
        if self.state.train.window == 0:
            self._after_step()
        if self.state.train.batch < self._reader.num_batches:
            return Phase.TRAIN_BATCH_LOAD
        return Phase.SCHEDULER_EPOCH_STEP

    def scheduler_epoch_step(self) -> Phase:
        """Step the schedulers that count epochs, and compute the metrics of training."""
        self.batch = self.loss = self._computed = None
        train = self.state.train
        train.metrics = values_over_ranks(
            self.train_metrics, self.rank_sync, "train_", train.returned
        )
        self.train_metrics.reset()
        for schedule in self.schedules.values():
            schedule.after_epoch()
        return Phase.EPOCH_END if self.validation is None else Phase.VAL_START_EPOCH

    # -- validation --------------------------------------------------------------------------------

    def val_start_epoch(self) -> Phase:
        """Reset the validation's cursor and sums."""
        self.state.val = ValMicroState()
        self.val_metrics.reset()
        self._val_reader.begin(self.state.epoch, self.state.val)
        return Phase.VAL_BATCH_LOAD

    def val_batch_load(self) -> Phase:
        """Fetch the validation batch at the cursor."""
        if not self._val_reader.is_open:
            self.engine.enter_evaluation()
        content, self.samples = self._val_reader.read(self.state.epoch, self.state.val)
        self.batch = self.engine.placed(self.val_objective.inspected(content))
        return Phase.VAL_BATCH_FORWARD

    def val_batch_forward(self) -> Phase:
        """Compute the sums and counts of the batch's metrics."""
        with torch.no_grad():
            totals = functools.partial(self.val_objective.totals, samples=self.samples)
            self._totals = self.engine.compute(totals, self.batch)
        return Phase.VAL_BATCH_END

    def val_batch_end(self) -> Phase:
        """Add the batch's sums and count it as done."""
        self.state.val.add(self._totals)
        self.state.val.returned |= self.val_metrics.paths_of(self.val_objective.returned)
        self.state.val.batch += 1
        self.saves.check_clock()
        if self.journal.progress_is_due():
            self._journal_progress()
        if self.state.val.batch < self._val_reader.num_batches:
            return Phase.VAL_BATCH_LOAD
        self.engine.leave_evaluation()
        return Phase.EPOCH_END

    # -- the end of an epoch -----------------------------------------------------------------------

    def epoch_end(self) -> Phase:
        """Log the epoch's metrics, count the epoch as done, and request its checkpoint."""
        self.batch, state = None, self.state
        metrics = metrics_of_epoch(state, self.val_metrics, self.rank_sync)
        if self.validation is not None:
            metrics = self.with_own_metrics(self, metrics)
            self.val_metrics.reset()
        if not math.isfinite(metrics["train_loss"]):
            self._handle_nonfinite(f"the epoch's mean training loss is {metrics['train_loss']}")
        for schedule in self.schedules.values():
            schedule.after_metrics(metrics)
        state.metrics = metrics
        state.epoch += 1
        state.train, state.val = TrainMicroState(), ValMicroState()
        self._progress.log_row({"epoch": state.epoch, "step": state.global_step, **metrics})
        self.journal.metrics(state.epoch, state.global_step, metrics)
        self._journal_progress()
        policy = self.config.checkpoint
        every = policy.every_n_epochs
        if every and state.epoch % every == 0:
            self.saves.add("every_n_epochs")
        if is_among_the_best(state, policy, monitored(self.config), self.rank_sync):
            self.saves.add("keep_best")
        complete = state.epoch >= self.config.training.max_epochs
        return Phase.TRAINING_COMPLETE if complete else Phase.TRAIN_START_EPOCH

    # -- parts of several handlers -----------------------------------------------------------------

    def _active(self, step: int | None = None) -> tuple[str, ...]:
        """Return the names of the optimizers that take an optimizer step; None: the next one."""
        if not self._takes_turns:
            return self._names
        step = self.state.global_step if step is None else step
        return (self._names[step % len(self._names)],)

    def _handle_nonfinite(self, what: str) -> None:
        """Fail unless ``training.on_nonfinite`` is set; if it is, the optimizer step decides.

        Raises:
            TrainingError: it is not set.
        """
        if not self._tolerant:
            raise TrainingError(
                f"{what} at {self._newest_batch()}. Lower optimizer.lr, check the data, or set"
                " training.on_nonfinite to skip or stop"
            )

    def _newest_batch(self) -> str:
        return newest_batch(self.state, self._epoch_batches)

    def _after_step(self) -> None:
        step = self.state.global_step
        if step % self._log_every == 0:
            self._log_step()
        if self._observer is not None:
            self._progress.log_observed(
                self.state.epoch, step, self._observer.observe_parameters(step)
            )
        every = self._save_every
        if every is not None and step % every == 0:
            self.saves.add("every_n_steps")
        self.saves.check_clock()
        if self.journal.progress_is_due():
            self._journal_progress()

    def _log_step(self) -> None:
        state = self.state
        sums = self.rank_sync.sums(state.train.close_recent())
        loss = self._progress.log_step(state, sums, learning_rates(self.engine.optimizers))
        if sums[LOSS][1] and not math.isfinite(loss):
            self._handle_nonfinite(f"the mean training loss is {loss}")

    def _journal_progress(self) -> None:
        state = self.state
        batches = state.global_step * self._accumulation.size + state.train.window
        # while validating, ``samples`` are not those of a training batch
        samples = self.samples if state.phase is Phase.TRAIN_BATCH_END else None
        self._progress.journal_progress(state, batches, samples)

    def standing(self) -> ProgressStatus:
        """Return the training's progress for a display; may be called from any thread."""
        return self._progress.standing(self.state, self._val_reader.expected)


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
