"""Loads one grid: its members as experiments, or every error in it at once."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from mtf.core.vocabulary.experiments import Desired
from mtf.errors import SpecError
from mtf.spec.compose.composition import KEY as DEFAULTS
from mtf.spec.grid.definition import chooses_nothing, key_problems, read_grid
from mtf.spec.grid.expand import example_members, expand
from mtf.spec.init_from_refs import init_from_in_grid
from mtf.spec.lint.key_positions import positions_in_grid
from mtf.spec.resolve import Base, Resolver, at_place
from mtf.spec.schema.dotted_keys import key_problem, without_aliases
from mtf.spec.schema.specs import GridSpec
from mtf.spec.spec_file import missing_data, validated

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mtf.errors import Problem
    from mtf.spec.grid.definition import GridDefinition
    from mtf.spec.named_code.name_check import NamedCode
    from mtf.spec.spec_file import SpecFile
    from mtf.spec.yaml.positions import Loc


_ROOT: Loc = ()  # places of a base: a whole file, or inside a grid
_BASE: Loc = ("base",)


class NamesInGrid(NamedTuple):
    """The code that grids name, None if it is not checked, and the files that they build on."""

    code: NamedCode | None
    bases: Mapping[str, SpecFile]

    def wrong_entrypoint(self, base: Base) -> list[Problem]:
        """Return the mistakes in the entry point that a base names."""
        found = self.code.entrypoint(base.value.get("entrypoint")) if self.code else ()
        return [at_place(base.positions, (*base.prefix, *each.loc), each) for each in found]

    def over_broken_base(self, file: SpecFile, grid: GridDefinition) -> set[Problem]:
        """Return the mistakes in names and keys of a grid whose base has other mistakes."""
        value, positions, prefix = file.value.get("base"), file.positions, _BASE
        if isinstance(value, str):
            path = posixpath.normpath(posixpath.join(posixpath.dirname(file.path), value))
            other = self.bases.get(path)
            if other is None or other.kind != "base":
                return set()  # the names of an experiment are checked where it is read itself
            value, positions, prefix = other.value, other.positions, _ROOT
        if not isinstance(value, dict) or DEFAULTS in value or value.get("entrypoint"):
            return set()
        base = Base(without_aliases(value), positions, prefix)
        return _wrong_names(grid, Resolver(base, {}, file.positions, self.code))


def load_grid(
    file: SpecFile,
    base_of: Callable[[SpecFile], Base],
    slurm_defaults: Callable[[object], dict[str, Any]],
    stamp: str,
    names: NamesInGrid,
    *,
    is_draft: bool = False,
) -> tuple[Desired, list[Problem]]:
    """Return the experiments that a grid asks for, and warnings.

    Args:
        file: of the grid.
        base_of: returns the base of a grid, or raises ``SpecError`` with the mistakes in it.
        slurm_defaults: returns the defaults of ``slurm`` on the cluster with a name.
        stamp: the submission's time, for ``naming: timestamp``.
        names: checks the names and keys of what the grid names.
        is_draft: its members need no data.

    Raises:
        SpecError: with every error in the grid and its base.
    """
    problems = key_problems(file.value, file.positions)
    base = spec = None
    try:
        base = base_of(file)
    except SpecError as e:
        problems += e.problems
    is_whole = True
    try:
        spec = validated(GridSpec, file.value, file)
    except SpecError as e:
        problems += e.problems
        is_whole, spec = False, _without_unknown_keys(file.value)
    if spec is None:
        raise SpecError(problems)
    composition = base.composition if base else None
    chooses_option = composition.chooses_option if composition else chooses_nothing
    definition = read_grid(spec, file.positions, chooses_option)
    if is_whole:  # otherwise an unknown key may be a misspelled one that the definition lacks
        problems += definition.problems
    if base is None:
        raise SpecError([*problems, *names.over_broken_base(file, definition)])
    cluster = spec.cluster or base.value.get("cluster")
    code = names.code if base.value.get("entrypoint") is None else None
    resolver = Resolver(base, slurm_defaults(cluster), file.positions, code)
    problems += names.wrong_entrypoint(base)
    if not is_draft and all(setting.path[0] != "data" for setting in definition.settings()):
        problems += missing_data(base.value, base.positions, base.prefix)
    if problems:
        found = {*_wrong_values(definition, resolver), *_wrong_names(definition, resolver)}
        raise SpecError([*problems, *found])
    experiments = expand(spec, definition, resolver, stamp)
    desired = Desired(
        name=spec.name,
        path=file.path,
        experiments=experiments,
        max_parallel=spec.max_parallel,
        cluster=cluster,
        on_change=spec.on_change,
        canary=spec.canary,
        max_failed=spec.max_failed,
        named_at=init_from_in_grid(base, definition, file.positions),
        places=positions_in_grid(base, definition, file.positions),
    )
    return desired, list(resolver.problems)


def _wrong_values(definition: GridDefinition, resolver: Resolver) -> set[Problem]:
    for setting in definition.settings():
        if key_problem(setting.path) is None:
            resolver.check_value(setting)
    return resolver.problems


def _wrong_names(definition: GridDefinition, resolver: Resolver) -> set[Problem]:
    """Return the mistakes in names and keys of a grid that cannot be expanded.

    With conditions, it is unknown which members there are: only the sections are checked that are
    the same in all of them.
    """
    if definition.conditions:
        resolver.check_names_but_for({s.path[0] for s in definition.settings()})
    else:
        for member in example_members(definition):
            resolver.check_names(tuple(s for s in member if key_problem(s.path) is None))
    return resolver.problems


def _without_unknown_keys(value: Mapping[str, Any]) -> GridSpec | None:
    """Return a grid without its unknown keys, None if it has other errors as well."""
    known = {key: item for key, item in value.items() if key in GridSpec.model_fields}
    try:
        return GridSpec.model_validate(known)
    except ValidationError:
        return None
