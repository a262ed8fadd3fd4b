"""Printing: data to standard output, progress to standard error, colours to terminals only."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING

import click

from mtf.core.vocabulary.shown_text import harmless

if TYPE_CHECKING:
    from mtf.project.project import Project


_COMMAND = re.compile(r"(^[^\S\n]*:(?=:)|##(?=\[|vso\[))", re.MULTILINE)


def print_text(text: str, *, newline: bool = True) -> None:
    """Print data, on standard output. Everything that mtf prints goes through this module."""
    click.echo(harmless(text), nl=newline)


def print_log(text: str, *, err: bool = False) -> None:
    """Print a job's output at once: without colours, and with redrawn lines as lines.

    CI systems take some texts of a program for commands: there, they get a space inside.
    Source: docs.github.com, Workflow commands; learn.microsoft.com, Logging commands.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", lines)
    if os.environ.get("CI") or os.environ.get("TF_BUILD"):
        plain = _COMMAND.sub(r"\1 ", plain)
    click.echo(harmless(plain), nl=False, err=err)
    sys.stdout.flush()


def inform(line: str) -> None:
    """Print a line for people, on standard error."""
    click.echo(harmless(line), err=True)


def open_here(folder: str) -> Project:
    """Return the project of the folder that ``-C`` names."""
    from pathlib import Path

    from mtf.project.project import open_project

    return open_project(Path(folder))


_COLOURS = {"+": "green", "~": "yellow", "-": "red", "!": "magenta", "=": "cyan"}


def print_plan(text: str) -> None:
    """Print a plan; on a terminal its lines get the colours of their symbols."""
    if not sys.stdout.isatty() or "NO_COLOR" in os.environ:
        print_text(text)
        return
    for line in harmless(text).split("\n"):
        symbol = line.strip()[:2]
        colour = _COLOURS.get(symbol[0]) if symbol[1:] == " " else None
        if line.startswith("error: "):
            colour = "red"
        click.echo(click.style(line, fg=colour))
