"""Loads one grid: its members as experiments, or every error in it at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from mtf.core.vocabulary.experiments import Desired
from mtf.errors import SpecError
from mtf.spec.grid.definition import chooses_nothing, key_problems, read_grid
from mtf.spec.grid.expand import expand
from mtf.spec.init_from_refs import init_from_in_grid
from mtf.spec.lint.key_positions import positions_in_grid
from mtf.spec.resolve import Resolver
from mtf.spec.schema.dotted_keys import key_problem
from mtf.spec.schema.specs import GridSpec
from mtf.spec.spec_file import validated

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mtf.errors import Problem
    from mtf.spec.grid.definition import GridDefinition
    from mtf.spec.resolve import Base
    from mtf.spec.spec_file import SpecFile


def load_grid(
    file: SpecFile,
    base_of: Callable[[SpecFile], Base],
    slurm_defaults: Callable[[object], dict[str, Any]],
    stamp: str,
) -> Desired:
    """Return the experiments that a grid asks for.

    Args:
        file: of the grid.
        base_of: returns the base of a grid, or raises ``SpecError`` with the mistakes in it.
        slurm_defaults: returns the defaults of ``slurm`` on the cluster with a name.
        stamp: the submission's time, for ``naming: timestamp``.

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
        raise SpecError(problems)
    cluster = spec.cluster or base.value.get("cluster")
    resolver = Resolver(base, slurm_defaults(cluster), file.positions)
    if problems:
        raise SpecError([*problems, *_wrong_values(definition, resolver)])
    return Desired(
        name=spec.name,
        path=file.path,
        experiments=expand(spec, definition, resolver, stamp),
        max_parallel=spec.max_parallel,
        cluster=cluster,
        on_change=spec.on_change,
        named_at=init_from_in_grid(base, definition, file.positions),
        places=positions_in_grid(base, definition, file.positions),
    )


def _wrong_values(definition: GridDefinition, resolver: Resolver) -> set[Problem]:
    for setting in definition.settings():
        if key_problem(setting.path) is None:
            resolver.check_value(setting)
    return resolver.problems


def _without_unknown_keys(value: Mapping[str, Any]) -> GridSpec | None:
    """Return a grid without its unknown keys, None if it has other errors as well."""
    known = {key: item for key, item in value.items() if key in GridSpec.model_fields}
    try:
        return GridSpec.model_validate(known)
    except ValidationError:
        return None
