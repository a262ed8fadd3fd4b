"""When the state of a training becomes durable: behind its back, at its end, at a stop."""

from __future__ import annotations

import functools
import signal
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import torch

from mtf import rundir
from mtf.core.vocabulary.times import iso
from mtf.errors import TrainingError
from mtf.trainer.loop.best_epochs import ranked
from mtf.trainer.resume import snapshot
from mtf.trainer.runtime.console import say
from mtf.trainer.runtime.signals import STOP
from mtf.trainer.storage.checkpoint_store import CheckpointStore, GivenUpError, WriteProgress
from mtf.trainer.storage.checkpoint_writer import CheckpointWriter, FailedWrite, WriteRequest, why
from mtf.trainer.storage.staging import StagingBuffer, expected_size, nbytes
from mtf.trainer.storage.stop_budget import Watch, should_finish_write

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from lightning.fabric import Fabric

    from mtf.spec.schema.run_config import ExperimentConfig
    from mtf.trainer.loop.callbacks import Callback
    from mtf.trainer.loop.loop import Loop
    from mtf.trainer.storage.checkpoint_store import Saved
    from mtf.trainer.storage.journal import Journal


class Checkpointer:
    """Saves the states of one training. All ranks call it alike; the first one writes.

    The training is held up for the copy of its state, and where the write before is not done yet.
    Only its last state, and that at a stop, is waited for.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        fabric: Fabric,
        run_dir: Path,
        journal: Journal,
        *,
        callbacks: Mapping[str, Callback],
    ) -> None:
        self._callbacks = callbacks
        self._config, self._fabric = config.checkpoint, fabric
        self._lead_s = config.slurm.signal_lead
        self.store = CheckpointStore(
            run_dir / rundir.CHECKPOINTS, keep_last=config.checkpoint.keep_last
        )
        self._saver = CheckpointWriter(self.store, journal, on_failure=self._on_failure)
        self._copies = StagingBuffer()
        self._watch = Watch(self._lead_s)
        self._newest: Saved | None = None  # the newest durable one; the first rank knows
        self._durable_at: object = None  # its position
        self._taken_at: object = None  # that of the newest state taken, on each rank
        self._ends_by: FailedWrite | None = None  # the failure that ends the training
        self._wait_is_said = False
        self._preparing: threading.Thread | None = None
        self._trial = WriteProgress()

    def begin(self, loop: Loop, resumed_from: Saved | None) -> None:
        """Note where the training starts, and say whether a save fits into a stop's grace."""
        if resumed_from is not None:
            self._newest = resumed_from
            self._taken_at = self._durable_at = loop.state.position()
        if self._fabric.is_global_zero:
            self._watch.begin(_batches_done(loop))
            size = expected_size(loop.engine.module, loop.engine.optimizers.values())
            if size >= _WORTH_PREPARING:
                self._preparing = threading.Thread(target=self._prepare, args=(size,))
                self._preparing.start()

    def save(self, loop: Loop) -> None:
        """Make the state a checkpoint, in the background."""
        loop.save_is_due = False
        loop.saved_at_s = time.monotonic()
        position = loop.state.position()
        if position == self._taken_at:
            return
        self._settle(loop)
        self._say_wait(time.monotonic() - loop.saved_at_s)
        content = self._taken(loop)
        self._taken_at = position
        if content is not None:
            self._saver.start(self._order(loop, self._copies.of(content)))

    def save_last(self, loop: Loop, *, complete: bool) -> None:
        """Make the state durable before anything else; a write under way may be given up for it.

        Args:
            loop: its training does not go on in this process.
            complete: whether it is at its end.

        Raises:
            TrainingError: it is not saved, and was the result, or ``checkpoint.on_error`` is stop.
        """
        loop.save_is_due = False
        self._end_write(loop)
        is_due = self._ends_by is None and loop.state.position() != self._durable_at
        if self._of_first_rank(is_due):
            self._save_now(loop)
        failed = self._ends_by or loop.state.position() != self._durable_at
        if self._of_first_rank(bool(failed)):
            self._fail(complete=complete)

    def close(self) -> None:
        """Let the write under way come to its end; what has failed is said already."""
        self._end_preparing(at_once=True)
        self._saver.settle()

    # -- the two ways to save ----------------------------------------------------------------------

    def _taken(self, loop: Loop) -> dict[str, Any] | None:
        """Return the state, its tensors still those of the training. All ranks take part.

        None: on the other ranks, and where the rows of the scalars that it counts are not
        durable, as is said.
        """
        loop.state.timestamp = iso(datetime.now(UTC))
        try:
            return snapshot.take(loop, self._callbacks)
        except OSError as e:  # on the first rank, after the ranks have exchanged their parts
            self._conclude(loop, self._saver.failed(self._order(loop, {}), e))
            return None

    def _order(self, loop: Loop, content: dict[str, Any]) -> WriteRequest:
        state = loop.state
        return WriteRequest(
            functools.partial(torch.save, content),
            (state.epoch, state.global_step),
            nbytes(content),
            tuple(ranked(state.best, self._config.mode)),
        )

    def _save_now(self, loop: Loop) -> None:
        """Save while the training waits: without a copy."""
        content = self._taken(loop)
        self._taken_at = loop.state.position()
        if content is not None:
            self._conclude(loop, self._saver.now(self._order(loop, content)))

    def _end_write(self, loop: Loop) -> None:
        """Finish the write under way or give it up, whichever is better in the time left."""
        self._end_preparing(at_once=True)
        order = self._saver.order
        if order is None:
            return
        if self._saver.is_busy and loop.state.position() != self._taken_at:
            grace_s = self._lead_s if STOP.signal is signal.SIGUSR1 else None
            whole_s, is_best = self._saver.expected_s(order.size), order.place in order.best
            if not should_finish_write(self._saver.left_s(), whole_s, grace_s, is_best=is_best):
                self._saver.give_up()
        self._settle(loop)

    # -- what has become of it ---------------------------------------------------------------------

    def _settle(self, loop: Loop) -> None:
        """Wait for the write under way and draw the conclusions."""
        self._end_preparing(at_once=False)
        self._conclude(loop, self._saver.settle())

    def _conclude(self, loop: Loop, outcome: Saved | FailedWrite | None) -> None:
        if outcome is None:
            return
        if isinstance(outcome, FailedWrite):
            loop.state.best.pop(outcome.place, None)  # what is not there is not the best
            self._on_failure(outcome)
            return
        self._newest, self._durable_at = outcome, self._taken_at
        self._watch.count(_batches_done(loop))
        self._watch.look(self._saver.expected_s(outcome.bytes), outcome.bytes)
        for callback in self._callbacks.values():
            callback.on_checkpoint(loop, outcome)

    def _on_failure(self, failure: FailedWrite | Exception) -> None:
        """Make the training come to its next cut's end, where a failure ends it."""
        if isinstance(failure, Exception):
            STOP.requested = True  # settled there, it is raised
        elif self._config.on_error == "stop" and not failure.was_given_up:
            self._ends_by = self._ends_by or failure
            STOP.requested = True

    def _fail(self, *, complete: bool) -> None:
        """Say what is lost.

        Raises:
            TrainingError: a retry must be asked for.
        """
        newest = self._newest
        kept = (
            f"the newest checkpoint is {newest.path.name}" if newest else "there is no checkpoint"
        )
        if complete:
            raise TrainingError(
                "the training is complete, but its last state is not durable (see the reason"
                f" above): {kept}; mtf retry {'resumes from there' if newest else 'begins anew'}"
            )
        if self._config.on_error == "stop":
            raise TrainingError(
                f"the state cannot be saved, and checkpoint.on_error is stop: {kept}"
            )
        say(f"stopped without a checkpoint: {kept}; what was trained since is trained again")

    def _say_wait(self, waited_s: float) -> None:
        if waited_s >= _WORTH_A_WORD_S and not self._wait_is_said:
            self._wait_is_said = True
            say(
                f"writing a checkpoint takes longer than the time to the next: the training has"
                f" waited {waited_s:.0f} s for it. Ask for fewer: checkpoint.every_n_steps,"
                " every_n_minutes, every_n_epochs"
            )

    # -- before the first save ---------------------------------------------------------------------

    def _prepare(self, size: int) -> None:
        """Take the memory for copies and measure the disk, beside the first steps."""
        if self._fabric.device.type == "cpu":  # else it is page-locked, with the first copy
            self._copies.reserve(size)
        try:
            trial = min(size, _TRIAL)
            self._saver.learn(trial, self.store.trial_s(trial, self._trial))
        except OSError as e:
            say(f"a checkpoint could not be saved now: {why(e, self.store.folder, size)}")
        except GivenUpError:
            pass
        else:
            self._watch.look(self._saver.expected_s(size), size)

    def _end_preparing(self, *, at_once: bool) -> None:
        if self._preparing is not None:
            self._trial.give_up = at_once
            self._preparing.join()
            self._preparing = None

    def _of_first_rank(self, value: bool) -> bool:  # noqa: FBT001 -- a message, not a switch
        """Return what the first rank has; all ranks wait for one another here."""
        if self._fabric.world_size == 1:
            return value
        return bool(self._fabric.broadcast(value, src=0))


_WORTH_A_WORD_S = 1.0
_WORTH_PREPARING = 16_000_000  # bytes of a state: less is copied and written in no time
_TRIAL = 64_000_000  # bytes: enough for the disk's speed to outweigh its latency


def _batches_done(loop: Loop) -> int:
    return loop.state.epoch * len(loop.train) + loop.state.train.batch
