"""From sections as written to resolved configurations; each combination is validated once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from pydantic import ValidationError

from mtf.core.experiments import Experiment
from mtf.errors import SpecError
from mtf.spec.explain import explain, located
from mtf.spec.keys import OPTIONAL, SECTIONS, put
from mtf.spec.origins import SECTION as INIT_FROM
from mtf.spec.origins import spelled_out
from mtf.spec.settings import merged_slurm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

    from mtf.core.jobs import Resources
    from mtf.errors import Problem
    from mtf.spec.parse import Loc, Marks
    from mtf.spec.strict import Strict


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """One key of a grid with one of its values. Compared by identity: two places, two settings."""

    key: str
    path: tuple[str, ...]
    value: Any
    loc: Loc  # of the value, in the grid's file


Combination = tuple[Setting, ...]


@dataclass(frozen=True)
class Base:
    """What a grid builds on: sections as written, and the file they stand in."""

    value: Mapping[str, Any]  # `training` is spelled so
    marks: Marks
    prefix: Loc


class Resolver:
    """Resolves the members of one grid, section by section."""

    def __init__(self, base: Base, slurm_defaults: dict[str, Any], marks: Marks) -> None:
        self.base = base
        self.marks = marks  # of the grid's file
        self._slurm_defaults = slurm_defaults
        self._resolved: dict[tuple[str, Combination], dict[str, Any] | None] = {}
        self.problems: set[Problem] = set()

    def sections(self, member: Combination) -> dict[str, dict[str, Any] | None]:
        """Return a member's sections as JSON values; mistakes are added to ``problems``."""
        by_section: dict[str, list[Setting]] = {}
        for setting in member:
            by_section.setdefault(setting.path[0], []).append(setting)
        return {name: self.section(name, tuple(by_section.get(name, ()))) for name in SECTIONS}

    def section(self, name: str, settings: Combination) -> dict[str, Any] | None:
        """Return one section with these settings in it, None for none at all (or a mistake)."""
        key = (name, settings)
        if key not in self._resolved:
            self._resolved[key] = self._section(name, settings)
        return self._resolved[key]

    def check_alone(self, setting: Setting) -> None:
        """Add to ``problems`` what is wrong with one value, whatever else its members have.

        For grids that cannot be expanded, so that all mistakes are told at once.
        """
        name = setting.path[0]
        try:
            self._validated(name, (setting,))
        except ValidationError as e:
            for detail in e.errors(include_url=False):
                if _shares_path(setting.path, (name, *detail["loc"])):
                    self.problems.add(self._problem(name, (setting,), detail))
        except SpecError as e:
            self.problems.update(e.problems)

    def _section(self, name: str, settings: Combination) -> dict[str, Any] | None:
        try:
            section = self._validated(name, settings)
        except ValidationError as e:
            details = e.errors(include_url=False)
            self.problems.update(self._problem(name, settings, detail) for detail in details)
        except SpecError as e:
            self.problems.update(e.problems)
        else:
            return None if section is None else section.model_dump(mode="json")
        return None

    def _validated(self, name: str, settings: Combination) -> Strict | None:
        value: Any = self.base.value.get(name)
        if name == INIT_FROM:
            value = spelled_out(value)
        for setting in settings:
            try:
                value = put(value, setting.path[1:], setting.value)
            except ValueError as e:
                place = self.marks.value(setting.loc)
                problem = self.marks.problem(place, f"{setting.key}: {e}")
                raise SpecError([problem]) from None
        if value is None and name in OPTIONAL:
            return None
        if value is None and not any(setting.path == (name,) for setting in settings):
            value = {}
        if name == "slurm" and isinstance(value, dict):
            value = merged_slurm(self._slurm_defaults, value)
        return SECTIONS[name].model_validate(value)

    def _problem(self, name: str, settings: Combination, detail: ErrorDetails) -> Problem:
        """Return the problem at the value that caused it: the grid's, or the base's own."""
        loc: Loc = (name, *detail["loc"])
        message = explain(detail, SECTIONS[name], (name,))
        setting = _blamed(settings, loc)
        if setting is None:
            base = self.base
            place = base.marks.value(located((*base.prefix, *loc), base.marks))
            return base.marks.problem(place, message)
        inside = (*setting.loc, *loc[len(setting.path) :])
        at_key = detail["type"] == "extra_forbidden"
        place = self.marks.key(inside) if at_key else self.marks.value(inside)
        return self.marks.problem(place, message)


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
