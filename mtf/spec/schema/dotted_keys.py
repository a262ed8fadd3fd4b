"""Dotted keys like ``optimizer.lr``: which there are, and setting and reading by them."""

from __future__ import annotations

import posixpath
from functools import lru_cache
from typing import Any

from mtf.core.vocabulary.spelling import nearest
from mtf.spec.schema import sections
from mtf.spec.schema.error_messages import KEY_ALIASES, known_keys
from mtf.spec.schema.slurm_section import SLURMConfig
from mtf.spec.schema.strict import Open, Strict

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
OPTIONAL = {"scheduler", "init_from"}  # sections that may be null
_MAPPINGS = {("slurm", "variables")}  # closed sections' fields that have keys of their own
_CANONICAL = {other: name for name, other in KEY_ALIASES.items()}


def path_of(key: str) -> tuple[str, ...]:
    """Return the parts of a dotted key, ``trainer`` read as ``training``."""
    head, *rest = key.split(".")
    return (_CANONICAL.get(head, head), *rest)


def key_problem(path: tuple[str, ...]) -> str | None:
    """Return why no configuration has this key, None when one may."""
    key = ".".join(path)
    if path[0] in SECTIONS and "" not in path:
        section = SECTIONS[path[0]]
        known = len(path) == 1 or path[1] in section.model_fields
        further = issubclass(section, Open) and not known and not misspelling_of(section, path[1])
        if further or (known and len(path) <= 2) or _is_inside(path):
            return None
    return f"unknown key {key!r}. {_suggestion(path)}".rstrip()


def _is_inside(path: tuple[str, ...]) -> bool:
    """Return whether a path names a key of a closed section's field that has keys of its own."""
    if len(path) != 3 or path[1] not in SECTIONS[path[0]].model_fields:
        return False
    return path[:2] in _MAPPINGS or path[2] in known_keys(SECTIONS[path[0]], path[1:2])


def _suggestion(path: tuple[str, ...]) -> str:
    known = [f"{name}.{field}" for name, model in SECTIONS.items() for field in model.model_fields]
    near = nearest(".".join(path), known, cutoff=0.75)
    same = [key for key in known if key.endswith(f".{path[-1]}")]
    if meant := near or next(iter(same), None):
        return f"Did you mean {meant!r}?"
    return f"A key begins with one of: {', '.join(SECTIONS)}"


@lru_cache(maxsize=4096)
def misspelling_of(section: type[Strict], key: str) -> str | None:
    """Return the known key that a further key of an open section is a misspelling of.

    One letter inside a long word, or two swapped ones: what differs by more, by its end or by a
    digit may well be a key of the model's own.
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
    """Return ``into`` with ``value`` at ``path``; nothing given is changed.

    Raises:
        ValueError: something on the way is no mapping.
    """
    if not path:
        return value
    if into is not None and not isinstance(into, dict):
        raise ValueError(f"the base has {into!r} there, not a mapping")
    inside = (into or {}).get(path[0])
    return {**(into or {}), path[0]: put(inside, path[1:], value)}


def find(value: Any, path: tuple[str, ...]) -> Any:
    """Return what stands at ``path``, None where nothing does."""
    for part in path:
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return value


def init_from_as_mapping(value: Any) -> Any:
    """Return ``init_from`` as a mapping, where a name alone stands for it."""
    return {"run": value} if isinstance(value, str) else value
