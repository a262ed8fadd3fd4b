"""The training loop: one handler for each phase, which executes it and names the next.

``HANDLERS`` is the machine that ``GenericTrainer`` runs on. A handler leaves the state whole unless
the next phase is one of ``phases.REPLAYED``.
"""

from __future__ import annotations

import functools
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from mtf.errors import TrainingError
from mtf.trainer.compute.rng import seed_all, seed_at
from mtf.trainer.loop.best_epochs import with_value
from mtf.trainer.loop.phases import Phase
from mtf.trainer.loop.progress import ProgressReport
from mtf.trainer.loop.state import ResumeState, TrainMicroState, ValMicroState, means_of
from mtf.trainer.runtime.console import say
from mtf.trainer.storage.journal import monitored
from mtf.trainer.tracking.tracking import Tracking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from lightning.fabric import Fabric

    from mtf.spec.schema.run_config import ExperimentConfig
    from mtf.trainer.components.lr_schedulers import Length, Schedule
    from mtf.trainer.compute.rank_sync import RankSync
    from mtf.trainer.compute.step import StepEngine
    from mtf.trainer.data.batches import Batches
    from mtf.trainer.loop.objective import Objective, Totals
    from mtf.trainer.storage.journal import Journal
    from mtf.trainer.storage.scalars import Scalars
    from mtf.trainer.tracking.progress_bar import ProgressStatus

# Where several ranks have all come to: there they agree whether to stop or to save.
_MEETING_POINTS = frozenset({Phase.TRAIN_BATCH_LOAD, Phase.SCHEDULER_EPOCH_STEP, Phase.EPOCH_END})


