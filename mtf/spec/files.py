"""One spec file: its kind, its value, and its check against the schema of that kind."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from mtf.errors import Problem, SpecError
from mtf.spec.compose.compose import KEY as DEFAULTS
from mtf.spec.compose.compose import Composition
from mtf.spec.resolve import Base, spelled
from mtf.spec.schema.explain import nearest, problems_of, shown
from mtf.spec.schema.keys import SECTIONS, slip
from mtf.spec.schema.schema import ExperimentSpec
from mtf.spec.schema.strict import Open
from mtf.spec.yaml.parse import read

if TYPE_CHECKING:
    from mtf.spec.compose.groups import Groups
    from mtf.spec.yaml.marks import Loc, Marks
    from mtf.spec.yaml.parse import Document

NAME_KEYS = {"experiment": "experiment_name", "grid": "name"}
KINDS = (*NAME_KEYS, "base")
AnyModel = TypeVar("AnyModel", bound=BaseModel)


@dataclass(frozen=True)
class SpecFile:
    """A file that says what it is. ``problems``: what is wrong whatever its kind."""

    path: str
    kind: str
    value: dict[str, Any]
    marks: Marks
    problems: tuple[Problem, ...]
    composition: Composition | None = None  # where it has a defaults list


def read_spec(raw: bytes, path: str, groups: Groups) -> SpecFile:
    """Read a spec file; one with a defaults list is composed from the groups.

    Raises:
        SpecError: nothing in it can be checked.
    """
    document = read(raw, path)
    marks, value, problems = document.marks, document.value, list(document.problems)
    if not isinstance(value, dict):
        raise SpecError(problems or [_no_mapping(document)])
    value = dict(value)
    kind = value.get("kind")
    if kind not in KINDS:
        problems.append(_wrong_kind(marks, value))
        kind = value["kind"] = "grid" if "base" in value else "experiment"
    if DEFAULTS in value and kind == "grid":
        del value[DEFAULTS]
        message = "defaults belongs to what the grid builds on: put it into its base"
        problems.append(marks.problem(marks.key((DEFAULTS,)), message))
    file = SpecFile(path, kind, value, marks, tuple(problems))
    return _composed(file, groups) if DEFAULTS in value else file


def _composed(file: SpecFile, groups: Groups) -> SpecFile:
    if file.problems:
        raise SpecError(list(file.problems))
    composition = Composition(file.value, file.marks, (), groups)
    made = composition.composed()
    return replace(file, value=made.value, marks=made.marks, composition=composition)


def _no_mapping(document: Document) -> Problem:
    marks = document.marks
    if document.value is None:
        return marks.problem((1, 1), "the file is empty. Write kind: experiment or kind: grid")
    message = f"a spec is a mapping of keys, this is {shown(document.value)}"
    return marks.problem(marks.value(()), message)


def _wrong_kind(marks: Marks, value: dict[str, Any]) -> Problem:
    if "kind" not in value:
        return marks.problem(
            marks.value(()), "kind is missing: write kind: experiment, grid or base"
        )
    kind = value["kind"]
    message = f"kind: must be experiment, grid or base, got {shown(kind)}."
    return marks.problem(marks.value(("kind",)), f"{message} {nearest(str(kind), KINDS)}")


def validated(model: type[AnyModel], value: dict[str, Any], file: SpecFile) -> AnyModel:
    """Return the value of a file as its model.

    Raises:
        SpecError: every mistake in the file.
    """
    problems = [*file.problems, *slips(value, file.marks)]
    try:
        spec = model.model_validate(value)
    except ValidationError as e:
        raise SpecError(problems + problems_of(e, model, file.marks)) from None
    if problems:
        raise SpecError(problems)
    return spec


def slips(value: dict[str, Any], marks: Marks, prefix: Loc = ()) -> list[Problem]:
    """Return the misspelled keys of the open sections, which the schema lets through."""
    problems = []
    for name, model in SECTIONS.items():
        section = value.get(name)
        if not (issubclass(model, Open) and isinstance(section, dict)):
            continue
        for key in section.keys() - model.model_fields.keys():
            meant = slip(model, key)
            if meant and meant not in section:
                message = f"unknown key {key!r} in {name}. Did you mean {meant!r}?"
                problems.append(marks.problem(marks.key((*prefix, name, key)), message))
    return problems


def inline_base(value: dict[str, Any], marks: Marks, prefix: Loc, groups: Groups) -> Base:
    """Return the sections that a grid builds on and that stand in the grid itself.

    Raises:
        SpecError: what is there is wrong.
    """
    if DEFAULTS not in value:
        return as_base(value, marks, prefix)
    composition = Composition(value, marks, prefix, groups)
    made = composition.composed()
    return as_base(made.value, made.marks, prefix, composition)


def as_base(
    value: dict[str, Any], marks: Marks, prefix: Loc, composition: Composition | None = None
) -> Base:
    """Return sections that grids build on; what is missing may still come from the grid.

    Raises:
        SpecError: what is there is wrong.
    """
    problems = slips(value, marks, prefix)
    try:
        ExperimentSpec.model_validate(value)
    except ValidationError as e:
        problems += problems_of(e, ExperimentSpec, marks, prefix, missing_is_fine=True)
    for key in ("generation", "on_change"):
        if key in value and value.get("kind") != "experiment":
            place = marks.key((*prefix, key))
            problems.append(marks.problem(place, f"a base does not run: {key} belongs to the grid"))
    if problems:
        raise SpecError(problems)
    return Base(spelled(value), marks, prefix, composition)
