"""``History``: the scalars that a training has logged, as a table and as curves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtf.core.scalar_rows import row_values
from mtf.core.vocabulary import json_text
from mtf.framework.results.notebook_html import curves_html
from mtf.framework.results.value_table import ValueTable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SCALARS = "scalars.jsonl"
_PLACE = ("step", "epoch")
_LEADING = ("train_", "val_")  # of names whose rest names one chart


class History(ValueTable):
    """The scalars of a run: a row for each logged step and for each epoch, in their order.

    Columns are ``step``, ``epoch`` and the names of the scalars; the mean of an epoch's training is
    ``train_loss_epoch``, beside the ``train_loss`` of the last steps.
    """

    def curve(self, name: str) -> list[tuple[float, float]]:
        """Return the pairs of step and value of a scalar, without the rows that lack it."""
        pairs = zip(self["step"], self[name], strict=True)
        return [(step, value) for step, value in pairs if value is not None and step is not None]

    def _repr_html_(self) -> str:
        charts: dict[str, dict[str, list[tuple[float, float]]]] = {}
        for name in self.columns:
            if name not in _PLACE:
                charts.setdefault(_title(name), {})[name] = self.curve(name)
        return curves_html(charts) if charts else super()._repr_html_()


def read_history(run_dir: str) -> History:
    """Return the history of a run, empty if it has logged nothing yet.

    Raises:
        OSError: it cannot be read, such as another user's.
    """
    try:
        data = Path(run_dir, _SCALARS).read_bytes()
    except FileNotFoundError:
        data = b""
    rows = [_row(row) for row in _rows(data)]
    names = dict.fromkeys((*_PLACE, *(name for row in rows for name in row)))
    return History({name: [row.get(name) for row in rows] for name in names})


def _rows(data: bytes) -> Iterator[dict[str, Any]]:
    for line in data.splitlines():
        try:
            row = json_text.loads(line)
        except ValueError:  # the last one is being written
            continue
        if isinstance(row, dict):
            yield row


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"step": row.get("step"), **row_values(row).numbers}


def _title(name: str) -> str:
    short = name.removesuffix("_epoch")
    for leading in _LEADING:
        short = short.removeprefix(leading)
    return short
