"""What `mtf retry --set` changes of a run's configuration, checked as a spec is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from mtf.errors import SpecError, UsageError
from mtf.spec.schema.dotted_keys import SECTIONS, key_problem, path_of, put
from mtf.spec.schema.error_messages import explain
from mtf.spec.yaml.reader import load_yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

CHANGEABLE = ("slurm", "logging", "checkpoint")  # the sections that a run's identity leaves out


def parse_changes(texts: Iterable[str]) -> dict[str, Any]:
    """Return dotted keys with their values from texts like ``slurm.mem=16G``.

    Raises:
        UsageError: no run has such a key, or it cannot change without making another run.
    """
    return dict(map(_parse, texts))


def _parse(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    path = path_of(key.strip())
    if not equals or len(path) == 1 or "\n" in value:
        raise UsageError(f"--set {text}: write KEY=VALUE, like slurm.mem=16G")
    if problem := key_problem(path):
        raise UsageError(f"--set {text}: {problem}")
    if path[0] not in CHANGEABLE:
        raise UsageError(
            f"--set {text}: with another {path[0]} it is another run: commit a spec for it. Only"
            f" {', '.join(CHANGEABLE)} may change"
        )
    try:
        return ".".join(path), load_yaml(f"value: {value}".encode(), "--set")[0]["value"]
    except SpecError as e:
        raise UsageError(f"--set {text}: {e.problems[0].message}") from e


def changed(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a resolved configuration with changes in it.

    Raises:
        UsageError: it would not be valid.
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
            told = (explain(detail, SECTIONS[section], (section,)) for detail in details)
            raise UsageError("\n".join(f"--set: {text}" for text in told)) from e
    return out
