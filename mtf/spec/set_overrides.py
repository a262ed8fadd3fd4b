"""``mtf retry --set KEY=VALUE``: parses the changes and applies them to a configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from mtf.errors import SpecError, UsageError
from mtf.spec.schema.dotted_keys import SECTIONS, key_problem, path_of, put
from mtf.spec.schema.error_messages import explain
from mtf.spec.yaml.reader import load_yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

CHANGEABLE = ("slurm", "logging", "checkpoint")  # the sections outside a run's identity


def parse_changes(texts: Iterable[str]) -> dict[str, Any]:
    """Return values by dotted keys from texts like ``slurm.mem=16G``.

    Raises:
        UsageError: the key does not exist, or is part of a run's identity.
    """
    return dict(map(_parse, texts))


def _parse(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    path = path_of(key.strip())
    if not equals or len(path) == 1 or "\n" in value:
        raise UsageError(f"--set {text}: expected KEY=VALUE, like slurm.mem=16G")
    if problem := key_problem(path):
        raise UsageError(f"--set {text}: {problem}")
    if path[0] not in CHANGEABLE:
        raise UsageError(
            f"--set {text}: changing {path[0]} makes another run. Commit a spec for it. --set"
            f" changes {', '.join(CHANGEABLE)}"
        )
    try:
        return ".".join(path), load_yaml(f"value: {value}".encode(), "--set")[0]["value"]
    except SpecError as e:
        raise UsageError(f"--set {text}: {e.problems[0].message}") from e


def difference(
    config: Mapping[str, Any], followed: Mapping[str, Any], wanted: Mapping[str, Any]
) -> list[tuple[str, Any, Any]]:
    """Return the keys outside a run's identity with other values than it was made with.

    Args:
        config: that the run was made with.
        followed: the changes of its spec since then, by dotted key.
        wanted: the configuration that its spec asks for now.

    Returns:
        Each key, its old and its new value.
    """
    if not followed and all(config[section] == wanted[section] for section in CHANGEABLE):
        return []
    before = changed(config, {"slurm.requeue": config["slurm"]["requeue"], **followed})
    found = []
    for section in CHANGEABLE:
        # what a run of an older version lacks has its default
        old = SECTIONS[section].model_validate(before[section]).model_dump(mode="json")
        new: Mapping[str, Any] = wanted[section]
        found += [
            (f"{section}.{key}", old.get(key), new[key]) for key in new if old.get(key) != new[key]
        ]
    return found


def changed(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a resolved configuration with the changes applied.

    Raises:
        UsageError: the result is not valid.
    """
    out = dict(config)
    paths = {path_of(key): value for key, value in changes.items()}
    for (section, *inside), value in paths.items():
        try:
            out[section] = put(out[section], tuple(inside), value)
        except ValueError as e:
            raise UsageError(f"--set {section}.{'.'.join(inside)}: {e}") from None
    for section in {path[0] for path in paths}:
        try:
            out[section] = SECTIONS[section].model_validate(out[section]).model_dump(mode="json")
        except ValidationError as e:
            details = e.errors(include_url=False)
            messages = (explain(detail, SECTIONS[section], (section,)) for detail in details)
            raise UsageError("\n".join(f"--set: {message}" for message in messages)) from e
    return out
