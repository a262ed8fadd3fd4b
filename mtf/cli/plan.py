"""`mtf plan`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from mtf.cli.terminal.output import inform, open_here, print_plan, print_text
from mtf.errors import EXIT_CHANGES, EXIT_ERROR
from mtf.reconcile.gather import Options
from mtf.report import plans

if TYPE_CHECKING:
    from mtf.commands.plan import Planned

EXECUTORS = click.Choice(["slurm", "local", "auto"])


def named_executor(option: str | None) -> str | None:
    """Return the executor that an option names, None for that of the settings."""
    return None if option == "auto" else option


@click.command()
@click.option(
    "--base", help="Show what merging HEAD (or --rev) into this branch would add instead."
)
@click.option(
    "--rev", help="Plan for this revision (default: the tracked branch; HEAD with --base)."
)
@click.option("--only", metavar="GLOB", help="Only experiments and grids whose names match.")
@click.option(
    "--executor", type=EXECUTORS, help="Executor of new jobs (default: the one in mtf.yaml)."
)
@click.option("--prune", is_flag=True, help="Include what mtf sync --prune would cancel.")
@click.option(
    "--format",
    "style",
    type=click.Choice(["text", "markdown", "json"]),
    default="text",
    show_default=True,
    help="How to print the plan.",
)
@click.option("--scripts", is_flag=True, help="Also print the scripts of the new jobs.")
@click.option(
    "--detailed-exitcode", is_flag=True, help="Exit with 2 when there is something to do."
)
@click.pass_obj
def plan(
    folder: str,
    base: str | None,
    rev: str | None,
    only: str | None,
    executor: str | None,
    prune: bool,
    style: str,
    scripts: bool,
    detailed_exitcode: bool,
) -> None:
    """Show what mtf sync would do, or what a branch would add.

    Nothing is submitted or written.

    Example, for a pull request: mtf plan --base main

    Exit code: 0 no errors, 1 errors, 2 something to do (only with --detailed-exitcode).
    """
    if base is not None:
        if only is not None or prune or executor is not None or scripts:
            raise click.UsageError(
                "--only, --executor, --prune and --scripts cannot be combined with --base"
            )
        sys.exit(_review(folder, base, rev or "HEAD", style, detailed=detailed_exitcode))
    from mtf.commands.plan import left_out_here, plan_sync

    project = open_here(folder)
    found = plan_sync(
        project,
        Options(rev=rev, only=only, executor=named_executor(executor), prune=prune),
        scripts=scripts,
    )
    _print(found, style, with_scripts=scripts)
    if style == "text" and found.plan.is_empty and rev is None:
        for note in left_out_here(project):
            inform(f"note: {note}")
    if found.is_doubtful:
        sys.exit(EXIT_ERROR)
    if detailed_exitcode and not found.plan.is_empty:
        sys.exit(EXIT_CHANGES)


def _print(found: Planned, style: str, *, with_scripts: bool) -> None:
    parts = found.plan, found.specs, found.problems, found.placement
    scripts = found.scripts if with_scripts else None
    match style:
        case "markdown":
            print_text(plans.plan_markdown(*parts, scripts), newline=False)
        case "json":
            print_text(
                plans.plan_json(found.plan, found.commit, found.problems, found.placement, scripts)
            )
        case _:
            print_plan(plans.plan_text(*parts))
            if scripts:
                print_text(f"\n{plans.scripts_text(scripts)}", newline=False)


def _review(folder: str, base: str, rev: str, style: str, *, detailed: bool) -> int:
    """Print what merging ``rev`` into ``base`` would change, and return the exit code."""
    from mtf.commands.review import compare
    from mtf.report import comments, reviews

    review = compare(open_here(folder), base, rev)
    match style:
        case "markdown":
            print_text(comments.comment(review), newline=False)
        case "json":
            print_text(reviews.review_json(review))
        case _:
            print_plan(reviews.review_text(review))
    if review.is_refused:
        return EXIT_ERROR
    return EXIT_CHANGES if detailed and not review.is_empty else 0
