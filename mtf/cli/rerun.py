"""`mtf rerun`."""

from __future__ import annotations

import sys
from functools import partial

import click

from mtf.cli.act_on_runs import (
    DRY_RUN,
    FORCE,
    NO_PUSH,
    RUNS,
    WHERE,
    YES,
    Asking,
    require_action,
    require_selection,
)
from mtf.cli.terminal.output import inform, open_here
from mtf.commands import act_on_runs
from mtf.commands import rerun as commands
from mtf.commands.sync import sync_lock
from mtf.core.vocabulary.actions import Submit
from mtf.report.selections import acted_lines


@click.command()
@RUNS
@WHERE
@FORCE
@YES
@DRY_RUN
@NO_PUSH
@click.pass_obj
def rerun(
    folder: str,
    runs: tuple[str, ...],
    where: tuple[str, ...],
    force: bool,
    yes: bool,
    dry_run: bool,
    no_push: bool,
) -> None:
    """Run experiments again with the newest code of the branch.

    Each RUN is over. Its experiment is submitted again, at the tip of the tracked branch and from
    the beginning. The RUN is superseded: mtf status hides it without --all, the ledger keeps it. Of
    a grid or a condition, runs whose configuration was refused are left out. mtf asks first;
    where it cannot, it needs --yes.

    Example: mtf rerun --where state=failed

    Exit code: 0 submitted, 1 errors, or no run that could be rerun, 3 partly done.
    """
    require_selection(runs, where)
    project = open_here(folder)
    rules = partial(commands.rerun_rules, force=force)
    found = act_on_runs.preview(project, runs, where, rules)
    for note in commands.newer_notes(project, found):
        inform(f"note: {note}")
    ask = Asking("rerun", "rerun", yes=yes, dry_run=dry_run)
    agreed = ask.agreed(found, required=True, at=found.tip)
    with sync_lock(project, wait_s=10):
        report = commands.rerun(project, agreed, force=force, publish=not no_push, say=inform)
    old = [a.supersedes for a in report.plan.actions if isinstance(a, Submit) and a.supersedes]
    for line in acted_lines("rerun", old, lambda _: f" at commit {report.commit[:8]}"):
        inform(line)
    require_action(report, "rerun")
    sys.exit(report.exit_code)
