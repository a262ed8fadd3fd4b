"""Turns configurations into values of specs and back: the only forms that are resolved and run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from mtf.framework.given_values import as_plain
from mtf.spec.schema.experiment_config import ExperimentConfig
from mtf.spec.schema.specs import Control

if TYPE_CHECKING:
    from mtf.core.vocabulary.experiments import Desired, Experiment

Config = Mapping[str, Any] | ExperimentConfig


class Asked(NamedTuple):
    """An experiment that a program asks for."""

    value: dict[str, Any]  # as a spec has it
    grid: str | None = None  # that it is a member of
    member: str = ""
    parameters: Mapping[str, Any] = {}  # the values that its grid has set


def asked(config: Config) -> Asked:
    """Return a configuration as the value of a spec.

    Raises:
        ConfigurationError: some values have no form in a spec.
    """
    value = as_value(config)
    parameters = value.pop("parameters", {}) if isinstance(config, ExperimentConfig) else {}
    name = value.get("experiment_name")
    if not isinstance(name, str) or "/" not in name:
        return Asked(value)
    grid, _, member = name.partition("/")
    return Asked({**value, "experiment_name": grid}, grid, member, parameters)


def as_value(config: Config) -> dict[str, Any]:
    """Return a configuration as a mapping of JSON values, without what it leaves to defaults.

    Raises:
        ConfigurationError: some values have no form in a spec.
    """
    if not isinstance(config, ExperimentConfig):
        return {"kind": "experiment", **as_plain(config)}
    value = config.model_dump(mode="json", exclude={"slurm"})
    for key, field in Control.model_fields.items():
        if value[key] == field.get_default(call_default_factory=True):
            del value[key]
    if config.slurm is not None:  # what it leaves out, mtf.yaml may say
        value["slurm"] = config.slurm.model_dump(mode="json", exclude_unset=True)
    return {"kind": "experiment", **as_plain({k: v for k, v in value.items() if v is not None})}


def name_of(config: Config) -> str:
    """Return the name of an experiment, empty if the configuration has none."""
    given = config.get("experiment_name") if isinstance(config, Mapping) else config.experiment_name
    return str(given or "")


def as_grid(base: Config, name: str, axes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the value of a grid over a configuration, whose own control keys the grid takes over.

    Args:
        base: that the members vary.
        name: of the grid.
        axes: parameters and further keys of a grid.

    Raises:
        ConfigurationError: some values have no form in a spec.
    """
    value = as_value(base)
    value.pop("parameters", None)
    control = {key: value.pop(key) for key in Control.model_fields if key in value}
    value = {k: v for k, v in value.items() if k not in ("kind", "experiment_name")}
    return {"kind": "grid", "name": name, "base": value, **control, **as_plain(axes)}


def as_config(desired: Desired, experiment: Experiment, *, has_slurm: bool) -> ExperimentConfig:
    """Return a resolved experiment as the object that programs get.

    Args:
        desired: the spec that it comes from.
        experiment: one of its experiments.
        has_slurm: whether the configuration itself has a section ``slurm``.
    """
    given = dict(experiment.config)
    if not has_slurm:
        del given["slurm"]
    name = experiment.name if experiment.grid is None else f"{experiment.grid}/{experiment.name}"
    control = {
        "generation": experiment.generation,
        "rerun_on": list(experiment.rerun_on),
        "cluster": desired.cluster,
        "on_change": desired.on_change,
    }
    return ExperimentConfig.model_validate(
        {**given, **control, "experiment_name": name, "parameters": dict(experiment.parameters)}
    )
