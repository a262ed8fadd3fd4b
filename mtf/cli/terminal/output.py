"""Printing: data on standard output, progress on standard error, colours on terminals only."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mtf.project.project import Project
    from mtf.report.tables import Columns


def inform(line: str) -> None:
    """Print a line for people, on standard error."""
    click.echo(line, err=True)


def open_here(folder: str) -> Project:
    """Open the project that holds the folder given by ``-C``."""
    from mtf.project.project import open_project

    return open_project(Path(folder))


def print_table(table: Columns) -> None:
    """Print a table: rich's on a terminal, aligned text into a pipe."""
    from mtf.report.tables import render_plain, render_rich

    if not sys.stdout.isatty():
        click.echo(render_plain(table))
        return
    from rich.console import Console

    Console().print(render_rich(table))


_COLOURS = {"+": "green", "~": "yellow", "-": "red", "!": "magenta", "=": "cyan"}


def print_plan(text: str) -> None:
    """Print a plan, its lines coloured by their symbols on a terminal."""
    if not sys.stdout.isatty() or "NO_COLOR" in os.environ:
        click.echo(text)
        return
    for line in text.split("\n"):
        symbol = line.strip()[:2]
        colour = _COLOURS.get(symbol[0]) if symbol[1:] == " " else None
        error = "red" if line.startswith("error: ") else None
        click.echo(click.style(line, fg=colour or error))
