"""`mtf status`, `show`, `logs`, `diff` and `results`: commands that only read."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import click

from mtf.cli.terminal.output import (
    inform,
    open_here,
    print_log,
    print_plan,
    print_text,
)
from mtf.cli.terminal.table_output import print_table
from mtf.core.vocabulary import json_text
from mtf.core.vocabulary.records import as_dict
from mtf.framework.live_display import show_progress
from mtf.report.runs import results_table, status_table, summary, times_of_old
from mtf.report.tables import render_csv, render_markdown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mtf.commands.show_runs import Status
    from mtf.core.vocabulary.records import RunRecord


_EVERY_S = 2.0  # between two looks of a watch; an answer as old will do for it
_RECORDED = click.option(
    "--recorded", is_flag=True, help="Answer from git alone: ask no executor, read no journal."
)


@click.command()
@click.argument("globs", nargs=-1, metavar="[GLOB]...")
@click.option("--watch", is_flag=True, help="Redraw every 2 seconds, until interrupted.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects, one per run.")
@click.option("--wide", is_flag=True, help="Show more columns and shorten nothing.")
@click.option("--all", "superseded", is_flag=True, help="Show runs that mtf rerun superseded, too.")
@_RECORDED
@click.pass_obj
def status(
    folder: str,
    globs: tuple[str, ...],
    watch: bool,
    as_json: bool,
    wide: bool,
    superseded: bool,
    recorded: bool,
) -> None:
    """List runs: state, job, progress, checkpoint and best metric.

    GLOB matches run ids, names and job ids. States are those of now: the executors and the runs'
    journals are asked. Runs that cannot be seen from here are shown as they were last seen, and
    column AS OF says when.

    Example: mtf status 'digits_*'
    """
    from mtf.commands.show_runs import as_json_list, no_match, status_of

    project = open_here(folder)
    within_s = _EVERY_S if watch else 0.0
    found = status_of(project, globs, recorded=recorded, superseded=superseded, within_s=within_s)
    if not found.rows:
        inform(no_match(found.ledger, globs))
    if watch:
        _watch(
            partial(
                status_of,
                project,
                globs,
                recorded=recorded,
                superseded=superseded,
                within_s=within_s,
            )
        )
        return
    if as_json:
        print_text(as_json_list(found.rows))
    elif found.rows:
        old = {} if recorded else times_of_old(found.rows)
        print_table(status_table(found.records, datetime.now(UTC), wide=wide, old=old))
        print_text(summary(found.records))
    if found.rows or not globs:
        for note in found.notes:
            inform(f"note: {note}")


def _watch(look: Callable[[], Status]) -> None:
    with show_progress() as update:
        while True:
            update(look().records)
            time.sleep(_EVERY_S)


@click.command()
@click.argument("run")
@click.option("--json", "as_json", is_flag=True, help="Print a list with one object.")
@click.option("--script", is_flag=True, help="Print the script of its newest job, nothing else.")
@_RECORDED
@click.pass_obj
def show(folder: str, run: str, as_json: bool, script: bool, recorded: bool) -> None:
    """Show one run with its attempts, history and configuration.

    Its state is that of now, and its attempts show each time that a job was requeued.

    RUN is a run id, a unique prefix of one, an experiment (its newest run) or a job id.
    """
    from mtf.commands.show_runs import as_json_list, page_of, script_of

    if script:
        print_text(script_of(open_here(folder), run), newline=False)
        return
    row, page = page_of(open_here(folder), run, recorded=recorded)
    print_text(as_json_list([row]) if as_json else page)


@click.command()
@click.argument("run")
@click.option("-f", "--follow", is_flag=True, help="Keep printing until the run is over.")
@click.option("--err", is_flag=True, help="Print standard error instead of standard output.")
@click.pass_obj
def logs(folder: str, run: str, follow: bool, err: bool) -> None:
    """Print the output of a run's newest job.

    RUN is a run id, a unique prefix of one, an experiment (its newest run) or a job id.
    """
    from mtf.commands.show_runs import follow_output, output_of

    project = open_here(folder)
    if not follow:
        text = output_of(project, run, err=err)
        print_log(text)
        if not text:
            stream = "stderr" if err else "stdout (errors are on stderr: mtf logs --err)"
            inform(f"{run}: the newest job wrote nothing to {stream}")
        return
    for text in follow_output(project, run, err=err):
        print_log(text)


@click.command()
@click.argument("a")
@click.argument("b")
@click.option("--json", "as_json", is_flag=True, help="Print one object, see docs/review.md.")
@click.pass_obj
def diff(folder: str, a: str, b: str, as_json: bool) -> None:
    """Compare two runs, specs or revisions.

    A and B are each a run, a spec (path, name or REV:name) or a revision. Differences in
    configuration, code, environment and metrics are shown.

    Example: mtf diff digits_baseline HEAD~1:digits_baseline
    """
    from mtf.commands import diff as commands
    from mtf.report import diffs

    found = commands.diff(open_here(folder), a, b)
    if found.review is not None:
        render = diffs.revisions_json if as_json else diffs.revisions_text
        print_plan(render(found.review, found.files))
    if found.contrast is not None:
        render_contrast = diffs.contrast_json if as_json else diffs.contrast_text
        print_plan(render_contrast(found.contrast, found.files))


@click.command()
@click.argument("name")
@click.option(
    "--format",
    "style",
    type=click.Choice(["table", "csv", "json", "markdown"]),
    default="table",
    show_default=True,
    help="How to print the results.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.pass_obj
def results(folder: str, name: str, style: str, as_json: bool) -> None:
    """List the results of a grid or an experiment, best first.

    Example: mtf results digits_search --format csv
    """
    from mtf.commands.show_runs import results_of

    records = results_of(open_here(folder), name)
    table = results_table(records)
    match "json" if as_json else style:
        case "json":
            print_text(results_as_json(records))
        case "csv":
            print_text(render_csv(table), newline=False)
        case "markdown":
            print_text(render_markdown(table))
        case _:
            print_table(table)


def results_as_json(records: Iterable[RunRecord]) -> str:
    """Return the results of runs as a JSON list."""
    return json_text.dumps([_result(r) for r in records], indent=2)


def _result(record: RunRecord) -> dict[str, object]:
    return {
        "run": record.run,
        "state": record.state,
        "parameters": dict(record.parameters),
        "metrics": dict(record.metrics),
        "best": record.best and as_dict(record.best),
        "checkpoint": record.checkpoint and as_dict(record.checkpoint),
        "resources": record.resources,
    }
