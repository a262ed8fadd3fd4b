"""The configuration that a program hands to the trainer: a dict or an ``ExperimentConfig``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtf.errors import CONFIGURATION, ConfigurationError, Problem
from mtf.spec.schema.error_messages import kind_of
from mtf.spec.schema.experiment_config import ExperimentConfig as Described
from mtf.spec.schema.run_config import ExperimentConfig

if TYPE_CHECKING:
    from datetime import datetime

    from torch import nn
    from torch.optim import Optimizer


def resolved(
    given: ExperimentConfig | Described | Mapping[str, Any], model_type: str | None, now: datetime
) -> ExperimentConfig:
    """Return the whole configuration of a training, with all defaults.

    Args:
        given: by a program, a mapping like an experiment spec; or resolved already.
        model_type: stands for ``model.type`` where the section is left out.
        now: tells this training from others of its name.

    Raises:
        ConfigurationError: it contains mistakes; the message has each with its key.
    """
    if isinstance(given, ExperimentConfig):
        return given
    described = given if isinstance(given, Described) else _described(given, model_type)
    plain = described.model_dump(mode="json", exclude_unset=True)
    sections = {k: v for k, v in plain.items() if k in ExperimentConfig.model_fields}
    if sections.get("slurm", {}) is None:
        del sections["slurm"]
    return ExperimentConfig.model_validate(
        {**sections, "mtf": _identity(described.experiment_name, now)}
    )


def _described(given: Any, model_type: str | None) -> Described:
    if not isinstance(given, Mapping):
        message = f"expected an ExperimentConfig or a dict, got {kind_of(given)}"
        raise ConfigurationError([Problem(CONFIGURATION, 1, 1, message)])
    value = {key: item for key, item in given.items() if key not in ("kind", "mtf")}
    if model_type is not None:
        value.setdefault("model", {"type": model_type})
    return Described(**value)


def _identity(name: str, now: datetime) -> dict[str, Any]:
    """Return the section ``mtf`` of a training that no commit pins."""
    run, here = f"{name}/{now:%Y%m%dT%H%M%SZ}/local", str(Path.cwd())
    names = {"run": run, "submission": run, "experiment": name, "grid": None}
    return {**names, "key": "", "commit": "", "code_dir": here, "manifest": "", "repository": here}


def type_of(model: nn.Module) -> str:
    """Return the name of a model's class, as ``model.type`` names it."""
    module = getattr(model, "module", model)  # in Fabric's wrapper
    cls = type(module if hasattr(model, "_forward_module") else model)
    return f"{cls.__module__}:{cls.__qualname__}"


def ignored_settings(
    config: ExperimentConfig, optimizers: Mapping[str, Optimizer], *, has_scheduler: bool
) -> list[str]:
    """Return a note for each setting of a program that the parts it hands over do not have."""
    notes = []
    if config.scheduler is not None and not has_scheduler:
        notes.append(
            "config: scheduler is set, and no scheduler was handed over: the learning rate stays as"
            " it is. Hand one over, or use GenericTrainer.from_config"
        )
    for name, optimizer in optimizers.items():
        rate, asked = optimizer.defaults.get("lr"), config.optimizer.lr
        if "lr" in config.optimizer.model_fields_set and rate is not None and rate != asked:
            notes.append(f"config: optimizer.lr is {asked}, and the {name} trains with {rate}")
    return notes
