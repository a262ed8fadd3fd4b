"""``TrainingDriver``: runs the loop phase by phase, resumes, saves and stops at cuts."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from signal import Signals
from typing import TYPE_CHECKING, Any

from mtf.trainer.components.other_frameworks import refuse_foreign_data
from mtf.trainer.compute.rank_sync import RankSync
from mtf.trainer.compute.rng import RNGState
from mtf.trainer.data.batches import Stream, batches_from_loader
from mtf.trainer.data.mixing import mixed
from mtf.trainer.data.own_generators import note_on_generators
from mtf.trainer.loop.callbacks import with_callbacks, with_own_metrics
from mtf.trainer.loop.ddp_warm_up import warm_up
from mtf.trainer.loop.error_words import in_words
from mtf.trainer.loop.loop import HANDLERS, Loop
from mtf.trainer.loop.metric_objects import MetricObjects
from mtf.trainer.loop.objective import objective_of
from mtf.trainer.loop.phases import CUTS, NEXT, Phase
from mtf.trainer.loop.step_signatures import note_on_hooks
from mtf.trainer.resume import snapshot
from mtf.trainer.resume.checkpointer import Checkpointer
from mtf.trainer.resume.snapshot import Resumable
from mtf.trainer.resume.warm_start import warm_start
from mtf.trainer.runtime.signals import STOP, Stopped
from mtf.trainer.standalone.own_run import OwnRun, extend
from mtf.trainer.storage.checkpoint_writer import FailedWrite
from mtf.trainer.storage.journal import Journal
from mtf.trainer.storage.scalars import Scalars
from mtf.trainer.tracking.tracking import Tracking, build_tracking, decide_wandb

if TYPE_CHECKING:
    from pathlib import Path

    from lightning.fabric import Fabric
    from torch.utils.data import DataLoader

    from mtf.spec.schema.run_config import ExperimentConfig
    from mtf.trainer.components.lr_schedulers import Schedule
    from mtf.trainer.compute.step import StepEngine
    from mtf.trainer.data.batches import Batches
    from mtf.trainer.loop.callbacks import Callback
    from mtf.trainer.loop.state import ResumeState
    from mtf.trainer.storage.checkpoint_writer import Outcome

    Loader = DataLoader[Any] | Batches


class TrainingDriver:
    """The training of a ``GenericTrainer``, once its parts are there."""

    _config: ExperimentConfig
    _fabric: Fabric
    _run_dir: Path
    _own: OwnRun | None
    _engine: StepEngine
    _schedules: Mapping[str, Schedule]
    _callbacks: dict[str, Callback]
    _wandb_run: Any | None
    _state: ResumeState

    def _fit(self, train_loader: Any, val_loader: Any) -> dict[str, float]:
        self._journal = Journal(self._run_dir, is_first_rank=self._fabric.is_global_zero)
        is_given = self._wandb_run is not None
        self._config = decide_wandb(self._config, self._journal, is_given=is_given)
        loop = self._loop(self._train(train_loader), self._batches(val_loader, "validation"))
        self._state = loop.state
        parts = Resumable(
            loop.config,
            loop.state,
            loop.engine,
            loop.schedules,
            loop.scalars,
            self._callbacks,
            loop.train,
            loop.rank_sync,
            (loop.train_metrics, loop.val_metrics),
        )
        checkpointer = Checkpointer(
            parts, self._run_dir, self._journal, on_outcome=functools.partial(self._saved, loop)
        )
        try:
            self._resume(loop, parts, checkpointer)
            loop.tracking.begin(loop.scalars, loop.standing)
            self._drive(loop, checkpointer)
        except Exception as e:
            for callback in self._callbacks.values():
                callback.on_exception(loop, e)
            known = in_words(e, self._engine.module)
            if self._own is not None:
                self._own.fail(known or e)
            if known is not None:
                raise known from e
            raise
        finally:
            checkpointer.close()
            if loop.scalars is not None:
                loop.scalars.close()
            loop.tracking.close()
        return loop.state.metrics

    def _train(self, loader: Any) -> Batches:
        if not isinstance(loader, Mapping):
            return self._batches(loader, "train")  # type: ignore[no-any-return]
        parts = {name: self._batches(part, f"train/{name}") for name, part in loader.items()}
        return mixed(parts, self._config.training.combine)

    def _batches(self, loader: Any, name: str) -> Any:
        if loader is None:
            return None
        refuse_foreign_data(loader, f"the {name} data")
        fabric = self._fabric
        return batches_from_loader(
            loader,
            seed=self._config.training.seed,
            stream=Stream(name, fabric.global_rank),
            world_size=fabric.world_size,
        )

    def _loop(self, train: Batches, validation: Batches | None) -> Loop:
        zero = self._fabric.is_global_zero
        objective = objective_of(self._engine.module, self._engine.forward)
        loop = Loop(
            config=self._config,
            fabric=self._fabric,
            rank_sync=RankSync(self._fabric),
            engine=self._engine,
            objective=objective,
            val_objective=objective,
            train_metrics=(metrics := MetricObjects(self._engine.module)),
            val_metrics=metrics,
            schedules=self._schedules,
            train=train,
            validation=validation,
            journal=self._journal,
            scalars=Scalars(self._run_dir) if zero else None,
            tracking=self._tracking() if zero else Tracking(),
            with_own_metrics=functools.partial(with_own_metrics, self._callbacks.values()),
        )
        for note in (note_on_hooks(self._engine.module), note_on_generators(self._engine.module)):
            if note is not None:
                loop.say(note)
        try:
            warm_up(loop)
        except RuntimeError as e:
            if (known := in_words(e, self._engine.module)) is not None:
                raise known from e
            raise
        for callback in self._callbacks.values():
            callback.on_start(loop)
            if (module := callback.evaluated()) is not None:
                loop.val_objective = objective_of(module, module)
                loop.val_metrics = MetricObjects(module)
        return loop

    def _tracking(self) -> Tracking:
        return build_tracking(self._config, self._run_dir, self._engine, self._wandb_run)

    def _resume(self, loop: Loop, parts: Resumable, checkpointer: Checkpointer) -> None:
        store, is_first = checkpointer.store, loop.rank_sync.is_first
        newest = loop.rank_sync.broadcast(store.newest_intact() if is_first else None)
        if is_first:
            store.set_damaged_aside()
        if newest is not None:
            content = snapshot.read(newest.path)
            if self._own is not None and self._own.is_extended:
                extend(content, self._config)
            snapshot.resume(parts, content, functools.partial(self._before_load, loop))
            loop.adapt_to_state()
            self._on_resume(loop)
        else:
            self._begin(loop, parts)
        checkpointer.begin(newest)
        if newest is not None:
            state = loop.state
            loop.say(
                f"resumed from {newest.path.name} (sha256 verified): epoch {state.epoch}, step"
                f" {state.global_step}, phase {state.phase}, batch {state.train.batch}"
            )

    def _begin(self, loop: Loop, parts: Resumable) -> None:
        """Start from the beginning, or from the checkpoint that ``init_from`` names."""
        if loop.scalars is not None:
            loop.scalars.cut_to(0)
        if not self._engine.module.training:
            loop.say(
                "the model is in evaluation mode, as from_pretrained returns it, and trains like"
                " that (without dropout): call its train() where it is built to change that"
            )
        new = warm_start(parts, self._journal, functools.partial(self._before_load, loop))
        for callback in new:
            callback.before(Phase.INIT, loop)
            callback.after(Phase.INIT, loop)
        loop.adapt_to_state()
        if loop.state.phase is not Phase.INIT:
            self._on_resume(loop)

    def _before_load(self, loop: Loop, saved: Mapping[str, Any]) -> None:
        for callback in self._callbacks.values():
            callback.before_load(loop, saved)

    def _on_resume(self, loop: Loop) -> None:
        """Tell the callbacks that the whole state is loaded; it stays as it was saved."""
        rng = RNGState.capture()
        for callback in self._callbacks.values():
            callback.on_resume(loop)
        rng.restore()

    def _drive(self, loop: Loop, checkpointer: Checkpointer) -> None:
        """Execute phase after phase; at the cuts, carry out requests to stop or to save."""
        state, is_alone = loop.state, loop.rank_sync.is_alone
        saves, failure = loop.saves, checkpointer.failure
        handlers = with_callbacks(HANDLERS, self._callbacks.values())
        # a step that computes the loss again needs the batch, which no checkpoint holds
        cuts = CUTS - {Phase.TRAIN_BATCH_OPTIM_STEP} if loop.engine.takes_closure else CUTS
        while (phase := state.phase) is not Phase.TRAINING_COMPLETE:
            if is_alone:
                if (STOP.requested or saves.pending or failure.must_end) and phase in cuts:
                    self._act(loop, checkpointer, stop=STOP.number, failed=failure.must_end)
            elif loop.is_exchange_point(phase):
                stop, clock, failed = loop.rank_sync.exchange(
                    STOP.number, saves.clock_is_due(), failure.must_end
                )
                if clock:
                    saves.add("every_n_minutes")
                self._act(loop, checkpointer, stop=stop, failed=bool(failed))
            following = handlers[phase](loop)
            assert following in NEXT[phase], f"{phase} -> {following}"
            state.phase = following
        loop.rank_sync.last_answer()
        checkpointer.save_last(complete=True)
        if state.ended_by is not None:
            loop.say(f"the training ends here: {state.ended_by}")
            self._journal.noted(state.ended_by)

    def _act(self, loop: Loop, checkpointer: Checkpointer, *, stop: int, failed: bool) -> None:
        """Stop or save at a cut.

        Args:
            loop: the training; its pending request, if any, is carried out.
            checkpointer: what saves it.
            stop: number of the signal that asks to stop, 0 for none.
            failed: whether a save has failed after which the training must end.
        """
        request = loop.saves.take()
        if stop:
            checkpointer.save_last(complete=False)
            self._journal.stopped(Signals(stop).name, loop.state.epoch, loop.state.global_step)
            self._fabric.barrier()  # the first rank to end makes srun end the others
            raise Stopped(Signals(stop))
        if failed:
            checkpointer.end_after_failure()
        if request is not None:
            checkpointer.save(request)

    def _saved(self, loop: Loop, outcome: Outcome) -> None:
        """Take note of a checkpoint that is durable or could not be written."""
        if isinstance(outcome, FailedWrite):
            loop.state.best.pop(outcome.place, None)  # it must not be kept as one of the best
            return
        for callback in self._callbacks.values():
            callback.on_checkpoint(loop, outcome)
