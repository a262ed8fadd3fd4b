"""``GenericTrainer``: drives the loop from phase to phase, stops and saves at its cuts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mtf.errors import MtfError
from mtf.trainer import preemption, snapshot
from mtf.trainer.data import Stream, of_loader
from mtf.trainer.engine import Engine
from mtf.trainer.journal import Journal, monitored
from mtf.trainer.loop import HANDLERS, Loop
from mtf.trainer.phases import CUTS, NEXT, Phase
from mtf.trainer.preemption import STOP, Stopped
from mtf.trainer.saving import Saving
from mtf.trainer.say import say
from mtf.trainer.schedulers import Length, Schedule, schedule_of
from mtf.trainer.task import task_of
from mtf.trainer.tracking import Mirror, Scalars, open_wandb

if TYPE_CHECKING:
    from lightning.fabric import Fabric
    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler
    from torch.utils.data import DataLoader

    from mtf.spec.schema import ExperimentConfig
    from mtf.trainer.data import Batches

# Where several ranks have all come to: there they agree whether to stop or to save.
_MEETING_POINTS = frozenset({Phase.TRAIN_BATCH_LOAD, Phase.SCHEDULER_EPOCH_STEP, Phase.EPOCH_END})


class GenericTrainer:
    """Trains a model so that any interruption leaves no trace in the result.

    Args:
        config: the resolved configuration.
        fabric: launched.
        model: as constructed, or set up by Fabric already. With a method ``training_step(batch)``
            it computes its own loss, see ``mtf.trainer.task``; else it is a classifier.
        optimizer: over the model's parameters.
        scheduler: a torch scheduler, or a ``Schedule`` that says when it steps.
        wandb_run: a run to mirror the scalars to; None: one is opened where ``logging`` asks.
        run_dir: the run folder; None: what the job's environment names.
    """

    def __init__(  # noqa: PLR0917 -- this order is a contract
        self,
        config: ExperimentConfig,
        fabric: Fabric,
        model: nn.Module,
        optimizer: Optimizer,
        scheduler: LRScheduler | Schedule | None = None,
        wandb_run: Any | None = None,
        *,
        run_dir: Path | None = None,
    ) -> None:
        self._config = config
        self._fabric = fabric
        self._run_dir = run_dir or _run_dir_of_job()
        self._engine = Engine(fabric, model, optimizer)
        if scheduler is not None and not isinstance(scheduler, Schedule):
            scheduler = schedule_of(scheduler, monitor=monitored(config) or "train_loss")
        self._schedule = scheduler
        self._wandb_run = wandb_run
        self._journal = Journal(self._run_dir, speaks=fabric.is_global_zero)
        self._saving = Saving(config, fabric, self._run_dir, self._journal)

    def fit(
        self,
        train_loader: DataLoader[Any] | Batches,
        val_loader: DataLoader[Any] | Batches | None = None,
    ) -> dict[str, float]:
        """Train to the end, from the newest intact checkpoint if there is one.

        Returns:
            The metrics of the last epoch.

        Raises:
            Stopped: a signal asked for it; the state is saved and the journal says so.
            MtfError: data or checkpoint do not fit.
        """
        preemption.install()
        loop = self._loop(self._exact(train_loader, "train"), self._exact(val_loader, "validation"))
        try:
            self._resume(loop)
            self._drive(loop)
        finally:
            self._saving.close()
            if loop.scalars is not None:
                loop.scalars.close()
            loop.mirror.finish()
        return loop.state.metrics

    def _exact(self, loader: DataLoader[Any] | Batches | None, name: str) -> Any:
        if loader is None:
            return None
        fabric = self._fabric
        return of_loader(
            loader, seed=self._config.training.seed, stream=Stream(name, fabric.global_rank),
            world_size=fabric.world_size,
        )  # fmt: skip

    def _loop(self, train: Batches, validation: Batches | None) -> Loop:
        training, zero = self._config.training, self._fabric.is_global_zero
        run = self._wandb_run
        if zero and run is None:
            run = open_wandb(self._config, self._run_dir)
        return Loop(
            config=self._config,
            fabric=self._fabric,
            engine=self._engine,
            task=task_of(self._engine.module, self._engine.forward),
            schedule=self._schedule,
            train=train,
            validation=validation,
            length=length_of(train, training.gradient_accumulation_steps, training.max_epochs),
            journal=self._journal,
            scalars=Scalars(self._run_dir) if zero else None,
            mirror=Mirror(run if zero else None),
        )

    def _resume(self, loop: Loop) -> None:
        newest = self._saving.store.newest_intact()
        if newest is None:
            if loop.scalars is not None:
                loop.scalars.cut_to(0)
            self._saving.begin(loop, None)
            return
        snapshot.put(loop, snapshot.read(newest.path))
        self._saving.begin(loop, newest)
        state = loop.state
        say(
            f"resumed from {newest.path.name} (sha256 verified): epoch {state.epoch}, step"
            f" {state.global_step}, phase {state.phase}, batch {state.train.batch}"
        )

    def _drive(self, loop: Loop) -> None:
        """Execute phase after phase; act on wishes to stop and to save at the cuts."""
        state, alone = loop.state, self._fabric.world_size == 1
        while (phase := state.phase) is not Phase.TRAINING_COMPLETE:
            if alone:
                if (STOP.requested or loop.save_is_due) and phase in CUTS:
                    self._attend(loop, stop=STOP.requested, save=loop.save_is_due)
            elif phase in _MEETING_POINTS:
                stop, save = self._agreed(STOP.requested, loop.save_is_due)
                self._attend(loop, stop=stop, save=save)
            following = HANDLERS[phase](loop)
            assert following in NEXT[phase], f"{phase} -> {following}"
            state.phase = following
        self._saving.save_last(loop, complete=True)

    def _attend(self, loop: Loop, *, stop: bool, save: bool) -> None:
        if save and not stop:
            self._saving.save(loop)
        if stop:
            self._saving.save_last(loop, complete=False)
            by = STOP.signal or preemption.SIGNALS[0]  # another rank has heard it
            self._journal.stopped(by.name, loop.state.epoch, loop.state.global_step)
            self._fabric.barrier()  # the first rank to end makes srun end the others
            raise Stopped(by)

    def _agreed(self, *wishes: bool) -> list[bool]:
        """Return what any rank wishes."""
        mine = torch.tensor([float(wish) for wish in wishes], device=self._fabric.device)
        return [bool(wish) for wish in self._fabric.all_reduce(mine, reduce_op="sum")]


def length_of(train: Batches, accumulated: int, max_epochs: int) -> Length:
    """Return how long a training is; an epoch's last accumulation window may be smaller."""
    return Length(max_epochs * -(-len(train) // accumulated), max_epochs)


def _run_dir_of_job() -> Path:
    said = os.environ.get("MTF_RUN_DIR")
    if not said:
        raise MtfError("GenericTrainer outside of a job needs run_dir=, the folder of its run")
    return Path(said)
