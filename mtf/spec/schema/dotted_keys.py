"""Dotted keys like ``optimizer.lr``: which exist, and reading and setting values by them."""

from __future__ import annotations

import posixpath
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mtf.core.vocabulary.spelling import nearest
from mtf.spec.schema import sections
from mtf.spec.schema.error_messages import KEY_ALIASES, known_keys
from mtf.spec.schema.slurm_section import SLURMConfig
from mtf.spec.schema.strict import Open, Strict

if TYPE_CHECKING:
    from collections.abc import Mapping

SECTIONS: dict[str, type[Strict]] = {
    "model": sections.ModelConfig,
    "data": sections.DataConfig,
    "training": sections.TrainingConfig,
    "optimizer": sections.OptimizerConfig,
    "scheduler": sections.SchedulerConfig,
    "init_from": sections.InitFromConfig,
    "callbacks": sections.CallbacksConfig,
    "checkpoint": sections.CheckpointConfig,
    "logging": sections.LoggingConfig,
    "slurm": SLURMConfig,
}
INIT_FROM = "init_from"
OPTIONAL = {"data", "scheduler", "init_from"}  # sections that may be null
_FREE_MAPPINGS = {("slurm", "variables")}  # fields of closed sections that take any key
_NAME_OF_ALIAS = {alias: name for name, alias in KEY_ALIASES.items()}


def path_of(key: str) -> tuple[str, ...]:
    """Return the parts of a dotted key, ``trainer`` read as ``training``."""
    head, *rest = key.split(".")
    return (_NAME_OF_ALIAS.get(head, head), *rest)


def without_aliases(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return sections by their own names: ``training`` where the file says ``trainer``."""
    return {_NAME_OF_ALIAS.get(key, key): item for key, item in value.items()}


def key_problem(path: tuple[str, ...]) -> str | None:
    """Return the problem of a dotted key, None if a configuration may have it."""
    key = ".".join(path)
    if path[0] in SECTIONS and "" not in path:
        section = SECTIONS[path[0]]
        is_known = len(path) == 1 or path[1] in section.model_fields
        is_further = issubclass(section, Open) and not is_known
        if is_further or (is_known and len(path) <= 2) or _is_nested_key(path):
            return None
    return f"unknown key {key!r}. {_suggestion(path)}".rstrip()


def _is_nested_key(path: tuple[str, ...]) -> bool:
    """Return True for a key within a field of a section: ``slurm.variables.X``."""
    if len(path) != 3 or path[1] not in SECTIONS[path[0]].model_fields:
        return False
    return path[:2] in _FREE_MAPPINGS or path[2] in known_keys(SECTIONS[path[0]], path[1:2])


def _suggestion(path: tuple[str, ...]) -> str:
    known = [f"{name}.{field}" for name, model in SECTIONS.items() for field in model.model_fields]
    near = nearest(".".join(path), known, cutoff=0.75)
    same_field = (key for key in known if key.endswith(f".{path[-1]}"))
    if meant := near or next(same_field, None):
        return f"Did you mean {meant!r}?"
    return f"Keys begin with one of: {', '.join(SECTIONS)}"


@lru_cache(maxsize=4096)
def misspelling_of(section: type[Strict], key: str) -> str | None:
    """Return the known key that a further key of an open section probably misspells.

    Counted as misspelled: one wrong letter inside a long word, or two swapped letters. A key that
    differs by more, at its end or by a digit may well be a key of the user's own model.
    """
    return next((known for known in section.model_fields if _is_misspelling(key, known)), None)


def _is_misspelling(key: str, known: str) -> bool:
    if min(len(key), len(known)) < 4 or key.startswith(known) or known.startswith(key):
        return False
    same = len(posixpath.commonprefix([key, known]))
    key, known = key[same:][::-1], known[same:][::-1]
    same = len(posixpath.commonprefix([key, known]))
    key, known = key[same:], known[same:]
    if any(letter.isdigit() for letter in key + known):
        return False
    return max(len(key), len(known)) <= 1 or (len(key) == 2 and key == known[::-1])


def put(into: Any, path: tuple[str, ...], value: Any) -> Any:
    """Return ``into`` with ``value`` at ``path``; the arguments are not changed.

    Raises:
        ValueError: something on the way is not a mapping.
    """
    if not path:
        return value
    if into is not None and not isinstance(into, dict):
        raise ValueError(f"expected a mapping to set a key in, the base has {into!r}")
    inside = (into or {}).get(path[0])
    return {**(into or {}), path[0]: put(inside, path[1:], value)}


def find(value: Any, path: tuple[str, ...]) -> Any:
    """Return the value at ``path``, None if there is none."""
    for part in path:
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return value


def init_from_as_mapping(value: Any) -> Any:
    """Return ``init_from`` as a mapping, also where the file gives a run's name alone."""
    return {"run": value} if isinstance(value, str) else value
