"""Resolves the members of a grid: its values on top of the base, each section validated once."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from pydantic import ValidationError

from mtf.core.vocabulary import json_text
from mtf.core.vocabulary.experiments import Experiment
from mtf.errors import SpecError
from mtf.spec.named_code.metric_names import DECIDING, WATCHING, watched
from mtf.spec.named_code.name_check import CHECKED as CHECKED_SECTIONS
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
    from collections.abc import Collection, Iterable, Mapping

    from pydantic_core import ErrorDetails

    from mtf.core.vocabulary.jobs import Resources
    from mtf.errors import Problem
    from mtf.spec.compose.composition import Composition
    from mtf.spec.named_code.name_check import NamedCode
    from mtf.spec.named_code.section_rules import Finding
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
        self.composition.require_all(choices, [s.path for s in settings])
        return Base(without_aliases(made.value), made.positions, self.prefix), settings


class Resolver:
    """Resolves the members of one grid, section by section, and collects their problems."""

    def __init__(
        self,
        base: Base,
        slurm_defaults: dict[str, Any],
        positions: Positions,
        code: NamedCode | None = None,
    ) -> None:
        """Take the base and the positions of the grid's file.

        Args:
            base: the sections that all members build on.
            slurm_defaults: of the settings.
            positions: of the grid's file.
            code: checks the names and keys of sections; None: an entry point may read them freely.
        """
        self.base = base
        self.positions = positions
        self._slurm_defaults = slurm_defaults
        self._code = code
        self._in_optimizer: dict[object, tuple[Any, ...]] = {}  # mistakes that the model decides on
        self._watching: dict[object, bool] = {}  # whether these sections watch metrics
        self._judged: set[object] = set()  # sections whose metrics were checked
        self._found: set[tuple[object, ...]] = set()  # places of mistakes in names and keys
        self._resolved: dict[tuple[object, ...], dict[str, Any] | None] = {}
        self._bases: dict[Combination, tuple[Base, Combination]] = {}
        self.problems: set[Problem] = set()

    @property
    def errors(self) -> list[Problem]:
        """Return the problems that are not just warnings."""
        return [problem for problem in self.problems if problem.is_error]

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
        of_section = {name: tuple(by_section.get(name, ())) for name in SECTIONS}
        found = {name: self._section(base, name, of_section[name]) for name in SECTIONS}
        if self._in_optimizer:
            self._check_optimizer(base, of_section)
        self._check_metrics(base, of_section)
        return found

    def section(self, name: str, member: Combination) -> dict[str, Any] | None:
        """Return one section of a member, None if it has none or an error."""
        if self.base.composition is None:
            return self._section(self.base, name, _of(name, member))
        return self.sections(member).get(name)

    def _base_of(self, member: Combination) -> tuple[Base, Combination]:
        if self.base.composition is None:
            return self.base, member
        if member not in self._bases:
            self._bases[member] = self.base.for_member(member)
        return self._bases[member]

    def _section(self, base: Base, name: str, settings: Combination) -> dict[str, Any] | None:
        key = self._key(base, name, settings)
        if key not in self._resolved:
            self._resolved[key] = self._new_section(base, name, settings)
            self._check_names(base, name, settings)
        return self._resolved[key]

    def _key(self, base: Base, name: str, settings: Combination) -> tuple[object, ...]:
        # each member has its own composed base, so that the section's content is part of the key
        made_of = () if base is self.base else (json_text.dumps(base.value.get(name)),)
        return (name, settings, *made_of)

    # -- names and keys of the code that sections name ---------------------------------------------

    def check_names(self, member: Combination) -> None:
        """Add the mistakes in the names and keys of one member to ``problems``."""
        with suppress(SpecError):  # reported elsewhere
            self._check_member(*self._base_of(member))

    def check_names_but_for(self, varied: Collection[str]) -> None:
        """Add the mistakes in names and keys of the base to ``problems``, without some sections."""
        for name in CHECKED_SECTIONS:
            if name not in varied and (name != "optimizer" or "model" not in varied):
                self._check_names(self.base, name, ())
        if "optimizer" not in varied and "model" not in varied:
            self._check_optimizer(self.base, {"optimizer": (), "model": ()})

    def _check_member(self, base: Base, settings: Combination) -> None:
        of_section = {name: _of(name, settings) for name in CHECKED_SECTIONS}
        for name, own in of_section.items():
            self._check_names(base, name, own)
        self._check_optimizer(base, of_section)
        self._check_metrics(base, {**of_section, "checkpoint": _of("checkpoint", settings)})

    def _check_names(self, base: Base, name: str, settings: Combination) -> None:
        if self._code is None or name not in CHECKED_SECTIONS:
            return
        try:
            value = self._written(base, name, settings)
            found = self._code.findings(name, value, partial(self._written, base, "slurm", ()))
        except SpecError:
            return  # reported elsewhere
        if found and name == "optimizer":
            self._in_optimizer[self._key(base, name, settings)] = found
        else:
            self._add_findings(base, settings, found)

    def _check_optimizer(self, base: Base, of_section: Mapping[str, Combination]) -> None:
        """Add the mistakes in a member's optimizer: its model decides whether they are some."""
        settings = of_section["optimizer"]
        found = self._in_optimizer.get(self._key(base, "optimizer", settings))
        if found and self._code is not None:
            with suppress(SpecError):
                model = self._written(base, "model", of_section["model"])
                counted = self._code.without_own_optimizers(found, model)
                self._add_findings(base, settings, counted)

    def _check_metrics(self, base: Base, of_section: Mapping[str, Combination]) -> None:
        """Add the mistakes in the metrics that a member watches; few members watch different ones.

        The sections together decide whether there is such a metric.
        """
        if self._code is None:
            return
        watching = tuple(self._key(base, name, of_section[name]) for name in WATCHING)
        if watching not in self._watching:
            written = {name: self._plainly(base, name, of_section[name]) for name in WATCHING}
            self._watching[watching] = bool(watched(written))
        if not self._watching[watching]:
            return
        deciding = tuple(self._key(base, name, of_section[name]) for name in DECIDING)
        if (watching, deciding) not in self._judged:
            self._judged.add((watching, deciding))
            names = (*WATCHING, *DECIDING)
            sections = {name: self._plainly(base, name, of_section[name]) for name in names}
            settings = tuple(s for name in names for s in of_section[name])
            self._add_findings(base, settings, self._code.metrics(sections), once=True)

    def _plainly(self, base: Base, name: str, settings: Combination) -> Any:
        """Return a section as it is written, None if it cannot be."""
        try:
            return self._written(base, name, settings)
        except SpecError:  # reported elsewhere
            return None

    def _add_findings(
        self,
        base: Base,
        settings: Combination,
        findings: Iterable[Finding],
        *,
        once: bool = False,
    ) -> None:
        """Add mistakes in names and keys to ``problems``, those in keys once for each place.

        A key of the base may be one too many for several classes among the grid's values.

        Args:
            base: of the member.
            settings: of the member, that the mistakes may be in.
            findings: the mistakes.
            once: add those in values once for each place, too.
        """
        for finding in findings:
            problem = self._finding(base, settings, finding)
            place = (problem.path, problem.line, problem.column, finding.at_key, finding.loc)
            if place not in self._found or not (once or finding.at_key):
                self._found.add(place)
                self.problems.add(problem)

    def _finding(self, base: Base, settings: Combination, finding: Finding) -> Problem:
        """Return a mistake in a name or key at its place, in the grid or in the base."""
        loc: Loc = finding.loc
        setting = next((s for s in settings if _shares_path(s.path, loc)), None)
        if setting is None:
            return at_place(base.positions, (*base.prefix, *loc), finding)
        inside: Loc = (*setting.loc, *loc[len(setting.path) :])
        if len(loc) <= len(setting.path) and finding.at_key and isinstance(inside[-1], int):
            inside = inside[:-1]  # the key of a list of values
        return at_place(self.positions, inside, finding)

    # -- one section -------------------------------------------------------------------------------

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

    def _written(self, base: Base, name: str, settings: Combination) -> Any:
        """Return a section as it is written, with the settings applied.

        Raises:
            SpecError: a setting does not fit.
        """
        value: Any = base.value.get(name)
        if name == INIT_FROM:
            value = init_from_as_mapping(value)
        for setting in settings:
            try:
                value = put(value, setting.path[1:], setting.value)
            except ValueError as e:
                problem = self.positions.problem_at(setting.loc, f"{setting.key}: {e}")
                raise SpecError([problem]) from None
        is_set = any(setting.path == (name,) for setting in settings)
        if value is None and name not in OPTIONAL and not is_set:
            value = {}
        if name == "slurm" and isinstance(value, dict):
            value = merged_slurm(self._slurm_defaults, value)
        return value

    def _validated(self, base: Base, name: str, settings: Combination) -> Strict | None:
        value = self._written(base, name, settings)
        if value is None and name in OPTIONAL:
            return None
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


def at_place(positions: Positions, loc: Loc, finding: Finding) -> Problem:
    """Return a mistake in a name or key as a problem at its place in a file."""
    written = written_loc(loc, positions)
    position = positions.key(written) if finding.at_key else positions.value(written)
    problem = positions.problem(position, finding.message)
    return problem._replace(severity=finding.severity)


def _blamed(settings: Combination, loc: Loc) -> Setting | None:
    """Return the setting that an error is about; if none fits, another one of the section."""
    fitting = [s for s in settings if _shares_path(s.path, loc)]
    return max(fitting or settings, key=lambda s: len(s.path), default=None)


def _of(section: str, settings: Combination) -> Combination:
    return tuple(setting for setting in settings if setting.path[0] == section)


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
