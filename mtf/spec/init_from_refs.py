"""Where the specs name the runs they begin from, and what is wrong with those names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mtf.spec.schema.keys import INIT_FROM, spelled_out

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mtf.spec.grid.axes import Parts
    from mtf.spec.resolve import Base
    from mtf.spec.yaml.marks import Loc, Marks

Named = dict[str, tuple[str, int, int]]  # path, line and column by name


def named_in_file(value: Any, marks: Marks) -> Named:
    """Return the name that an experiment's ``init_from`` holds."""
    return _placed([(value, (INIT_FROM,), marks)])


def named_in_grid(base: Base, parts: Parts, marks: Marks) -> Named:
    """Return the names that a grid gives, and the one of its base."""
    found = [(base.value.get(INIT_FROM), (*base.prefix, INIT_FROM), base.marks)]
    for setting in parts.settings():
        if setting.path == (INIT_FROM,):
            found.append((setting.value, setting.loc, marks))
        elif setting.path == (INIT_FROM, "run"):
            found.append(({"run": setting.value}, setting.loc, marks))
    return _placed(reversed(found))  # what the base names counts last: the grid may replace it


def _placed(found: Iterable[tuple[Any, Loc, Marks]]) -> Named:
    named: Named = {}
    for name, loc, marks in _names(found):
        place = marks.value(loc)
        named.setdefault(name, (marks.path_of(place), *place))
    return named


def _names(found: Iterable[tuple[Any, Loc, Marks]]) -> Iterator[tuple[str, Loc, Marks]]:
    for value, loc, marks in found:
        asked = spelled_out(value)
        if isinstance(asked, dict) and isinstance(asked.get("run"), str):
            yield asked["run"], (*loc, "run"), marks
