"""``OwnRun``: the run of a training outside of a job: its folder, its claim, and its journal."""

from __future__ import annotations

import os
import socket
import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mtf import rundir
from mtf.errors import MtfError
from mtf.trainer.loop.phases import Phase
from mtf.trainer.runtime.console import say
from mtf.trainer.standalone import own_folder
from mtf.trainer.storage.checkpoint_store import CheckpointStore
from mtf.trainer.storage.journal import Journal, monitored

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from lightning.fabric import Fabric

    from mtf.spec.schema.run_config import ExperimentConfig
    from mtf.trainer.runtime.start_claim import StartClaim


class OwnRun:
    """A run that no job made. All ranks call its methods alike; the first one writes.

    Args:
        config: of the training.
        fabric: launched.
        given: the run folder that the program names; None: mtf chooses it.

    Attributes:
        folder: the run folder, absolute; it exists once the training has begun.
        is_extended: whether this object has trained to an end here, so that more epochs may follow.
    """

    def __init__(self, config: ExperimentConfig, fabric: Fabric, given: Path | None) -> None:
        self._fabric, self._is_given = fabric, given is not None
        self.is_extended = False
        self._claim: StartClaim | None = None
        self.folder, self._why = self._choose(config) if given is None else (given.absolute(), "")

    def begin(self, config: ExperimentConfig) -> ExperimentConfig:
        """Make and claim the folder, and journal the start; return the run's configuration.

        Raises:
            MtfError: another process trains there, or it is the folder of another training.
            OSError: the folder cannot be written.
        """
        if not self.is_extended and not self._is_given:  # others may have come first since then
            self.folder, self._why = self._choose(config)
        if not self._fabric.is_global_zero:
            return config
        self._claim = own_folder.claim(self.folder, world_size=self._fabric.world_size)
        if self._is_given and own_folder.is_complete(self.folder) and not self.is_extended:
            self._why = f"the training in {self.folder} is complete: name another run_dir to train"
        if self._why and not self.is_extended:
            say(self._why)
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

    def _choose(self, config: ExperimentConfig) -> tuple[Path, str]:
        chosen: Any = own_folder.choose(config) if self._fabric.is_global_zero else None
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
        )


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
