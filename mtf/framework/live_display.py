"""The live display of runs: for `mtf sync --wait`, `mtf status --watch`, and programs that wait."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mtf.core.vocabulary.shown_text import harmless, one_line
from mtf.report.runs import status_table, summary
from mtf.report.tables import render_rich

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mtf.core.vocabulary.records import RunRecord

_ROWS = 40  # a taller display would scroll the terminal


@contextmanager
def show_progress(*, is_shown: bool = True) -> Iterator[Callable[[list[RunRecord]], None]]:
    """Return a function that shows runs, on standard error, whenever it is called with them.

    A terminal gets a table that is redrawn, a pipe one line for each change of state.
    """
    if not is_shown:
        yield lambda _: None
    elif sys.stderr.isatty():
        with _redrawn() as update:
            yield update
    else:
        yield _LineByLine().update


@contextmanager
def _redrawn() -> Iterator[Callable[[list[RunRecord]], None]]:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(stderr=True), auto_refresh=False) as live:

        def update(records: list[RunRecord]) -> None:
            shown = sorted(records, key=lambda r: r.is_over)[:_ROWS]
            table = render_rich(status_table(shown, datetime.now(UTC)))
            live.update(Group(table, Text(one_line(summary(records)))), refresh=True)

        yield update


class _LineByLine:
    """Prints the runs whose state has changed since the last update."""

    def __init__(self) -> None:
        self._last: dict[str, str] = {}

    def update(self, records: list[RunRecord]) -> None:
        changed = False
        for record in records:
            if self._last.get(record.run) != record.state:
                self._last[record.run] = record.state
                changed = True
                reason = f" ({record.reason})" if record.reason else ""
                _inform(one_line(f"{record.state:<10} {record.label}{reason}"))
        if changed:
            _inform(f"           {summary(records)}")


def _inform(line: str) -> None:
    sys.stderr.write(f"{harmless(line)}\n")
    sys.stderr.flush()