@dataclass
class Loop:
    """What the handlers work on. Only ``state`` and what it counts is part of a checkpoint."""

    config: ExperimentConfig
    fabric: Fabric
    rank_sync: RankSync
    engine: StepEngine
    objective: Objective
    val_objective: Objective  # what validation computes with
    schedules: Mapping[str, Schedule]
    train: Batches
    validation: Batches | None
    length: Length
    journal: Journal
    scalars: Scalars | None  # on the first rank only
    tracking: Tracking = field(default_factory=Tracking)
    state: ResumeState = field(default_factory=ResumeState)
    save_is_due: bool = False
    saved_at_s: float = field(default_factory=time.monotonic)
    batch: Any = None  # the present one, on the device
    loss: torch.Tensor | None = None  # of the present batch, with its graph

    def __post_init__(self) -> None:
        modules = self.engine.module.modules()
        # a part that the user froze in evaluation mode stays in it
        self._in_training = [module for module in modules if module.training]
        self._batches: Iterator[Any] | None = None
        self._totals: Totals = {}
        self._accumulated = self.config.training.gradient_accumulation_steps
        self._num_val_batches = len(self.validation) if self.validation else 0
        self.common_val_batches = self.rank_sync.minimum(self._num_val_batches)
        self._log_every = self.config.logging.log_scalars_every_n_steps
        self._save_every = self.config.checkpoint.every_n_steps
        self._save_minutes = self.config.checkpoint.every_n_minutes
        self._tolerant = self.config.training.on_nonfinite is not None
        self._names = tuple(self.engine.optimizers)
        self._turns = self.objective.takes_turns
        self._is_several = not self.rank_sync.is_alone
        self._losses = {n: functools.partial(self.objective.loss, turn=n) for n in self._names}
        self._observer = self.tracking.observer
        self._progress = ProgressReport(
            self.journal, self.scalars, self.tracking, self.length, self.fabric.world_size
        )
        self.take_up()

    def take_up(self) -> None:
        """Adapt to a state that was put in from outside."""
        offset = self.state.train.offset
        self._epoch_batches = self.train.after_samples(offset) if offset else self.train  # type: ignore[attr-defined]
        self._num_batches = self.rank_sync.require_same(
            len(self._epoch_batches), "the number of batches"
        )

    def end(self, reason: str) -> None:
        """End the training at the end of this epoch, complete; all ranks must say so."""
        if self.state.epoch < self.config.training.max_epochs:  # else it ends anyway
            self.state.ended_by = reason

    def say(self, text: str) -> None:
        """Say something to people, once for all ranks."""
        if self.fabric.is_global_zero:
            say(text)

    def is_exchange_point(self, phase: Phase) -> bool:
        """Return whether all ranks come to this cut, so that they can agree there what to do."""
        if phase is Phase.VAL_BATCH_LOAD:
            return self.state.val.batch < self.common_val_batches
        return phase in _MEETING_POINTS

    def clock_is_due(self) -> bool:
        """Return whether it is time for a checkpoint by the clock; the first rank's counts."""
        minutes = self._save_minutes
        if minutes is None or not self.fabric.is_global_zero:
            return False
        return time.monotonic() - self.saved_at_s >= minutes * 60

    # -- training ----------------------------------------------------------------------------------

    def init(self) -> Phase:
        """Give the training its own random numbers, however many the building has drawn."""
        seed_all(seed_at("train", self.config.training.seed, self.fabric.global_rank))
        for optimizer in self.engine.optimizers.values():
            optimizer.zero_grad()
        return Phase.TRAIN_START_EPOCH

    def train_start_epoch(self) -> Phase:
        """Clear the epoch's cursor and sums."""
        self.state.train = TrainMicroState()
        return Phase.TRAIN_BATCH_LOAD

    def train_batch_load(self) -> Phase:
        """Fetch the batch at the cursor."""
        if self._batches is None:
            self._batches = _open(self._epoch_batches, self.state.epoch, self.state.train.batch)
            for module in self._in_training:
                module.training = True
        self.batch = self.engine.placed(next(self._batches))
        if self._observer is not None and self.state.train.window == 0:
            step = self.state.global_step + 1
            self._progress.seen(
                self.state.epoch, step, self._observer.observe_batch(self.batch, step)
            )
        return Phase.TRAIN_BATCH_FORWARD

    def train_batch_forward(self) -> Phase:
        """Compute the loss."""
        if self._is_several:
            self.engine.hold_back(held=self.state.train.window + 1 < self._window_size())
        if self._tolerant:
            self.engine.note_buffers()
        compute_loss = self._losses[self._active()[0]] if self._turns else self.objective.loss
        self.loss = self.engine.compute(compute_loss, self.batch)
        return Phase.TRAIN_BATCH_BACKWARD

    def train_batch_backward(self) -> Phase:
        """Add the gradients of the window's mean loss, and count the batch as done."""
        loss, train = self.loss, self.state.train
        assert loss is not None
        window = self._window_size()
        self.engine.backward(loss if window == 1 else loss / window)
        # the graph stays until the next one: freeing it now costs 10 µs a step
        value = train.add(loss, tolerant=self._tolerant)
        if value is not None and not math.isfinite(value):
            self._meet_nonfinite(f"the training loss is {value}")
        return Phase.TRAIN_BATCH_OPTIM_STEP if train.window == window else Phase.TRAIN_BATCH_END

    def train_batch_optim_step(self) -> Phase:
        """Commit the window's gradients."""
        state = self.state
        if self._observer is not None:
            step = state.global_step + 1
            self._progress.seen(state.epoch, step, self._observer.observe_gradients(step))
        if not self.engine.commit(self._active()):
            state.skipped += 1
            if self.config.training.on_nonfinite == "stop":
                state.ended_by = f"gradients are not finite at {self._where()}"
                return Phase.TRAINING_COMPLETE
            self.say(f"gradients are not finite at {self._where()}: this step is left out")
        state.global_step += 1
        state.train.window = 0
        return Phase.SCHEDULER_BATCH_STEP

    def scheduler_batch_step(self) -> Phase:
        """Step the schedulers that count optimizer steps, each with its optimizer."""
        if self.schedules:
            for name in self._active(self.state.global_step - 1):
                self.schedules[name].after_step()
        return Phase.TRAIN_BATCH_END

    def train_batch_end(self) -> Phase:
        """Log and ask for a checkpoint where they are due."""
        if self.state.train.window == 0:
            self._after_step()
        if self.state.train.batch < self._num_batches:
            return Phase.TRAIN_BATCH_LOAD
        self._batches = self.batch = self.loss = None
        return Phase.SCHEDULER_EPOCH_STEP

    def scheduler_epoch_step(self) -> Phase:
        """Step the schedulers that count epochs."""
        for schedule in self.schedules.values():
            schedule.after_epoch()
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
            self._batches = _open(self.validation, 0, self.state.val.batch)
            self.engine.module.eval()
        self.batch = self.engine.placed(next(self._batches))
        return Phase.VAL_BATCH_FORWARD

    def val_batch_forward(self) -> Phase:
        """Compute the batch's sums."""
        with torch.no_grad():
            self._totals = self.engine.compute(self.val_objective.totals, self.batch)
        return Phase.VAL_BATCH_END

    def val_batch_end(self) -> Phase:
        """Add them and count the batch as done."""
        self.state.val.add(self._totals)
        self.state.val.batch += 1
        if self.rank_sync.is_alone:
            self.save_is_due |= self.clock_is_due()
        if self.journal.progress_is_due():
            self._say_progress()
        if self.state.val.batch < self._num_val_batches:
            return Phase.VAL_BATCH_LOAD
        self._batches = self.batch = None
        return Phase.EPOCH_END

    # -- the end of an epoch -----------------------------------------------------------------------

    def epoch_end(self) -> Phase:
        """Report what the epoch has come to, and count it as done."""
        state = self.state
        metrics = means_of(
            {"train_loss": state.train.epoch_sum(), **state.val.pairs()}, self.fabric
        )
        if not math.isfinite(metrics["train_loss"]):
            self._meet_nonfinite(f"the epoch's mean training loss is {metrics['train_loss']}")
        for schedule in self.schedules.values():
            schedule.after_metrics(metrics)
        state.metrics = metrics
        state.epoch += 1
        state.train, state.val = TrainMicroState(), ValMicroState()
        if self._num_batches != len(self.train):
            self.take_up()
        self._progress.row({"epoch": state.epoch, "step": state.global_step, **metrics})
        self.journal.metrics(state.epoch, state.global_step, metrics)
        self._say_progress()
        every = self.config.checkpoint.every_n_epochs
        self.save_is_due |= bool(every and state.epoch % every == 0)
        self.save_is_due |= self._is_among_the_best()
        complete = state.epoch >= self.config.training.max_epochs
        return Phase.TRAINING_COMPLETE if complete else Phase.TRAIN_START_EPOCH

    # -- parts of several handlers -----------------------------------------------------------------

    def _active(self, step: int | None = None) -> tuple[str, ...]:
        """Return the names of the optimizers whose turn an optimizer step is; None: the next."""
        if not self._turns:
            return self._names
        step = self.state.global_step if step is None else step
        return (self._names[step % len(self._names)],)

    def _window_size(self) -> int:
        """Return the size of the present accumulation window; the epoch's last may be less.

        Call it before a micro-batch is counted as done.
        """
        if self._accumulated == 1:
            return 1
        train = self.state.train
        return min(self._accumulated, train.window + self._num_batches - train.batch)

    def _meet_nonfinite(self, what: str) -> None:
        """Fail where nothing else is said; else the window's commit decides.

        Raises:
            TrainingError: the configuration says nothing of it.
        """
        if not self._tolerant:
            raise TrainingError(
                f"{what} at {self._where()}. Lower optimizer.lr, look at the data, or say"
                " training.on_nonfinite: skip or stop"
            )

    def _where(self) -> str:
        """Return the place of the newest micro-batch, and the samples in it."""
        state = self.state
        batch = max(state.train.batch - 1, 0)
        place = f"epoch {state.epoch + 1}, step {state.global_step}, batch {batch}"
        samples = getattr(self._epoch_batches, "samples", lambda *_: None)(state.epoch, batch)
        return f"{place} (samples {', '.join(map(str, samples))})" if samples else place

    def _after_step(self) -> None:
        step = self.state.global_step
        if step % self._log_every == 0:
            self._log_step()
        if self._observer is not None:
            self._progress.seen(self.state.epoch, step, self._observer.observe_parameters(step))
        every = self._save_every
        if every is not None and step % every == 0:
            self.save_is_due = True
        if self._save_minutes is not None and not self._is_several and self.clock_is_due():
            self.save_is_due = True
        if self.journal.progress_is_due():
            self._say_progress()

    def _is_among_the_best(self) -> bool:
        """Return whether this end of an epoch is, and note it."""
        state, policy = self.state, self.config.checkpoint
        value = state.metrics.get(monitored(self.config) or "")
        if value is None and policy.monitor is not None and state.epoch == 1:
            there = ", ".join(state.metrics)
            self.say(f"checkpoint.monitor: no metric {policy.monitor!r}; there are {there}")
        if value is None or not policy.keep_best:
            return False
        place = (state.epoch, state.global_step)
        best = self.rank_sync.broadcast(state.best)  # the first rank knows what could not be saved
        state.best = with_value(best, place, value, keep=policy.keep_best, mode=policy.mode)
        return place in state.best

    def _log_step(self) -> None:
        state = self.state
        row: dict[str, Any] = {"epoch": state.epoch, "step": state.global_step}
        row["train_loss"] = self._progress.loss = state.train.close_recent()
        if not math.isfinite(row["train_loss"]):
            self._meet_nonfinite(f"the mean training loss is {row['train_loss']}")
        rates = {n: float(o.param_groups[0]["lr"]) for n, o in self.engine.optimizers.items()}
        row["lr"] = rates[self._names[0]]
        if len(rates) > 1:
            row |= {f"lr/{name}": rate for name, rate in rates.items()}
        self._progress.row(row)

    def _say_progress(self) -> None:
        state = self.state
        batches = state.epoch * self._num_batches + state.train.batch
        # while validating, the batch at hand is none of the training's
        batch = self.batch if state.phase is Phase.TRAIN_BATCH_END else None
        self._progress.progress(state, batches, batch)

    def standing(self) -> ProgressStatus:
        """Return where the training is, as people want to know it; called from any thread."""
        return self._progress.standing(self.state, self._num_val_batches)


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


def _open(batches: Batches, epoch: int, start: int) -> Iterator[Any]:
    return _exactly(len(batches) - start, batches.batches(epoch, start))


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
