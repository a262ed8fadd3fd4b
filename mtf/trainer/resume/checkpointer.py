"""Saves a training's state as checkpoints: in the background, at its end and at a stop.

Data goes one way: the trainer hands over the loop's requests, the checkpointer reads the parts of
the training that it was given, and tells the trainer of each write's outcome.
"""

from __future__ import annotations

import functools
import threading
import time
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import torch

from mtf import rundir
from mtf.errors import MtfError, StorageError
from mtf.trainer.loop.best_epochs import ranked
from mtf.trainer.loop.callbacks import overrides_before_load
from mtf.trainer.resume import snapshot
from mtf.trainer.resume.read_back import ReadBack
from mtf.trainer.runtime.console import say
from mtf.trainer.runtime.signals import STOP, WARNINGS
from mtf.trainer.storage.checkpoint_store import CheckpointStore, GivenUpError, WriteProgress
from mtf.trainer.storage.checkpoint_writer import (
    CheckpointWriter,
    FailedWrite,
    WriteRequest,
    describe_disk_error,
)
from mtf.trainer.storage.staging import StagingBuffer, expected_size, nbytes
from mtf.trainer.storage.stop_budget import StopBudget, should_finish_write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from mtf.trainer.loop.save_request import SaveRequest
    from mtf.trainer.storage.checkpoint_store import Saved
    from mtf.trainer.storage.checkpoint_writer import Outcome
    from mtf.trainer.storage.journal import Journal


class FatalFailure:
    """The failed save after which a training must not go on; noted by any thread.

    Attributes:
        must_end: whether there is one; a plain attribute, since the trainer reads it at every
            phase. It is no request to stop: a stop is no failure of the job.
        write: the first write that failed because of the disk.
        error: the error that a write failed with for any other reason.
    """

    def __init__(self, on_error: Literal["continue", "stop"]) -> None:
        self.must_end = False
        self.write: FailedWrite | None = None
        self.error: Exception | None = None
        self._on_error = on_error

    def note(self, failure: FailedWrite | Exception) -> None:
        """Take a failure into account; an exception is raised later, at a cut."""
        if isinstance(failure, Exception):
            self.error = self.error or failure
            self.must_end = True
        elif self._on_error == "stop" and not failure.was_given_up:
            self.write = self.write or failure
            self.must_end = True


