"""From sections as written to resolved configurations; each combination is validated once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from pydantic import ValidationError

from mtf.core.vocabulary.experiments import Experiment
from mtf.errors import SpecError
from mtf.spec.schema.dotted_keys import INIT_FROM, OPTIONAL, SECTIONS, init_from_as_mapping, put
from mtf.spec.schema.error_messages import KEY_ALIASES, explain, located
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
    """One key of a grid with one of its values. Compared by identity: two places, two settings."""

    key: str
    path: tuple[str, ...]
    value: Any
    loc: Loc  # of the value, in the grid's file


Combination = tuple[Setting, ...]


@dataclass(frozen=True, eq=False)
class Base:
    """What a grid builds on: sections as written, and the file they stand in."""

    value: Mapping[str, Any]  # `training` is spelled so
    positions: Positions
    prefix: Loc
    composition: Composition | None = None  # where it has a defaults list

    def for_member(self, member: Combination) -> tuple[Base, Combination]:
        """Return the base as a member's choices make it, and the settings that go on top.

        Raises:
            SpecError: the choices cannot be composed.
        """
        if self.composition is None:
            return self, member
        chosen = {s for s in member if self.composition.chooses(s.path, s.value)}
        choices = tuple((s.path[0], s.value) for s in member if s in chosen)
        settings = tuple(s for s in member if s not in chosen)
        made = self.composition.composed(choices, [(".".join(s.path), s.value) for s in settings])
        return Base(with_canonical_keys(made.value), made.positions, self.prefix), settings


def with_canonical_keys(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return sections by the names that they go by here, whatever spelling the file has."""
    return {_CANONICAL.get(key, key): item for key, item in value.items()}


_CANONICAL = {other: name for name, other in KEY_ALIASES.items()}


class Resolver:
    """Resolves the members of one grid, section by section."""

    def __init__(self, base: Base, slurm_defaults: dict[str, Any], positions: Positions) -> None:
        self.base = base
        self.positions = positions  # of the grid's file
        self._slurm_defaults = slurm_defaults
        self._resolved: dict[tuple[object, ...], dict[str, Any] | None] = {}
        self._bases: dict[Combination, tuple[Base, Combination]] = {}
        self.problems: set[Problem] = set()

    def sections(self, member: Combination) -> dict[str, dict[str, Any] | None]:
        """Return a member's sections as JSON values; mistakes are added to ``problems``."""
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
        """Return one section of a member, None for none at all (or a mistake)."""
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
        # members of a composed base differ in it: what a section is made of is what counts
        made_of = () if base is self.base else (json.dumps(base.value.get(name)),)
        key = (name, settings, *made_of)
        if key not in self._resolved:
            self._resolved[key] = self._new_section(base, name, settings)
        return self._resolved[key]

    def check_alone(self, setting: Setting) -> None:
        """Add to ``problems`` what is wrong with one value, whatever else its members have.

        For grids that cannot be expanded, so that all mistakes are told at once.
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
                position = self.positions.value(setting.loc)
                problem = self.positions.problem(position, f"{setting.key}: {e}")
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
        """Return the problem at the value that caused it: the grid's, or the base's own."""
        loc: Loc = (name, *detail["loc"])
        message = explain(detail, SECTIONS[name], (name,))
        setting = _blamed(settings, loc)
        if setting is None:
            position = base.positions.value(located((*base.prefix, *loc), base.positions))
            return base.positions.problem(position, message)
        inside = (*setting.loc, *loc[len(setting.path) :])
        at_key = detail["type"] == "extra_forbidden"
        position = self.positions.key(inside) if at_key else self.positions.value(inside)
        return self.positions.problem(position, message)


def _blamed(settings: Combination, loc: Loc) -> Setting | None:
    """Return the setting nearest to an error; any of the section's where none is near."""
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
        name: its own, or the member's within ``grid``.
        grid: name of the grid, None for a single experiment.
        sections: resolved.
        spec: what goes for all its members: entrypoint, description, owner, generation, rerun_on.
        parameters: the values its grid set.
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
