"""``ValueTable``: columns of values by name, for programs, data frames and notebooks."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from mtf.errors import MtfError
from mtf.framework.results.notebook_html import number_text, table_html
from mtf.report.tables import Columns, count, render_plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_SHOWN = 20  # rows, as text


class ValueTable:
    """A table: columns by name, all of one length; None where a row has no value.

    ``table["val_loss"]`` is a column, iteration yields rows as dicts.
    """

    def __init__(self, columns: Mapping[str, Sequence[Any]], caption: str = "") -> None:
        self._columns = {name: list(values) for name, values in columns.items()}
        self.caption = caption

    @classmethod
    def of_rows(cls, rows: Sequence[Mapping[str, Any]], caption: str = "") -> ValueTable:
        """Return the table of rows; its columns are all of their keys, in order of appearance."""
        names = dict.fromkeys(name for row in rows for name in row)
        return cls({name: [row.get(name) for row in rows] for name in names}, caption)

    @property
    def columns(self) -> list[str]:
        """Return the names of the columns."""
        return list(self._columns)

    def __getitem__(self, name: str) -> list[Any]:
        """Return a column's values.

        Raises:
            KeyError: there is no such column; the message has those that there are.
        """
        if name not in self._columns:
            raise KeyError(f"no column {name!r}; there are {', '.join(self._columns) or 'none'}")
        return list(self._columns[name])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the rows."""
        for index in range(len(self)):
            yield {name: values[index] for name, values in self._columns.items()}

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(next(iter(self._columns.values()), ()))

    def to_pandas(self) -> Any:
        """Return a ``pandas.DataFrame``.

        Raises:
            MtfError: pandas is not installed.
        """
        return _library("pandas").DataFrame(self._columns)

    def to_polars(self) -> Any:
        """Return a ``polars.DataFrame``.

        Raises:
            MtfError: polars is not installed.
        """
        return _library("polars").DataFrame(self._columns, strict=False)

    def __repr__(self) -> str:
        shown = [
            list(map(number_text, row.values()))
            for row, _ in zip(self, range(_SHOWN), strict=False)
        ]
        left = len(self) - len(shown)
        more = f"\n... and {left} more rows" if left else ""
        title = f"{self.caption}\n" if self.caption else ""
        if not self._columns:
            return f"{title}no rows"
        return f"{title}{render_plain(Columns(self.columns, shown))}{more}"

    def _repr_html_(self) -> str:
        return table_html(self._columns, self.caption or count(len(self), "row"))


def _library(name: str) -> Any:
    if importlib.util.find_spec(name) is None:
        raise MtfError(
            f"{name} is not installed for this Python. Run pip install {name}, or go through the"
            " rows of the table, which are dicts"
        )
    return importlib.import_module(name)