class Checkpointer:
    """Saves the states of one training. All ranks call it alike; the first one writes.

    The training waits while its state is copied, and while an earlier write is not done yet. Only
    the last state of a process is waited for until it is durable; after an unclean end, also the
    first one. Otherwise a run that is killed soon after each save would never get on.

    Args:
        parts: the training.
        run_dir: its run folder.
        journal: where checkpoints are recorded.
        on_outcome: called on the first rank, at a cut, with what became of each write.

    Attributes:
        store: the run's checkpoints.
        failure: with ``must_end``, the trainer calls ``end_after_failure`` at the next cut.
    """

    def __init__(
        self,
        parts: snapshot.Resumable,
        run_dir: Path,
        journal: Journal,
        *,
        on_outcome: Callable[[Outcome], None],
    ) -> None:
        self._parts, self._run_dir, self._on_outcome = parts, run_dir, on_outcome
        self._settings = parts.config.checkpoint
        self._lead_s = parts.config.slurm.signal_lead
        self.store = CheckpointStore(
            run_dir / rundir.CHECKPOINTS, keep_last=self._settings.keep_last
        )
        # no method of this object: a cycle would keep the training, and its data loaders'
        # processes, alive until the interpreter exits
        self.failure = FatalFailure(self._settings.on_error)
        self._writer = CheckpointWriter(self.store, journal, on_failure=self.failure.note)
        self._staging = StagingBuffer()
        has_before_load = any(map(overrides_before_load, parts.callbacks.values()))
        self._read_back = ReadBack(parts.engine.built, has_before_load=has_before_load)
        self._budget = StopBudget(self._lead_s)
        self._newest: Saved | None = None  # durable; None on the other ranks
        self._durable_at: object = None  # its position in the training
        self._taken_at: object = None  # position of the newest state taken, on each rank
        self._must_wait = False  # for the first durable state of this process
        self._warned_of_wait = False
        self._preparing: threading.Thread | None = None
        self._disk_trial = WriteProgress()

    def begin(self, resumed_from: Saved | None) -> None:
        """Note where the training starts; measure, in the background, if a stop can still save."""
        if resumed_from is not None:
            self._newest = resumed_from
            self._taken_at = self._durable_at = self._parts.state.position()
        if self._parts.rank_sync.is_first:
            self._must_wait = last_end_was_unclean(rundir.read_journal(self._run_dir))
            self._budget.begin(self._batches_done())
            engine = self._parts.engine
            size = expected_size(engine.module, engine.optimizers.values())
            if size >= _WORTH_PREPARING:
                self._preparing = threading.Thread(target=self._prepare, args=(size,))
                self._preparing.start()

    def save(self, request: SaveRequest) -> None:
        """Make the state a checkpoint, in the background unless it must be waited for."""
        position = self._parts.state.position()
        if position == self._taken_at:
            return
        begun_s = time.monotonic()
        self._settle()
        self._warn_of_wait(time.monotonic() - begun_s, request)
        if self._must_wait:  # on the first rank: the others wait for it at the next step
            self._save_now()
            return
        content = self._taken()
        self._taken_at = position
        if content is not None and self.failure.error is None:
            self._writer.start(self._write_request(self._staging.copy_of(content)))

    def save_last(self, *, complete: bool) -> None:
        """Make the state of a training that ends in this process durable, and wait for it.

        A write under way may be given up for it.

        Args:
            complete: whether the training is at its end.

        Raises:
            StorageError: the state is not durable, and it is the training's result or
                ``checkpoint.on_error`` is stop.
            MtfError: no resume could go on from the state.
        """
        self._end_write()
        self._refuse_unreadable()
        is_due = self.failure.write is None and not self._is_durable()
        if self._parts.rank_sync.broadcast(is_due):
            self._save_now()
            self._refuse_unreadable()
        if not self._parts.rank_sync.broadcast(self.failure.write is None and self._is_durable()):
            self._report_loss(complete=complete)

    def end_after_failure(self) -> NoReturn:
        """End the training since a save has failed; all ranks call it at the same cut.

        Raises:
            StorageError: ``checkpoint.on_error`` is stop.
            MtfError: no resume could go on from the checkpoint.
            Exception: the save did not fail because of the disk.
        """
        self._end_write()
        self._refuse_unreadable()
        self._refuse_to_go_on()

    def close(self) -> None:
        """Wait for the write under way; its failure is reported already."""
        self._end_preparing(at_once=True)
        self._writer.settle()

    # -- the two ways to save ----------------------------------------------------------------------

    def _taken(self) -> snapshot.Content | None:
        """Return the state, its tensors still those of the training. All ranks take part.

        None: on the other ranks, and where the state cannot be saved. That is reported if the rows
        of scalars that belong to it could not be made durable, and raised at the next cut if a
        value cannot be read back: the other ranks have to learn of it first.
        """
        self._parts.state.timestamp = time.time()
        ranks = snapshot.gather(self._parts)
        if ranks is None:
            return None
        try:
            return snapshot.content_of(self._parts, ranks)
        except MtfError as e:
            self.failure.note(e)
        except OSError as e:
            self._conclude(self._writer.report_failure(self._write_request({}), e))
        return None

    def _write_request(self, content: dict[str, Any]) -> WriteRequest:
        state = self._parts.state
        return WriteRequest(
            functools.partial(torch.save, content),
            (state.epoch, state.global_step),
            nbytes(content),
            tuple(ranked(state.best, self._settings.mode)),
            functools.partial(self._read_back.check, content) if content else None,
        )

    def _save_now(self) -> None:
        """Save while the training waits, so without a copy."""
        content = self._taken()
        self._taken_at = self._parts.state.position()
        if content is not None:
            try:
                outcome = self._writer.write_now(self._write_request(content))
            except MtfError as e:
                self.failure.note(e)
            else:
                self._conclude(outcome)

    def _end_write(self) -> None:
        """Finish the write under way or give it up, whichever is better in the time left."""
        self._end_preparing(at_once=True)
        request = self._writer.request
        if request is None:
            return
        if self._writer.is_busy and self._parts.state.position() != self._taken_at:
            grace_s = self._lead_s if STOP.signal in WARNINGS else None
            whole_s, is_best = self._writer.expected_s(request.size), request.place in request.best
            if not should_finish_write(self._writer.left_s(), whole_s, grace_s, is_best=is_best):
                self._writer.give_up()
        self._settle()

    # -- outcomes ----------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Wait for the write under way and act on its outcome."""
        self._end_preparing(at_once=False)
        try:
            outcome = self._writer.settle()
        except MtfError as e:
            self.failure.note(e)
            return
        if outcome is not None:
            self._conclude(outcome)

    def _conclude(self, outcome: Outcome) -> None:
        if isinstance(outcome, FailedWrite):
            self.failure.note(outcome)
        else:
            self._newest, self._durable_at = outcome, self._taken_at
            self._must_wait = False
            self._budget.count(self._batches_done())
            self._budget.check(self._writer.expected_s(outcome.bytes), outcome.bytes)
        self._on_outcome(outcome)

    def _report_loss(self, *, complete: bool) -> None:
        """Report that the last state is not durable.

        Raises:
            StorageError: the run has failed.
        """
        if complete:
            then = "resumes from there" if self._newest else "starts from the beginning"
            raise StorageError(
                "the training is complete, but its last state is not durable (see the reason"
                f" above): {self._newest_in_words()}. Make room on the disk, then run mtf retry,"
                f" which {then}"
            )
        if self._settings.on_error == "stop":
            self._refuse_to_go_on()
        lost = "training since that checkpoint" if self._newest else "all training so far"
        say(f"stopped without saving: {self._newest_in_words()}; {lost} will be repeated")

    def _refuse_unreadable(self) -> None:
        """End the training, on all ranks, if no resume could go on from what was to be saved.

        The first rank to end makes srun end the others: they would give another reason.

        Raises:
            MtfError: a save has failed for that reason.
        """
        error = self.failure.error
        reason = str(error) if isinstance(error, MtfError) else None
        if (reason := self._parts.rank_sync.broadcast(reason)) is not None:
            raise MtfError(reason)

    def _refuse_to_go_on(self) -> NoReturn:
        raise StorageError(
            "could not save the state (see the reason above), and checkpoint.on_error is stop:"
            f" {self._newest_in_words()}. Make room on the disk, then run mtf retry"
        )

    def _newest_in_words(self) -> str:
        newest = self._newest
        return (
            f"the newest checkpoint is {newest.path.name}" if newest else "there is no checkpoint"
        )

    def _is_durable(self) -> bool:
        return self._parts.state.position() == self._durable_at

    def _batches_done(self) -> int:
        state = self._parts.state
        return state.epoch * len(self._parts.train) + state.train.batch

    def _warn_of_wait(self, waited_s: float, request: SaveRequest) -> None:
        if waited_s >= _WORTH_A_WARNING_S and not self._warned_of_wait:
            self._warned_of_wait = True
            say(
                "writing a checkpoint takes longer than the time to the next one: the training"
                f" waited {waited_s:.0f} s for it. Save less often: checkpoint.{request.setting}"
            )

    # -- before the first save ---------------------------------------------------------------------

    def _prepare(self, size: int) -> None:
        """Reserve the memory for copies and measure the disk, beside the first steps."""
        if self._parts.engine.device.type == "cpu":  # else it is page-locked with the first copy
            self._staging.reserve(size)
        try:
            trial = min(size, _TRIAL)
            self._writer.learn(trial, self.store.trial_s(trial, self._disk_trial))
        except OSError as e:
            reason = describe_disk_error(e, self.store.folder, size)
            say(f"checkpoints cannot be written at the moment: {reason}")
        except GivenUpError:
            pass
        else:
            self._budget.check(self._writer.expected_s(size), size)

    def _end_preparing(self, *, at_once: bool) -> None:
        if self._preparing is not None:
            self._disk_trial.give_up = at_once
            self._preparing.join()
            self._preparing = None


def last_end_was_unclean(events: Iterable[Mapping[str, Any]]) -> bool:
    """Return True if the job before this one was killed: its journal has a start but no end."""
    starts = 0
    for event in reversed(tuple(events)):
        if event["event"] == "started":
            starts += 1
        elif starts == 1 and event["event"] in _ENDS:
            return False
        if starts == 2:
            return True
    return False


_ENDS = ("stopped", "failed", "refused", "finished")
_WORTH_A_WARNING_S = 1.0
_WORTH_PREPARING = 16_000_000  # bytes: a smaller state is copied and written in no time
_TRIAL = 64_000_000  # bytes: enough for the disk's speed to outweigh its latency
