"""`mtf reproduce`."""

from __future__ import annotations

import sys

import click

from mtf.cli.act_on_runs import NO_PUSH
from mtf.cli.run import followed, log_error
from mtf.cli.terminal.output import inform, open_here, print_log, print_text
from mtf.cli.terminal.stop_signals import stoppable
from mtf.commands.reproduce import again
from mtf.commands.run import Follower
from mtf.core.vocabulary import json_text
from mtf.core.vocabulary.states import RunState
from mtf.errors import EXIT_ERROR
from mtf.report.proofs import reproduction_json, reproduction_text


@click.command()
@click.argument("run")
@click.option("--with", "other", metavar="RUN", help="Compare with this run, and train nothing.")
@click.option("--local", is_flag=True, help="Run it on this machine.")
@click.option("--no-wait", is_flag=True, help="Submit it only; compare later by --with.")
@NO_PUSH
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as a JSON object.")
@click.pass_obj
def reproduce(
    folder: str,
    run: str,
    other: str | None,
    local: bool,
    no_wait: bool,
    no_push: bool,
    as_json: bool,
) -> None:
    """Run a run again from its pin, and compare the two bit for bit.

    The new run has the RUN's commit and configuration, from the beginning, and goes to the executor
    that the RUN was on. Compared are all metrics, step by step, and the final weights. If they
    differ, the first difference is shown, and what differs in packages, hardware and threads.

    Example: mtf reproduce digits_baseline

    Exit code: 0 reproduced, or submitted with --no-wait; 1 not reproduced, or errors; 130
    interrupted.
    """
    project = open_here(folder)
    first = again.run_to_reproduce(project, run)
    if other is not None:
        second = again.run_to_reproduce(project, other)
    else:
        executor = "local" if local else None
        show = log_error if as_json else print_log
        with stoppable() as pause:
            second = again.start(project, first, executor=executor, publish=not no_push, say=inform)
            if no_wait:
                inform(f"compare later: mtf reproduce {first.run} --with {second.run}")
                return
            follower = Follower(project, second.run, not no_push, show, log_error, inform)
            is_here = second.executor == "local"
            second, code = followed(follower, second, pause, cancels=is_here)
        if not second.is_over or (second.state is RunState.CANCELLED and code):
            inform(f"not compared. To do so later: mtf reproduce {first.run} --with {second.run}")
            sys.exit(code)
    verdict = again.verdict_on(project, first, second)
    text = json_text.dumps(reproduction_json(verdict), indent=2)
    print_text(text if as_json else reproduction_text(verdict))
    same_end = first.state is second.state
    if not same_end:
        inform(f"error: {first.run} is {first.state}, and {second.run} is {second.state}")
    sys.exit(0 if verdict.is_same and same_end else EXIT_ERROR)
