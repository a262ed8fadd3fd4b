"""The configuration that a program hands to the trainer: a dict or an ``ExperimentConfig``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import ValidationError

from mtf.errors import MtfError
from mtf.spec.schema.error_messages import explain
from mtf.spec.schema.run_config import ExperimentConfig

if TYPE_CHECKING:
    from datetime import datetime

    from torch import nn


class Configuration(Protocol):
    """A configuration of the Python interface, such as ``ExperimentConfig``."""

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        """Return it as JSON values."""


def resolved(given: Any, model_type: str | None, now: datetime) -> ExperimentConfig:
    """Return the whole configuration of a training, with all defaults.

    Args:
        given: a mapping like an experiment spec, or an object whose ``model_dump`` returns one. Of
            a resolved configuration nothing changes.
        model_type: stands for ``model.type`` where the section is left out.
        now: tells this training from others of its name.

    Raises:
        MtfError: it contains mistakes; the message has each with its key.
    """
    if isinstance(given, ExperimentConfig):
        return given
    value = _plain(given)
    name = value.get("experiment_name")
    if not isinstance(name, str) or not name.strip() or "/" in name or name.startswith("."):
        raise MtfError(
            f"experiment_name: expected a name for the training, got {name!r}. It also names the"
            " run folder, runs/<experiment_name>"
        )
    if model_type is not None:
        value.setdefault("model", {"type": model_type})
    value["mtf"] = _identity(name, now)
    try:
        return ExperimentConfig.model_validate(value)
    except ValidationError as e:
        problems = [explain(d, ExperimentConfig) for d in e.errors(include_url=False)]
        raise MtfError("\n".join(problems)) from e


def _plain(given: Any) -> dict[str, Any]:
    dump = getattr(given, "model_dump", None)
    value = dump(mode="json") if callable(dump) else given
    if not isinstance(value, Mapping):
        raise MtfError(
            f"config: expected an ExperimentConfig or a dict, got a {type(given).__name__}"
        )
    # unset sections have defaults; kind and mtf are of specs and of jobs
    left_out = {"kind", "mtf"} | {key for key in ("slurm", "data") if value.get(key) is None}
    return {key: item for key, item in value.items() if key not in left_out}


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
