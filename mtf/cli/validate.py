"""`mtf validate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mtf.cli.terminal.output import inform
from mtf.errors import EXIT_ERROR

if TYPE_CHECKING:
    from mtf.commands.validate import Checked


@click.command()
@click.argument(
    "files", nargs=-1, type=click.Path(dir_okay=True, path_type=Path), metavar="[FILE]..."
)
@click.option("--staged", is_flag=True, help="What the next commit holds, not the files on disk.")
@click.option("--rev", help="What a revision holds.")
@click.option(
    "--range", "span", metavar="A..B", help="The specs that changed from A to B, as in B."
)
@click.option(
    "--feasibility", is_flag=True, help="Ask SLURM whether it would take jobs like these."
)
@click.option("--format", "style", type=click.Choice(["text", "json", "github"]), default="text")
@click.pass_obj
def validate(
    folder: str,
    files: tuple[Path, ...],
    staged: bool,
    rev: str | None,
    span: str | None,
    feasibility: bool,
    style: str,
) -> None:
    """Check specs and settings: files on disk (all of them by default), staged, or of a revision.

    Every error is said at once, as path:line:column: message. Warnings are told apart and
    stop nothing. Exit code 0: clean, 1: invalid.
    """
    from mtf.commands import validate as checks

    if sum((bool(files), staged, rev is not None, span is not None)) > 1:
        raise click.UsageError("name files, or one of --staged, --rev and --range")
    if staged and feasibility:
        raise click.UsageError("--staged is for hooks: it asks nobody, so not --feasibility either")
    where = Path(folder)
    asks = checks.Asks.FEASIBILITY if feasibility else checks.Asks.FACTS
    if staged:
        checked = checks.staged(where)
    elif rev is not None:
        checked = checks.revision(where, rev, asks)
    elif span is not None:
        checked = checks.changed(where, span, asks)
    else:
        checked = checks.on_disk(where, files, asks)
    report_checked(checked, style)


def report_checked(checked: Checked, style: str) -> None:
    """Print what was found, and exit if there is an error."""
    from mtf.report.problems import render_problems
    from mtf.report.tables import count

    text = render_problems(checked.problems, style)
    if text:
        click.echo(text)
    files_text = count(checked.files, "file")
    errors = sum(p.is_error for p in checked.problems)
    warnings = len(checked.problems) - errors
    if checked.problems:
        found = [count(errors, "problem")] + ([count(warnings, "warning")] if warnings else [])
        inform(f"{', '.join(found)} in {files_text}")
    else:
        inform(f"{files_text} checked: no problem" if checked.files else "nothing to check here")
    if errors:
        sys.exit(EXIT_ERROR)
