"""`mtf cancel`, `mtf retry` and `mtf preempt`."""

from __future__ import annotations

import sys

import click

from mtf.cli.output import open_here, say

_RUNS = click.argument("runs", nargs=-1, required=True, metavar="RUN...")
_NO_PUSH = click.option("--no-push", is_flag=True, help="Keep the ledger's commits in this clone.")


@click.command()
@_RUNS
@_NO_PUSH
@click.pass_obj
def cancel(folder: str, runs: tuple[str, ...], no_push: bool) -> None:
    """End each RUN for good (a grid's name means all its runs)."""
    from mtf.commands import act
    from mtf.commands.sync import sync_lock

    project = open_here(folder)
    with sync_lock(project, wait_s=10):
        report = act.cancel(project, runs, publish=not no_push, say=say)
    for action in report.plan.actions:
        say(f"cancel   {action.run}")


@click.command()
@_RUNS
@_NO_PUSH
@click.pass_obj
def retry(folder: str, runs: tuple[str, ...], no_push: bool) -> None:
    """Give each RUN that is over another attempt, from its newest checkpoint on."""
    from mtf.commands import act
    from mtf.commands.sync import sync_lock

    project = open_here(folder)
    with sync_lock(project, wait_s=10):
        report = act.retry(project, runs, publish=not no_push, say=say)
    sys.exit(report.exit_code)


@click.command()
@_RUNS
@click.pass_obj
def preempt(folder: str, runs: tuple[str, ...]) -> None:
    """Interrupt each RUN as preemption would: it checkpoints, requeues and goes on."""
    from mtf.commands import act

    for record in act.preempt(open_here(folder), runs):
        say(f"preempt  {record.run} (job {record.job_id})")
