"""``GenericTrainer``: runs the training loop phase by phase, resumes, saves and stops at cuts."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from signal import Signals
from typing import TYPE_CHECKING, Any

from mtf.errors import MtfError
from mtf.trainer.components.factory import build_data, build_model
from mtf.trainer.components.lr_schedulers import check_schedules, schedules_of
from mtf.trainer.components.optimizers import build_optimizer, optimizers_by_name
from mtf.trainer.components.other_frameworks import refuse_foreign_data, refuse_foreign_model
from mtf.trainer.components.schedules import build_schedules
from mtf.trainer.compute.compilation import in_place
from mtf.trainer.compute.fabric import build_fabric
from mtf.trainer.compute.rank_sync import RankSync
from mtf.trainer.compute.rng import RNGState, seed_all, seed_at
from mtf.trainer.compute.step import StepEngine
from mtf.trainer.data.batches import Stream, batches_from_loader
from mtf.trainer.data.mixing import mixed
from mtf.trainer.data.own_generators import note_on_generators
from mtf.trainer.loop.callbacks import build_callbacks, with_callbacks, with_own_metrics
from mtf.trainer.loop.ddp_warm_up import warm_up
from mtf.trainer.loop.error_words import in_words
from mtf.trainer.loop.loop import HANDLERS, Loop
from mtf.trainer.loop.metric_objects import MetricObjects
from mtf.trainer.loop.objective import objective_of
from mtf.trainer.loop.phases import CUTS, NEXT, Phase
from mtf.trainer.loop.state import ResumeState
from mtf.trainer.loop.step_signatures import note_on_hooks
from mtf.trainer.resume import snapshot
from mtf.trainer.resume.checkpoint_manager import CheckpointManager
from mtf.trainer.resume.checkpointer import Checkpointer
from mtf.trainer.resume.snapshot import Resumable
from mtf.trainer.resume.warm_start import warm_start
from mtf.trainer.runtime import signals
from mtf.trainer.runtime.signals import STOP, Stopped
from mtf.trainer.standalone.given_config import ignored_settings, resolved, type_of
from mtf.trainer.standalone.interrupts import stopping_at_signals
from mtf.trainer.standalone.own_run import OwnRun, extend, parts_in_words
from mtf.trainer.storage.checkpoint_writer import FailedWrite
from mtf.trainer.storage.journal import Journal, monitored
from mtf.trainer.storage.scalars import Scalars
from mtf.trainer.tracking.tracking import Tracking, build_tracking, decide_wandb

if TYPE_CHECKING:
    from lightning.fabric import Fabric
    from torch import nn
    from torch.optim import Optimizer
    from torch.utils.data import DataLoader

    from mtf.spec.schema.experiment_config import ExperimentConfig as Described
    from mtf.spec.schema.run_config import ExperimentConfig
    from mtf.trainer.components.factory import Data
    from mtf.trainer.components.lr_schedulers import Schedulers
    from mtf.trainer.data.batches import Batches
    from mtf.trainer.loop.callbacks import Callback
    from mtf.trainer.storage.checkpoint_writer import Outcome

    Loader = DataLoader[Any] | Batches


class GenericTrainer:
    """Trains a model; an interrupted training ends in the same bits as an uninterrupted one.

    It also trains outside of any job, in a script or a notebook. Its run folder is then
    ``runs/<experiment_name>``, which a second start continues if the training is unfinished and has
    the same settings; a new training gets the next free folder, such as ``runs/<name>-2``.

    Args:
        config: an ``ExperimentConfig``, or a dict like an experiment spec. The section ``model``
            may be left out of a dict.
        fabric: launched.
        model: as constructed, or already set up by Fabric. A model with a method
            ``training_step(batch)`` computes its own loss, see ``mtf.trainer.loop.objective``;
            any other is trained as a classifier.
        optimizer: over the model's parameters; a dict of several by name steps them together, or
            in turns where ``training_step`` takes the ``optimizer``'s name.
        scheduler: a torch scheduler, or a ``Schedule`` that says when it steps; a dict of these by
            the optimizers' names.
        wandb_run: a run to mirror the scalars to, which the trainer leaves open; None: one is
            opened if ``logging`` asks for it.
        run_dir: the run folder; None: that of the job, or the one described above.
        callbacks: by name, besides those of the configuration.

    Raises:
        MtfError: the configuration contains mistakes, or a part cannot be trained.
    """

    def __init__(  # noqa: PLR0917 -- this order is a contract
        self,
        config: ExperimentConfig | Described | Mapping[str, Any],
        fabric: Fabric,
        model: nn.Module,
        optimizer: Optimizer | Mapping[str, Optimizer],
        scheduler: Schedulers = None,
        wandb_run: Any | None = None,
        *,
        run_dir: str | Path | None = None,
        callbacks: Mapping[str, Callback] | None = None,
    ) -> None:
        model = in_place(model)
        refuse_foreign_model(model, "the model")
        self._given = config
        self._config = config = resolved(config, type_of(model), datetime.now(UTC))
        self._fabric = fabric
        self._state = ResumeState()
        self._data: Data | None = None
        monitor = monitored(config) or "train_loss"
        self._callbacks = {**build_callbacks(config, monitor=monitor), **(callbacks or {})}
        self._engine = StepEngine(fabric, model, optimizers_by_name(optimizer), config.training)
        self._own, self._run_dir = self._place(None if run_dir is None else Path(run_dir))
        self._schedules = schedules_of(scheduler, monitor=monitor)
        check_schedules(self._schedules, self._engine.optimizers)
        if self._own is not None:
            optimizers, has_scheduler = self._engine.optimizers, scheduler is not None
            self._own.notes = ignored_settings(config, optimizers, has_scheduler=has_scheduler)
        self._wandb_run = wandb_run

    @classmethod
    def from_config(
        cls,
        config: ExperimentConfig | Described | Mapping[str, Any],
        fabric: Fabric | None = None,
        **options: Any,
    ) -> GenericTrainer:
        """Return the trainer of the model, data, optimizer and scheduler that a config names.

        Its ``fit()`` needs no loaders. The training is the one that a job of this configuration
        does, bit for bit.

        Args:
            config: as for the trainer itself; its sections must name the model and the data.
            fabric: launched; None: it is built as in a job.
            options: further arguments of the trainer.

        Raises:
            MtfError: the configuration contains mistakes, or names something that is not there.
        """
        whole = resolved(config, None, datetime.now(UTC))
        fabric = fabric or build_fabric(whole, os.environ)
        data = build_data(whole, rank=fabric.global_rank, world_size=fabric.world_size)
        seed_all(seed_at("init", whole.training.seed))
        model = build_model(whole.model, data.facts)
        optimizer = build_optimizer(whole.optimizer, model)
        schedule = build_schedules(whole, optimizer, data.train)
        trainer = cls(config, fabric, model, optimizer, schedule, **options)
        trainer._data = data
        return trainer

    @property
    def config(self) -> Any:
        """Return the configuration: the given object, or the resolved one in place of a dict."""
        return self._config if isinstance(self._given, Mapping) else self._given

    @property
    def fabric(self) -> Fabric:
        """Return the Fabric that the training runs on."""
        return self._fabric

    @property
    def model(self) -> nn.Module:
        """Return the trained module, without wrappers."""
        return self._engine.module

    @property
    def state(self) -> ResumeState:
        """Return the place in the training: phase, epoch, step. Read it, do not change it."""
        return self._state

    @property
    def run_dir(self) -> Path:
        """Return the run folder; outside of a job it exists once ``fit`` has begun."""
        return self._run_dir

    @property
    def checkpoint_manager(self) -> CheckpointManager:
        """Return the checkpoints of this training, to read them."""
        return CheckpointManager(self._run_dir)

    def _place(self, run_dir: Path | None) -> tuple[OwnRun | None, Path]:
        """Return the run folder; with it, outside of a job, what a job does for its run."""
        is_of_job = run_dir is not None and self._given is self._config
        if (folder := os.environ.get("MTF_RUN_DIR")) or is_of_job:
            return None, run_dir or Path(folder or "")
        parts = parts_in_words(self._engine.module, self._engine.optimizers)
        own = OwnRun(self._config, self._fabric, run_dir, parts)
        return own, own.folder

    def fit(
        self,
        train_loader: Loader | Mapping[str, Loader] | None = None,
        val_loader: Loader | None = None,
        *,
        max_epochs: int | None = None,
    ) -> dict[str, float]:
        """Train to the end, from the newest intact checkpoint if there is one.

        Outside of a job, Ctrl-C saves the state before it ends the program, and a second call
        trains on if ``max_epochs`` is greater than before.

        Args:
            train_loader: the training's batches; several by name are combined. None: those that
                the configuration names, after ``from_config``.
            val_loader: the validation's batches; None: no validation.
            max_epochs: replaces ``training.max_epochs``; in a job it must be equal to it.

        Returns:
            The metrics of the last epoch.

        Raises:
            Stopped: in a job, a signal asked for it; the state is saved and the journal says so.
            MtfError: data or checkpoint do not fit.
        """
        if train_loader is None:
            if self._data is None:
                raise MtfError("fit needs a train_loader, except after GenericTrainer.from_config")
            train_loader, val_loader = self._data.train, val_loader or self._data.validation
        if max_epochs is not None:
            self._set_epochs(max_epochs)
        if self._own is None:
            signals.install()
            return self._fit(train_loader, val_loader)
        with stopping_at_signals():
            try:
                self._config = self._own.begin(self._config, _batches_in_words(train_loader))
                self._run_dir = self._own.folder
                metrics = self._fit(train_loader, val_loader)
                self._own.end(self._state.epoch, self._state.global_step, metrics)
            finally:
                self._own.close()
        return metrics

    def _set_epochs(self, max_epochs: int) -> None:
        training = self._config.training
        if max_epochs != int(max_epochs) or max_epochs < 1:
            raise MtfError(f"fit: max_epochs: expected an integer of at least 1, got {max_epochs}")
        if self._own is None and max_epochs != training.max_epochs:
            raise MtfError(
                f"fit: max_epochs is {max_epochs}, and the run is recorded with"
                f" training.max_epochs: {training.max_epochs}. Set it in the spec"
            )
        training = training.model_copy(update={"max_epochs": max_epochs})
        self._config = self._config.model_copy(update={"training": training})

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


def _batches_in_words(loader: Any) -> str:
    parts = loader.values() if isinstance(loader, Mapping) else [loader]
    lengths = [str(len(part)) if hasattr(part, "__len__") else "unknown" for part in parts]
    return " and ".join(lengths)
