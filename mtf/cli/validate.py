"""`mtf validate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mtf.cli.terminal.output import inform, print_text
from mtf.errors import EXIT_ERROR
from mtf.report.problems import render_problems
from mtf.report.tables import count

if TYPE_CHECKING:
    from mtf.commands.validate import Checked


@click.command()
@click.argument(
    "files", nargs=-1, type=click.Path(dir_okay=True, path_type=Path), metavar="[FILE]..."
)
@click.option(
    "--staged",
    is_flag=True,
    help="Check what is staged for the next commit, not the files on disk.",
)
@click.option("--rev", help="Check a revision, not the files on disk.")
@click.option(
    "--range",
    "span",
    metavar="A..B",
    help="Check the specs that changed from A to B, as they are in B.",
)
@click.option(
    "--feasibility", is_flag=True, help="Also ask SLURM whether it would accept the jobs."
)
@click.option(
    "--format",
    "style",
    type=click.Choice(["text", "json", "github"]),
    default="text",
    show_default=True,
    help="How to print the mistakes; github: as annotations.",
)
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
    """Check specs and settings, and list every mistake.

    By default all specs on disk and mtf.yaml are checked. Mistakes are printed as
    path:line:column: message; warnings are marked as such and block nothing.

    Example: mtf validate experiments/first.yaml

    Exit code: 0 no errors, 1 errors.
    """
    from mtf.commands import validate as checks

    if sum((bool(files), staged, rev is not None, span is not None)) > 1:
        raise click.UsageError("give files or one of --staged, --rev and --range, not several")
    if staged and feasibility:
        raise click.UsageError(
            "--feasibility cannot be combined with --staged: hooks never contact SLURM"
        )
    where = Path(folder)
    query = checks.SlurmQuery.FEASIBILITY if feasibility else checks.SlurmQuery.FACTS
    if staged:
        checked = checks.staged(where)
    elif rev is not None:
        checked = checks.revision(where, rev, query)
    elif span is not None:
        checked = checks.changed(where, span, query)
    else:
        checked = checks.on_disk(where, files, query)
    report_checked(checked, style)


def report_checked(checked: Checked, style: str) -> None:
    """Print the problems that were found; exit with 1 if one is an error."""
    if style == "github":
        checked = checked.from_top()  # annotations name files of the repository
    text = render_problems(checked.problems, style)
    if text:
        print_text(text)
    files_text = count(checked.files, "file")
    errors = sum(p.is_error for p in checked.problems)
    warnings = len(checked.problems) - errors
    if checked.problems:
        counts = [count(n, noun) for n, noun in ((errors, "error"), (warnings, "warning")) if n]
        inform(f"{', '.join(counts)} in {files_text}")
    else:
        inform(f"{files_text} checked: no problems" if checked.files else "no specs to check here")
    if errors:
        sys.exit(EXIT_ERROR)
