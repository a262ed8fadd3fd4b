"""`mtf sync`."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from mtf.cli.plan import EXECUTORS, named_executor, plan
from mtf.cli.terminal.confirm import can_ask, confirm
from mtf.cli.terminal.output import inform, open_here, print_text
from mtf.cli.terminal.stop_signals import stoppable
from mtf.core.vocabulary import json_text
from mtf.errors import EXIT_PARTIAL, abridged
from mtf.reconcile.gather import Options
from mtf.report.outcomes import (
    counts_text,
    done_as_json,
    done_counts,
    done_lines,
    ended_runs,
    incomplete_text,
)
from mtf.report.plans import verdict
from mtf.report.selections import selection_table
from mtf.report.tables import count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mtf.core.vocabulary.records import RunRecord
    from mtf.project.project import Project
    from mtf.reconcile.apply import Report


@click.command()
@click.option("--rev", help="Reconcile this revision, not the tip of the tracked branch.")
@click.option("--only", metavar="GLOB", help="Only experiments and grids whose names match.")
@click.option(
    "--executor", type=EXECUTORS, help="Executor of new jobs (default: the one in mtf.yaml)."
)
@click.option("--dry-run", is_flag=True, help="Show what would be done, like mtf plan.")
@click.option("--prune", is_flag=True, help="Also cancel the runs whose spec is gone.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask before --prune cancels runs.")
@click.option("--no-push", is_flag=True, help="Do not push the ledger to the remote.")
@click.option(
    "--wait", is_flag=True, help="Keep reconciling until every run is over, and show progress."
)
@click.option("--watch", is_flag=True, help="Keep reconciling until stopped: be the controller.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1),
    help="Seconds between two syncs (--wait, --watch).",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
@click.pass_context
def sync(
    ctx: click.Context,
    rev: str | None,
    only: str | None,
    executor: str | None,
    dry_run: bool,
    prune: bool,
    yes: bool,
    no_push: bool,
    wait: bool,
    watch: bool,
    interval: float | None,
    as_json: bool,
) -> None:
    """Make the cluster match the committed experiments.

    Submits new runs, continues interrupted ones, and records what has happened since the last sync.

    At a terminal, --prune asks before it cancels; elsewhere it does not.

    Example: mtf sync --only 'digits_*' --wait

    Exit code: 0 done, 1 errors, 3 partly done, or a run that --wait waited for did not complete, 4
    another mtf holds the lock of this clone.
    """
    from mtf.commands.sync import sync_lock, sync_with_notes, to_prune

    if dry_run:
        ctx.invoke(
            plan,
            rev=rev,
            only=only,
            executor=executor,
            prune=prune,
            style="text",
            detailed_exitcode=False,
        )
        return
    project = open_here(ctx.obj)
    options = Options(rev=rev, only=only, executor=named_executor(executor), prune=prune)
    if watch:
        given = [name for name, on in (("--rev", rev), ("--wait", wait), ("--json", as_json)) if on]
        if given:
            raise click.UsageError(f"{', '.join(given)} cannot be combined with --watch")
        _watch(project, options, publish=not no_push, interval=interval)
        return
    if prune and not yes and can_ask():
        options = _agreed(options, to_prune(project, options))
    with sync_lock(project):
        report = sync_with_notes(project, options, publish=not no_push, say=inform)
        for line in _summary(report):
            inform(line)
    unfinished = ""
    if wait:
        from mtf.commands.wait_for_runs import sync_until_over, together
        from mtf.framework.live_display import show_progress

        with show_progress() as update:
            waited = sync_until_over(
                project,
                options,
                publish=not no_push,
                update=update,
                every=interval,
                seen=ended_runs(report.done),
            )
        report = together(report, waited.report) if waited.report else report
        if unfinished := incomplete_text(waited.runs):
            inform(f"error: {unfinished}")
    if as_json:
        print_text(json_text.dumps(_as_json(report), indent=2))
    sys.exit(report.exit_code or (EXIT_PARTIAL if unfinished else 0))


def _agreed(options: Options, records: Sequence[RunRecord]) -> Options:
    """Show the runs that a sync would prune; return the options to prune them, if agreed."""
    if records:
        confirm(selection_table(records), f"cancel {count(len(records), 'run')}", yes=False)
    return replace(options, only_prune=frozenset(record.run for record in records))


def _watch(project: Project, options: Options, *, publish: bool, interval: float | None) -> None:
    from mtf.commands.controller.watch_loop import INTERVAL_S, watch

    def stamped(line: str) -> None:
        inform(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {line}")

    every = interval or INTERVAL_S
    with stoppable() as pause:
        watch(project, options, publish=publish, interval_s=every, say=stamped, pause=pause)


def _summary(report: Report) -> list[str]:
    """Return the lines that sum up one sync: notes, deeds, and mistakes in what is committed."""
    notes = [*(f"note: {note}" for note in report.plan.notes), *done_lines(report.done)]
    if report.placement is not None:
        notes.append(f"new jobs: {report.placement.text}")
    if not report.problems:
        return [*notes, verdict(report.plan) if report.plan.is_empty else _counts(report)]
    counts = [] if report.plan.is_empty else [_counts(report)]
    problems = count(len(report.problems), "problem")
    effect = (
        "Specs with errors were skipped; everything else was synced"
        if report.is_usable
        else "Nothing new was submitted; recorded runs were synced"
    )
    heading = f"error: {problems} at {report.commit[:8]}. {effect}:"
    return [*notes, *counts, heading, *map(str, abridged(report.problems))]


def _counts(report: Report) -> str:
    plan = report.plan
    others = {
        "unchanged": plan.unchanged,
        "waiting for others": plan.waiting,
        "waiting for SLURM": plan.waiting_for_slurm,
        "held back": plan.held,
    }
    return f"Synced: {counts_text({**done_counts(report.done), **others})}"


def _as_json(report: Report) -> dict[str, object]:
    return {
        "commit": report.commit,
        **done_as_json(report.done),
        "unchanged": report.plan.unchanged,
        "executor": report.placement and report.placement.executor,
        "cluster": report.placement and report.placement.cluster,
        "waiting": report.plan.waiting,
        "waiting_for_slurm": report.plan.waiting_for_slurm,
        "held": report.plan.held,
        "notes": list(report.plan.notes),
        "problems": [str(problem) for problem in report.problems],
    }
