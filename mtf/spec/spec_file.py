"""Reads one spec file, and validates it against the schema of its kind."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from mtf.core.vocabulary.spelling import did_you_mean
from mtf.errors import Problem, SpecError
from mtf.spec.compose.composition import KEY as DEFAULTS
from mtf.spec.compose.composition import Composition
from mtf.spec.resolve import Base
from mtf.spec.schema.dotted_keys import SECTIONS, without_aliases
from mtf.spec.schema.error_messages import problems_of, shown
from mtf.spec.schema.specs import ExperimentSpec
from mtf.spec.schema.strict import Open
from mtf.spec.yaml.reader import read

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mtf.spec.compose.config_groups import Groups
    from mtf.spec.yaml.positions import Loc, Positions
    from mtf.spec.yaml.reader import Document

NAME_KEYS = {"experiment": "experiment_name", "grid": "name"}
KINDS = (*NAME_KEYS, "base")
_OPEN_SECTIONS = {
    name: (model, model.model_fields.keys())
    for name, model in SECTIONS.items()
    if issubclass(model, Open)
}
AnyModel = TypeVar("AnyModel", bound=BaseModel)


@dataclass(frozen=True)
class SpecFile:
    """A spec file as read. ``problems``: errors that do not depend on its kind's schema."""

    path: str
    kind: str
    value: dict[str, Any]
    positions: Positions
    problems: tuple[Problem, ...]
    composition: Composition | None = None  # if it has a defaults list


def read_spec(raw: bytes, path: str, groups: Groups) -> SpecFile:
    """Read a spec file; if it has a defaults list, compose it from the groups.

    Raises:
        SpecError: the file is too broken to be validated.
    """
    document = read(raw, path)
    positions, value, problems = document.positions, document.value, list(document.problems)
    if not isinstance(value, dict):
        raise SpecError(problems or [_not_a_mapping(document)])
    value = dict(value)
    kind = value.get("kind")
    if kind not in KINDS:
        problems.append(_wrong_kind(positions, value))
        kind = value["kind"] = "grid" if "base" in value else "experiment"
    if DEFAULTS in value and kind == "grid":
        del value[DEFAULTS]
        message = "defaults: a grid has no defaults list. Move it to the grid's base"
        problems.append(positions.problem_at_key((DEFAULTS,), message))
    file = SpecFile(path, kind, value, positions, tuple(problems))
    return _composed(file, groups) if DEFAULTS in value else file


def _composed(file: SpecFile, groups: Groups) -> SpecFile:
    if file.problems:
        raise SpecError(list(file.problems))
    composition = Composition(file.value, file.positions, (), groups)
    made = composition.composed()
    if file.kind == "experiment":
        composition.require_all()
    return replace(file, value=made.value, positions=made.positions, composition=composition)


def _not_a_mapping(document: Document) -> Problem:
    positions = document.positions
    if document.value is None:
        return positions.problem((1, 1), "the file is empty. Write kind: experiment or kind: grid")
    message = (
        f"expected a mapping of keys, got {shown(document.value)}. Begin with kind: experiment"
    )
    return positions.problem_at((), message)


def _wrong_kind(positions: Positions, value: dict[str, Any]) -> Problem:
    if "kind" not in value:
        message = "kind is missing. Write kind: experiment, kind: grid or kind: base"
        return positions.problem_at((), message)
    kind = value["kind"]
    message = f"kind: expected experiment, grid or base, got {shown(kind)}."
    return positions.problem_at(("kind",), f"{message} {did_you_mean(str(kind), KINDS)}")


def validated(model: type[AnyModel], value: dict[str, Any], file: SpecFile) -> AnyModel:
    """Return the value of a file as its pydantic model.

    Raises:
        SpecError: with every error in the file.
    """
    problems = list(file.problems)
    try:
        spec = model.model_validate(value)
    except ValidationError as e:
        raise SpecError(problems + problems_of(e, model, file.positions)) from None
    if problems:
        raise SpecError(problems)
    return spec


def missing_data(value: Mapping[str, Any], positions: Positions, prefix: Loc = ()) -> list[Problem]:
    """Return the problem of an experiment that the built-in training cannot train, if it is one."""
    if value.get("data") is not None or value.get("entrypoint") is not None:
        return []
    message = "data is missing. Add data.dataset_name, or an entrypoint that needs none"
    return [positions.problem_at(prefix, message)]


def inline_base(value: dict[str, Any], positions: Positions, prefix: Loc, groups: Groups) -> Base:
    """Return the base that a grid contains itself, at ``prefix``.

    Raises:
        SpecError: with every error in it.
    """
    if DEFAULTS not in value:
        return as_base(value, positions, prefix)
    composition = Composition(value, positions, prefix, groups)
    made = composition.composed()
    return as_base(made.value, made.positions, prefix, composition)


def as_base(
    value: dict[str, Any], positions: Positions, prefix: Loc, composition: Composition | None = None
) -> Base:
    """Return sections as a base; keys that are missing may still come from the grid.

    Raises:
        SpecError: with every error in them.
    """
    problems: list[Problem] = []
    try:
        ExperimentSpec.model_validate(value)
    except ValidationError as e:
        problems += problems_of(e, ExperimentSpec, positions, prefix, allow_missing=True)
    for key in ("generation", "on_change"):
        if key in value and value.get("kind") != "experiment":
            message = f"{key}: not allowed in a base, which never runs itself. Move it to the grid"
            problems.append(positions.problem_at_key((*prefix, key), message))
    if problems:
        raise SpecError(problems)
    return Base(without_aliases(value), positions, prefix, composition)
