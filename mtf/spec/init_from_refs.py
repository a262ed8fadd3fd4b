"""Where the specs name the runs they begin from, and what is wrong with those names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mtf.spec.schema.dotted_keys import INIT_FROM, init_from_as_mapping

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mtf.spec.grid.definition import GridDefinition
    from mtf.spec.resolve import Base
    from mtf.spec.yaml.positions import Loc, Positions

Named = dict[str, tuple[str, int, int]]  # path, line and column by name


def init_from_in_experiment(value: Any, positions: Positions) -> Named:
    """Return the name that an experiment's ``init_from`` holds."""
    return _placed([(value, (INIT_FROM,), positions)])


def init_from_in_grid(base: Base, parts: GridDefinition, positions: Positions) -> Named:
    """Return the names that a grid gives, and the one of its base."""
    found = [(base.value.get(INIT_FROM), (*base.prefix, INIT_FROM), base.positions)]
    for setting in parts.settings():
        if setting.path == (INIT_FROM,):
            found.append((setting.value, setting.loc, positions))
        elif setting.path == (INIT_FROM, "run"):
            found.append(({"run": setting.value}, setting.loc, positions))
    return _placed(reversed(found))  # what the base names counts last: the grid may replace it


def _placed(found: Iterable[tuple[Any, Loc, Positions]]) -> Named:
    named: Named = {}
    for name, loc, positions in _names(found):
        position = positions.value(loc)
        named.setdefault(name, (positions.path_of(position), *position))
    return named


def _names(found: Iterable[tuple[Any, Loc, Positions]]) -> Iterator[tuple[str, Loc, Positions]]:
    for value, loc, positions in found:
        asked = init_from_as_mapping(value)
        if isinstance(asked, dict) and isinstance(asked.get("run"), str):
            yield asked["run"], (*loc, "run"), positions
