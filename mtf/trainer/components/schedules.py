"""Builds the learning-rate schedules that a configuration names, for a training of its length."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mtf.trainer.components.lr_schedulers import LengthToCount, build_schedule
from mtf.trainer.components.optimizers import OPTIMIZER, optimizers_by_name
from mtf.trainer.data.epochs import num_steps_in
from mtf.trainer.storage.journal import metric_modes, monitored

if TYPE_CHECKING:
    from mtf.spec.schema.run_config import ExperimentConfig
    from mtf.trainer.components.lr_schedulers import Schedulers
    from mtf.trainer.components.optimizers import Optimizers
    from mtf.trainer.data.batches import Batches


def build_schedules(config: ExperimentConfig, optimizer: Optimizers, train: Batches) -> Schedulers:
    """Return the learning-rate schedule of each optimizer, None if none is configured.

    Args:
        config: the configuration.
        optimizer: one, or several by name.
        train: the training's batches, whose number decides the length of a schedule.
    """
    training = config.training
    if config.scheduler is None:
        return None
    accumulated, epochs = training.gradient_accumulation_steps, training.max_epochs
    count = functools.partial(num_steps_in, train, accumulated, epochs)
    length = LengthToCount(count, epochs)
    monitor, modes = monitored(config) or "train_loss", metric_modes(config)
    built = {
        name: build_schedule(config.scheduler, named, length, monitor=monitor, modes=modes)
        for name, named in optimizers_by_name(optimizer).items()
    }
    return built if isinstance(optimizer, Mapping) else built[OPTIMIZER]
