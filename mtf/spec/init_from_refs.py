"""Finds the runs that the ``init_from`` keys of specs name, with their positions in the files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mtf.spec.schema.dotted_keys import INIT_FROM, init_from_as_mapping

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mtf.spec.grid.definition import GridDefinition
    from mtf.spec.resolve import Base
    from mtf.spec.yaml.positions import Loc, Positions

References = dict[str, tuple[str, int, int]]  # name -> path, line and column


def init_from_in_experiment(value: Any, positions: Positions) -> References:
    """Return the run that an experiment's ``init_from`` names."""
    return _references([(value, (INIT_FROM,), positions)])


def init_from_in_grid(base: Base, grid: GridDefinition, positions: Positions) -> References:
    """Return the runs that a grid and its base name."""
    found = [(base.value.get(INIT_FROM), (*base.prefix, INIT_FROM), base.positions)]
    for setting in grid.settings():
        if setting.path == (INIT_FROM,):
            found.append((setting.value, setting.loc, positions))
        elif setting.path == (INIT_FROM, "run"):
            found.append(({"run": setting.value}, setting.loc, positions))
    return _references(reversed(found))  # the first position counts: the grid's before its base's


def _references(found: Iterable[tuple[Any, Loc, Positions]]) -> References:
    references: References = {}
    for name, loc, positions in _names(found):
        position = positions.value(loc)
        references.setdefault(name, (positions.path_of(position), *position))
    return references


def _names(found: Iterable[tuple[Any, Loc, Positions]]) -> Iterator[tuple[str, Loc, Positions]]:
    for value, loc, positions in found:
        mapping = init_from_as_mapping(value)
        if isinstance(mapping, dict) and isinstance(mapping.get("run"), str):
            yield mapping["run"], (*loc, "run"), positions
