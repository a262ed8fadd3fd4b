"""Prints tables; apart from other printing, so that most commands do not import them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from mtf.cli.terminal.output import print_text
from mtf.report.tables import render_plain, render_rich

if TYPE_CHECKING:
    from mtf.report.tables import Columns


def print_table(table: Columns) -> None:
    """Print a table: drawn by rich on a terminal, as aligned text to a pipe."""
    if not sys.stdout.isatty():
        print_text(render_plain(table))
        return
    from rich.console import Console

    Console().print(render_rich(table))
