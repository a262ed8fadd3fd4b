"""`mtf cancel`, `mtf retry` and `mtf preempt`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from mtf.cli.terminal.output import inform, open_here
from mtf.commands import act_on_runs
from mtf.commands.sync import sync_lock
from mtf.errors import EXIT_ERROR

if TYPE_CHECKING:
    from mtf.reconcile.apply import Report

_RUNS = click.argument("runs", nargs=-1, metavar="[RUN]...")
_WHERE = click.option(
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
_NO_PUSH = click.option("--no-push", is_flag=True, help="Do not push the ledger to the remote.")


@click.command()
@_RUNS
@_WHERE
@_NO_PUSH
@click.pass_obj
def cancel(folder: str, runs: tuple[str, ...], where: tuple[str, ...], no_push: bool) -> None:
    """Cancel runs for good.

    RUN is a run id, a unique prefix of one, an experiment, a job id, or a grid, which means all of
    its runs. Runs that are over stay as they are.

    Example: mtf cancel digits_search

    Exit code: 0 cancelled, 1 errors, or no run that could be cancelled.
    """
    _require_selection(runs, where)
    project = open_here(folder)
    with sync_lock(project, wait_s=10):
        report = act_on_runs.cancel(project, runs, where=where, publish=not no_push, say=inform)
    for action in report.plan.actions:
        inform(f"cancel   {action.run}")
    _require_action(report, "cancelled")


@click.command()
@_RUNS
@_WHERE
@_SET
@_NO_PUSH
@click.pass_obj
def retry(
    folder: str,
    runs: tuple[str, ...],
    where: tuple[str, ...],
    changes: tuple[str, ...],
    no_push: bool,
) -> None:
    """Start another attempt of runs that have ended.

    It resumes from the newest checkpoint of each RUN. Completed runs are not retried: to train
    again, raise `generation` in the spec.

    Example: mtf retry --where cause=host-oom --set slurm.mem=16G

    Exit code: 0 retried, 1 errors, or no run that could be retried, 3 partly done.
    """
    _require_selection(runs, where)
    project = open_here(folder)
    with sync_lock(project, wait_s=10):
        report = act_on_runs.retry(
            project, runs, where=where, changes=changes, publish=not no_push, say=inform
        )
    _require_action(report, "retried")
    sys.exit(report.exit_code)


def _require_action(report: Report, done: str) -> None:
    """Exit with 1 if none of the runs was in a state in which it could be acted on."""
    if report.plan.is_empty:
        inform(f"error: no run was {done}")
        sys.exit(EXIT_ERROR)


def _require_selection(runs: tuple[str, ...], where: tuple[str, ...]) -> None:
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
