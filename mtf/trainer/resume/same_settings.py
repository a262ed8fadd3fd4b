"""Checks that a checkpoint is of the same configuration: the settings that decide the result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mtf.core.vocabulary.experiments import EXECUTION
from mtf.errors import MtfError
from mtf.trainer.resume.compatibility import fit_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from mtf.spec.schema.run_config import ExperimentConfig


def deciding_settings(config: ExperimentConfig) -> dict[str, Any]:
    """Return the settings that decide a training's result, by dotted key."""
    plain = config.model_dump(mode="json", exclude=set(EXECUTION) | {"mtf", "init_from"})
    flat: dict[str, Any] = {}
    for section, value in plain.items():
        flat |= (
            {f"{section}.{key}": item for key, item in value.items()}
            if isinstance(value, dict)
            else {section: value}
        )
    return {key: value for key, value in flat.items() if key not in _HARMLESS}


_HARMLESS = {"data.num_workers", "data.pin_memory"}  # they change how fast batches come, not which


def check_config(config: ExperimentConfig, module: nn.Module, content: Mapping[str, Any]) -> None:
    """Refuse to continue the training of another configuration.

    Raises:
        MtfError: a setting that decides the result differs.
    """
    if found := differing_settings(content["config"], deciding_settings(config)):
        fit = fit_of(module, content["model"])
        shapes = "" if fit.is_whole else f" (and of another model: {fit})"
        raise MtfError(
            f"the checkpoint is of another configuration: {'; '.join(found.values())}{shapes}."
            " Restore the settings, or start a new run"
        )


def differing_settings(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """Return the keys in which two configurations differ, each with a text of both values.

    A key that only one of them has does not differ where it is unset: the versions of mtf that
    wrote them may know different keys, see ``run_key``.
    """
    return {
        key: f"{key} was {_shown(then, key)} and is {_shown(now, key)}"
        for key in sorted(then.keys() | now.keys())
        if then.get(key) != now.get(key) and not (_is_unset(then, key) and _is_unset(now, key))
    }


def _is_unset(config: Mapping[str, Any], key: str) -> bool:
    value = config.get(key)
    return value is None or value is False or value in ([], {})


def _shown(config: Mapping[str, Any], key: str) -> str:
    return repr(config[key]) if key in config else "not set"


def check_fixed(then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse a resume with another of the settings that non-seekable data depends on.

    Raises:
        MtfError: one differs.
    """
    for key in sorted(then.keys() | now.keys()):
        if then.get(key) != now.get(key):
            raise MtfError(
                f"{key} was {then.get(key)} and is {now.get(key)}: the order of non-seekable data"
                f" (such as an IterableDataset) depends on it. Set {key}: {then.get(key)}"
            )
