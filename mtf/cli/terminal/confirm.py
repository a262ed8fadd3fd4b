"""Shows what a command is about to do, and asks a person for consent."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from mtf.cli.terminal.output import inform
from mtf.errors import EXIT_ERROR, MtfError
from mtf.report.tables import render_plain

if TYPE_CHECKING:
    from mtf.report.tables import Columns


def can_ask() -> bool:
    """Return True if a person can read a question and answer it."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def confirm(table: Columns, what: str, *, yes: bool) -> None:
    """Return once a person has agreed to what the table shows; exit if they decline.

    Args:
        table: the runs, shown on standard error.
        what: like ``cancel 3 runs``.
        yes: the person has agreed on the command line.

    Raises:
        MtfError: there is nobody to ask.
    """
    inform(render_plain(table))
    if yes:
        return
    if not can_ask():
        raise MtfError(
            f"{what}? There is no terminal to ask at, so nothing was done. Add --yes to do it, or"
            " --dry-run to look only"
        )
    if not click.confirm(f"{what[0].upper()}{what[1:]}?", err=True):
        inform("Nothing was done")
        sys.exit(EXIT_ERROR)
