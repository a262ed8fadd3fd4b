"""``OwnRun``: the run of a training outside of a job: its folder, its claim, and its journal."""

from __future__ import annotations

import hashlib
import os
import socket
import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mtf import rundir
from mtf.errors import MtfError
from mtf.trainer.compute.structure import shape_of
from mtf.trainer.loop.phases import Phase
from mtf.trainer.runtime.console import say
from mtf.trainer.standalone import own_folder
from mtf.trainer.storage.checkpoint_store import CheckpointStore
from mtf.trainer.storage.journal import Journal, monitored

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from lightning.fabric import Fabric
    from torch import nn
    from torch.optim import Optimizer

    from mtf.spec.schema.run_config import ExperimentConfig
    from mtf.trainer.runtime.start_claim import StartClaim


class OwnRun:
    """A run that no job made. All ranks call its methods alike; the first one writes.

    Args:
        config: of the training.
        fabric: launched.
        given: the run folder that the program names; None: mtf chooses it.
        parts: what the program hands over, in words, see ``parts_in_words``.

    Attributes:
        folder: the run folder, absolute; it exists once the training has begun.
        notes: said when the training begins.
        is_extended: whether this object has trained to an end here, so that more epochs may follow.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        fabric: Fabric,
        given: Path | None,
        parts: Mapping[str, str],
    ) -> None:
        self._fabric, self._is_given = fabric, given is not None
        self._parts = dict(parts)
        self.is_extended = False
        self.notes: list[str] = []
        self._claim: StartClaim | None = None
        self.folder, self._why = self._choose(config) if given is None else (given.absolute(), "")

    def begin(self, config: ExperimentConfig, batches: str) -> ExperimentConfig:
        """Make and claim the folder, and journal the start; return the run's configuration.

        Args:
            config: of the training.
            batches: the number of them in an epoch, in words.

        Raises:
            MtfError: another process trains there.
            OSError: the folder cannot be written.
        """
        self._parts["the number of batches"] = batches
        if not self.is_extended and not self._is_given:  # others may have come first since then
            self.folder, self._why = self._choose(config)
        self._take()
        if not self._fabric.is_global_zero:
            return config
        if self._is_given and own_folder.is_complete(self.folder) and not self.is_extended:
            self._why = f"the training in {self.folder} is complete: name another run_dir to train"
        if self._why and not self.is_extended:
            say(self._why)
        for note in self.notes:
            say(note)
        saved = own_folder.saved_config(self.folder)
        if saved is not None:
            config = config.model_copy(update={"mtf": saved.mtf})
        plain = config.model_dump(mode="json")
        rundir.write_atomically(self.folder / rundir.CONFIG, rundir.render_yaml(plain).encode())
        self._journal_start(config)
        return config

    def end(self, epoch: int, step: int, metrics: Mapping[str, float]) -> None:
        """Journal the end of a complete training."""
        Journal(self.folder, is_first_rank=self._fabric.is_global_zero).finished(
            epoch, step, metrics
        )
        self.is_extended = True

    def fail(self, error: Exception) -> None:
        """Journal the error that ends the training."""
        journal = Journal(self.folder, is_first_rank=self._fabric.is_global_zero)
        text = "".join(traceback.format_exception(error))
        (journal.refused if isinstance(error, MtfError) else journal.failed)(str(error), text)

    def close(self) -> None:
        """Give the folder up, so that another process may train there."""
        if self._claim is not None:
            self._claim.release()
            self._claim = None

    def _take(self) -> None:
        """Claim the folder on the first rank; raise on all if that is refused."""
        problem = ""
        if self._fabric.is_global_zero:
            try:
                self._refuse_another()
                self._claim = own_folder.claim(self.folder, world_size=self._fabric.world_size)
            except MtfError as e:
                problem = str(e)
        if problem := self._fabric.broadcast(problem):
            raise MtfError(problem)

    def _refuse_another(self) -> None:
        """Refuse to continue, in a folder that the program names, what is another training."""
        why = own_folder.other_training(self.folder, self._parts) if self._is_given else None
        if why is not None:
            raise MtfError(
                f"{self.folder} {why}. Restore what has changed, or name another run_dir"
            )

    def _choose(self, config: ExperimentConfig) -> tuple[Path, str]:
        is_first = self._fabric.is_global_zero
        chosen: Any = own_folder.choose(config, self._parts) if is_first else None
        folder, why = self._fabric.broadcast(chosen)
        return folder, why

    def _journal_start(self, config: ExperimentConfig) -> None:
        store = CheckpointStore(
            self.folder / rundir.CHECKPOINTS, keep_last=config.checkpoint.keep_last
        )
        store.sweep()
        newest = store.newest_intact()
        Journal(self.folder).started(
            token=f"local-{datetime.now(UTC):%Y%m%dT%H%M%SZ}",
            job_id=str(os.getpid()),
            restarts=0,
            host=socket.gethostname(),
            world_size=self._fabric.world_size,
            resumed_from=newest.path.relative_to(self.folder).as_posix() if newest else None,
            epoch=newest.epoch if newest else 0,
            step=newest.step if newest else 0,
            max_epochs=config.training.max_epochs,
            monitor=monitored(config),
            mode=config.checkpoint.mode,
            parts=self._parts,
        )


def parts_in_words(model: nn.Module, optimizers: Mapping[str, Optimizer]) -> dict[str, str]:
    """Return a model and its optimizers in words that tell a training from another one."""
    shapes = [f"{name} {shape_of(value)}" for name, value in model.state_dict().items()]
    digest = hashlib.sha256("\n".join(shapes).encode()).hexdigest()[:8]
    words = {"the model": f"a {type(model).__name__} (structure {digest})"}
    for name, optimizer in optimizers.items():
        settings = ", ".join(f"{k}={v}" for k, v in optimizer.defaults.items() if v is not None)
        words[f"the {name}"] = f"{type(optimizer).__name__}({settings})"
    return words


def extend(content: dict[str, Any], config: ExperimentConfig) -> None:
    """Let a complete training, as a checkpoint holds it, go on to more epochs.

    A training that ended by itself before its last epoch stays complete.
    """
    epochs = config.training.max_epochs
    content["config"] = {**content["config"], "training.max_epochs": epochs}
    first = content["ranks"][0]
    if first["epoch"] >= epochs or first["ended_by"] is not None:
        why = first["ended_by"] or f"it has trained for {first['epoch']} epochs"
        say(f"this training is complete ({why}): fit with a greater max_epochs trains on")
        return
    for rank in content["ranks"]:
        if rank["phase"] == Phase.TRAINING_COMPLETE:
            rank["phase"] = str(Phase.TRAIN_START_EPOCH)
