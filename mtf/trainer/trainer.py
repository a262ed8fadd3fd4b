"""``GenericTrainer``: trains a model, in a job or in a program of one's own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtf.errors import MtfError
from mtf.trainer.components.factory import build_data, build_model
from mtf.trainer.components.lr_schedulers import check_schedules, schedules_of
from mtf.trainer.components.optimizers import build_optimizer, optimizers_by_name
from mtf.trainer.components.other_frameworks import refuse_foreign_model
from mtf.trainer.components.schedules import build_schedules
from mtf.trainer.compute.compilation import in_place
from mtf.trainer.compute.fabric import build_fabric
from mtf.trainer.compute.rng import seed_all, seed_at
from mtf.trainer.compute.step import StepEngine
from mtf.trainer.driver import TrainingDriver
from mtf.trainer.loop.callbacks import build_callbacks
from mtf.trainer.loop.state import ResumeState
from mtf.trainer.resume.checkpoint_manager import CheckpointManager
from mtf.trainer.runtime import signals
from mtf.trainer.standalone.given_config import ignored_settings, resolved, type_of
from mtf.trainer.standalone.interrupts import stopping_at_signals
from mtf.trainer.standalone.own_run import OwnRun, parts_in_words
from mtf.trainer.storage.journal import monitored

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

    Loader = DataLoader[Any] | Batches


class GenericTrainer(TrainingDriver):
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


def _batches_in_words(loader: Any) -> str:
    parts = loader.values() if isinstance(loader, Mapping) else [loader]
    lengths = [str(len(part)) if hasattr(part, "__len__") else "unknown" for part in parts]
    return " and ".join(lengths)
