"""Resolves the members of a grid: its values on top of the base, each section validated once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from pydantic import ValidationError

from mtf.core.vocabulary import json_text
from mtf.core.vocabulary.experiments import Experiment
from mtf.errors import SpecError
from mtf.spec.schema.dotted_keys import (
    INIT_FROM,
    OPTIONAL,
    SECTIONS,
    init_from_as_mapping,
    put,
    without_aliases,
)
from mtf.spec.schema.error_messages import explain, written_loc
from mtf.spec.schema.settings import merged_slurm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

    from mtf.core.vocabulary.jobs import Resources
    from mtf.errors import Problem
    from mtf.spec.compose.composition import Composition
    from mtf.spec.schema.strict import Strict
    from mtf.spec.yaml.positions import Loc, Positions


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """A key of a grid with one of its values. Compared by identity: each has its own position."""

    key: str
    path: tuple[str, ...]
    value: Any
    loc: Loc  # of the value in the grid's file


Combination = tuple[Setting, ...]


@dataclass(frozen=True, eq=False)
class Base:
    """The sections that a grid builds on, as they are written in their file."""

    value: Mapping[str, Any]  # without aliases: ``training``, never ``trainer``
    positions: Positions
    prefix: Loc
    composition: Composition | None = None  # if it has a defaults list

    def for_member(self, member: Combination) -> tuple[Base, Combination]:
        """Return the base composed for a member's choices, and the settings to apply on top.

        Raises:
            SpecError: the choices cannot be composed.
        """
        if self.composition is None:
            return self, member
        chosen = {s for s in member if self.composition.chooses_option(s.path, s.value)}
        choices = tuple((s.path[0], s.value) for s in member if s in chosen)
        settings = tuple(s for s in member if s not in chosen)
        made = self.composition.composed(choices, [(s.path, s.value) for s in settings])
        return Base(without_aliases(made.value), made.positions, self.prefix), settings


class Resolver:
    """Resolves the members of one grid, section by section, and collects their problems."""

    def __init__(self, base: Base, slurm_defaults: dict[str, Any], positions: Positions) -> None:
        self.base = base
        self.positions = positions  # of the grid's file
        self._slurm_defaults = slurm_defaults
        self._resolved: dict[tuple[object, ...], dict[str, Any] | None] = {}
        self._bases: dict[Combination, tuple[Base, Combination]] = {}
        self.problems: set[Problem] = set()

    def sections(self, member: Combination) -> dict[str, dict[str, Any] | None]:
        """Return a member's sections as JSON values; errors are added to ``problems``."""
        try:
            base, settings = self._base_of(member)
        except SpecError as e:
            self.problems.update(e.problems)
            return {}
        by_section: dict[str, list[Setting]] = {}
        for setting in settings:
            by_section.setdefault(setting.path[0], []).append(setting)
        return {
            name: self._section(base, name, tuple(by_section.get(name, ()))) for name in SECTIONS
        }

    def section(self, name: str, member: Combination) -> dict[str, Any] | None:
        """Return one section of a member, None if it has none or an error."""
        if self.base.composition is None:
            return self._section(self.base, name, tuple(s for s in member if s.path[0] == name))
        return self.sections(member).get(name)

    def _base_of(self, member: Combination) -> tuple[Base, Combination]:
        if self.base.composition is None:
            return self.base, member
        if member not in self._bases:
            self._bases[member] = self.base.for_member(member)
        return self._bases[member]

    def _section(self, base: Base, name: str, settings: Combination) -> dict[str, Any] | None:
        # each member has its own composed base, so that the section's content is part of the key
        made_of = () if base is self.base else (json_text.dumps(base.value.get(name)),)
        key = (name, settings, *made_of)
        if key not in self._resolved:
            self._resolved[key] = self._new_section(base, name, settings)
        return self._resolved[key]

    def check_value(self, setting: Setting) -> None:
        """Add the errors of one value to ``problems``, whatever else its members set.

        Used for grids that cannot be expanded, so that all errors are reported at once.
        """
        name, base = setting.path[0], self.base
        try:
            base, settings = self._base_of((setting,))
            self._validated(base, name, settings)
        except ValidationError as e:
            for detail in e.errors(include_url=False):
                if _shares_path(setting.path, (name, *detail["loc"])):
                    self.problems.add(self._problem(base, name, (setting,), detail))
        except SpecError as e:
            self.problems.update(e.problems)

    def _new_section(self, base: Base, name: str, settings: Combination) -> dict[str, Any] | None:
        try:
            section = self._validated(base, name, settings)
        except ValidationError as e:
            details = e.errors(include_url=False)
            self.problems.update(self._problem(base, name, settings, detail) for detail in details)
        except SpecError as e:
            self.problems.update(e.problems)
        else:
            return None if section is None else section.model_dump(mode="json")
        return None

    def _validated(self, base: Base, name: str, settings: Combination) -> Strict | None:
        value: Any = base.value.get(name)
        if name == INIT_FROM:
            value = init_from_as_mapping(value)
        for setting in settings:
            try:
                value = put(value, setting.path[1:], setting.value)
            except ValueError as e:
                problem = self.positions.problem_at(setting.loc, f"{setting.key}: {e}")
                raise SpecError([problem]) from None
        if value is None and name in OPTIONAL:
            return None
        if value is None and not any(setting.path == (name,) for setting in settings):
            value = {}
        if name == "slurm" and isinstance(value, dict):
            value = merged_slurm(self._slurm_defaults, value)
        return SECTIONS[name].model_validate(value)

    def _problem(
        self, base: Base, name: str, settings: Combination, detail: ErrorDetails
    ) -> Problem:
        """Return the problem at the value that causes it, in the grid or in the base."""
        loc: Loc = (name, *detail["loc"])
        message = explain(detail, SECTIONS[name], (name,))
        setting = _blamed(settings, loc)
        if setting is None:
            written = written_loc((*base.prefix, *loc), base.positions)
            return base.positions.problem_at(written, message)
        inside = (*setting.loc, *loc[len(setting.path) :])
        if detail["type"] == "extra_forbidden":
            return self.positions.problem_at_key(inside, message)
        return self.positions.problem_at(inside, message)


def _blamed(settings: Combination, loc: Loc) -> Setting | None:
    """Return the setting that an error is about; if none fits, another one of the section."""
    fitting = [s for s in settings if _shares_path(s.path, loc)]
    return max(fitting or settings, key=lambda s: len(s.path), default=None)


def _shares_path(path: tuple[str, ...], loc: Loc) -> bool:
    shorter = min(len(path), len(loc))
    return path[:shorter] == loc[:shorter]


def experiment(
    name: str,
    grid: str | None,
    sections: Mapping[str, Any],
    spec: Mapping[str, Any],
    parameters: Mapping[str, Any],
) -> Experiment:
    """Return one resolved experiment.

    Args:
        name: of the experiment, or of the member within ``grid``.
        grid: name of the grid, None for a single experiment.
        sections: resolved.
        spec: entrypoint, description, owner, generation and rerun_on, the same for all members.
        parameters: the values that its grid sets.
    """
    config = {"experiment_name": name, **sections, "entrypoint": spec["entrypoint"]}
    config |= {key: spec[key] for key in ("description", "owner") if spec[key] is not None}
    return Experiment(
        name=name,
        grid=grid,
        config=config,
        resources=cast("Resources", sections["slurm"]),
        parameters=parameters,
        generation=spec["generation"],
        rerun_on=tuple(spec["rerun_on"]),
    )
