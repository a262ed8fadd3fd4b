"""`mtf sync`."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from mtf.cli.plan import plan
from mtf.cli.terminal.output import inform, open_here
from mtf.errors import foremost
from mtf.report.tables import count

if TYPE_CHECKING:
    from mtf.project.project import Project
    from mtf.reconcile.apply import Report
    from mtf.reconcile.gather import Options

_EXECUTORS = click.Choice(["slurm", "local", "auto"])


@click.command()
@click.option("--rev", help="Reconcile this revision instead of the tracked branch's tip.")
@click.option("--only", metavar="GLOB", help="Only experiments and grids of these names.")
@click.option("--executor", type=_EXECUTORS, help="Where new jobs go (default: mtf.yaml's).")
@click.option("--dry-run", is_flag=True, help="The same as mtf plan.")
@click.option("--prune", is_flag=True, help="Cancel the runs whose spec is gone.")
@click.option("--no-push", is_flag=True, help="Keep the ledger's commits in this clone.")
@click.option("--wait", is_flag=True, help="Stay until every run is over, showing progress.")
@click.option("--watch", is_flag=True, help="Reconcile again and again: the controller.")
@click.option(
    "--interval", type=click.FloatRange(min=0.1), help="Seconds between looks (--wait, --watch)."
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
    no_push: bool,
    wait: bool,
    watch: bool,
    interval: float | None,
    as_json: bool,
) -> None:
    """Make the cluster match the committed experiments, once or (--watch) for ever."""
    from mtf.commands.sync import sync_lock, sync_once, sync_until_over
    from mtf.reconcile.gather import Options

    if dry_run:
        ctx.invoke(plan, rev=rev, only=only, prune=prune, style="text", detailed_exitcode=False)
        return
    project = open_here(ctx.obj)
    wish = None if executor == "auto" else executor
    options = Options(rev=rev, only=only, executor=wish, prune=prune)
    if watch:
        once = [name for name, on in (("--rev", rev), ("--wait", wait), ("--json", as_json)) if on]
        if once:
            raise click.UsageError(f"{', '.join(once)}: not with --watch")
        _watch(project, options, publish=not no_push, interval=interval)
        return
    with sync_lock(project):
        report = sync_once(project, options, publish=not no_push, say=inform)
        for line in _told(report):
            inform(line)
    if wait:
        from mtf.cli.terminal.live_display import show_progress

        with show_progress() as update:
            sync_until_over(project, options, publish=not no_push, update=update, every=interval)
    if as_json:
        click.echo(json.dumps(_as_json(report), indent=2))
    sys.exit(report.exit_code)


def _watch(project: Project, options: Options, *, publish: bool, interval: float | None) -> None:
    from mtf.cli.terminal.stop_signals import stoppable
    from mtf.commands.controller.watch_loop import INTERVAL_S, watch

    def stamped(line: str) -> None:
        inform(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {line}")

    every = interval or INTERVAL_S
    with stoppable() as pause:
        watch(project, options, publish=publish, interval_s=every, say=stamped, pause=pause)


def _told(report: Report) -> list[str]:
    """Return what a person is to know of one sync."""
    from mtf.report.plans import verdict

    notes = [f"note     {note}" for note in report.plan.notes]
    if not report.problems:
        return [*notes, verdict(report.plan) if report.plan.is_empty else _done(report)]
    done = [] if report.plan.is_empty else [_done(report)]
    problems = count(len(report.problems), "problem")
    what = "What has mistakes is left out" if report.is_usable else "Nothing new is submitted"
    why = f"{what}, all else goes on: {problems} at {report.commit[:8]}"
    return [*notes, *done, why, *map(str, foremost(report.problems))]


def _done(report: Report) -> str:
    counts = {
        "submitted": len(report.submitted),
        "refused": len(report.refused),
        "unclear": len(report.uncertain),
        "put off": len(report.put_off),
        "unchanged": report.plan.unchanged,
        "held back": report.plan.held,
    }
    return "Synced: " + ", ".join(f"{n} {word}" for word, n in counts.items() if n)


def _as_json(report: Report) -> dict[str, object]:
    return {
        "commit": report.commit,
        "submitted": dict(report.submitted),
        "refused": dict(report.refused),
        "uncertain": dict(report.uncertain),
        "put_off": dict(report.put_off),
        "unchanged": report.plan.unchanged,
        "held": report.plan.held,
        "notes": list(report.plan.notes),
        "problems": [str(problem) for problem in report.problems],
    }
