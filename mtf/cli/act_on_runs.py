"""`mtf cancel`, `mtf retry` and `mtf preempt`."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

import click

from mtf.cli.terminal.confirm import can_ask, confirm
from mtf.cli.terminal.output import inform, open_here
from mtf.cli.terminal.table_output import print_table
from mtf.commands import act_on_runs
from mtf.commands.sync import sync_lock
from mtf.core.vocabulary.actions import Cancel, Resume
from mtf.errors import EXIT_ERROR
from mtf.report.selections import acted_lines, selection_table
from mtf.report.tables import count
from mtf.spec.set_overrides import parse_changes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mtf.commands.act_on_runs import Selection
    from mtf.core.vocabulary.ids import CommitId
    from mtf.core.vocabulary.records import RunRecord
    from mtf.reconcile.apply import Report

RUNS = click.argument("runs", nargs=-1, metavar="[RUN]...")
WHERE = click.option(
    "--where",
    multiple=True,
    metavar="EXPR",
    help="Select runs by a condition, like 'state=failed and lr>0.1'; given twice, both hold.",
)
_SET = click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change slurm.*, logging.* or checkpoint.* from this attempt on, like slurm.mem=16G.",
)
FORCE = click.option(
    "--force", is_flag=True, help="Also act on selected runs that will probably fail again."
)
YES = click.option("--yes", "-y", is_flag=True, help="Do not ask.")
DRY_RUN = click.option("--dry-run", is_flag=True, help="Show the runs, and do nothing.")
NO_PUSH = click.option("--no-push", is_flag=True, help="Do not push the ledger to the remote.")


@click.command()
@RUNS
@WHERE
@YES
@DRY_RUN
@NO_PUSH
@click.pass_obj
def cancel(
    folder: str,
    runs: tuple[str, ...],
    where: tuple[str, ...],
    yes: bool,
    dry_run: bool,
    no_push: bool,
) -> None:
    """Cancel runs for good.

    RUN is a run id, a unique prefix of one, an experiment, a job id, or a grid, which means all of
    its runs. Runs that are over stay as they are. At a terminal, a grid or a condition is asked
    about first; elsewhere --where needs --yes.
    It waits for no other mtf, and seconds for the executor: if that does not answer, the
    cancellation is recorded, and a sync ends the jobs.

    Example: mtf cancel digits_search

    Exit code: 0 cancelled or recorded, 1 errors, or no run that could be cancelled.
    """
    require_selection(runs, where)
    project = open_here(folder)
    if dry_run or where or (can_ask() and not yes):
        found = act_on_runs.preview(project, runs, where, act_on_runs.cancel_rules)
        ask = Asking("cancel", "cancelled", yes=yes, dry_run=dry_run)
        runs, where = ask.agreed(found, required=found.is_broad), ()
    report = act_on_runs.cancel(project, runs, where=where, publish=not no_push, say=inform)
    cancelled = [a.record for a in report.plan.actions if isinstance(a, Cancel)]
    for line in acted_lines("cancel", cancelled):
        inform(line)
    require_action(report, "cancelled")


@click.command()
@RUNS
@WHERE
@_SET
@FORCE
@YES
@DRY_RUN
@NO_PUSH
@click.pass_obj
def retry(
    folder: str,
    runs: tuple[str, ...],
    where: tuple[str, ...],
    changes: tuple[str, ...],
    force: bool,
    yes: bool,
    dry_run: bool,
    no_push: bool,
) -> None:
    """Start another attempt of runs that have ended.

    It resumes from the newest checkpoint of each RUN, and runs the RUN's own commit; mtf rerun runs
    the newest one. Completed runs are not retried. Of a grid or a condition, neither are runs
    whose configuration was refused or whose spec is gone. At a terminal, mtf asks first; elsewhere
    --where needs --yes.

    Example: mtf retry --where cause=host-oom --set slurm.mem=16G

    Exit code: 0 retried, 1 errors, or no run that could be retried, 3 partly done.
    """
    require_selection(runs, where)
    parse_changes(changes)  # a mistake in one is said before anything is asked
    project = open_here(folder)
    if dry_run or where or (can_ask() and not yes):
        rules = partial(act_on_runs.retry_rules, force=force)
        found = act_on_runs.preview(project, runs, where, rules)
        ask = Asking("retry", "retried", yes=yes, dry_run=dry_run)
        runs, where = ask.agreed(found, required=bool(where) or can_ask()), ()
    with sync_lock(project, wait_s=10):
        report = act_on_runs.retry(
            project,
            runs,
            where=where,
            changes=changes,
            force=force,
            publish=not no_push,
            say=inform,
        )
    retried = [a.record for a in report.plan.actions if isinstance(a, Resume)]
    for line in acted_lines("retry", retried, partial(_commit_text, tip=report.commit)):
        inform(line)
    require_action(report, "retried")
    sys.exit(report.exit_code)


def _commit_text(record: RunRecord, *, tip: CommitId) -> str:
    """Return the commit that a retried run executes, and the way to a newer one."""
    newer = f" (the branch is at {tip[:8]}: mtf rerun runs that)" if tip != record.commit else ""
    return f" at commit {record.commit[:8]}{newer}"


class Asking:
    """Shows the runs that a command has selected, and asks whether it is to go on."""

    def __init__(self, verb: str, done: str, *, yes: bool, dry_run: bool) -> None:
        self._verb, self._done = verb, done
        self._yes, self._dry_run = yes, dry_run

    def agreed(
        self, found: Selection, *, required: bool, at: CommitId | None = None
    ) -> tuple[str, ...]:
        """Return the ids of the runs to act on; with --dry-run, show them and exit.

        ``required``: without consent nothing is done. ``at`` is the commit that will be run.
        """
        for line in found.left_out:
            inform(line)
        if not found.runs:
            inform(f"error: no run was {self._done}")
            sys.exit(EXIT_ERROR)
        table = selection_table(found.runs, at=at)
        if self._dry_run:
            print_table(table)
            number = count(len(found.runs), "run")
            inform(f"{number} would be {self._done}. Nothing was done")
            sys.exit(0)
        if required:
            confirm(table, f"{self._verb} {count(len(found.runs), 'run')}", yes=self._yes)
        return tuple(record.run for record in found.runs)


def require_action(report: Report, done: str) -> None:
    """Exit with 1 if none of the runs was in a state in which it could be acted on."""
    if report.plan.is_empty:
        inform(f"error: no run was {done}")
        sys.exit(EXIT_ERROR)


def require_selection(runs: Sequence[str], where: Sequence[str]) -> None:
    """Refuse a command line that selects nothing.

    Raises:
        UsageError: there is neither a name nor a condition.
    """
    if not runs and not where:
        raise click.UsageError("name a RUN, or select runs: --where cause=host-oom")


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.pass_obj
def preempt(folder: str, runs: tuple[str, ...]) -> None:
    """Interrupt running runs; they checkpoint, requeue and resume.

    The effect on each RUN is that of a preemption by the cluster.
    """
    for record in act_on_runs.preempt(open_here(folder), runs):
        inform(f"preempt  {record.run} (job {record.job_id})")
