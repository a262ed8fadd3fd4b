"""`mtf run`."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mtf.cli.act_on_runs import NO_PUSH
from mtf.cli.terminal.output import inform, open_here, print_log, print_text
from mtf.cli.terminal.stop_signals import stoppable
from mtf.commands import run as commands
from mtf.core.vocabulary import json_text
from mtf.core.vocabulary.states import RunState
from mtf.errors import EXIT_PARTIAL
from mtf.ledger.codec import run_as_dict
from mtf.report.cost_words import used_text
from mtf.report.runs import best_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtf.core.vocabulary.records import RunRecord

EXIT_INTERRUPTED = 130
WAIT = click.option(
    "--wait/--no-wait",
    "wait",
    default=None,
    help="Follow the run to its end (default: only if it runs on this machine).",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print the run as a JSON object.")


@click.command()
@click.argument("spec")
@click.option("--member", metavar="NAME", help="The member of a grid to run.")
@click.option("--local", is_flag=True, help="Run it on this machine.")
@click.option(
    "--snapshot", is_flag=True, help="Pin the work tree as it is, uncommitted changes too."
)
@click.option("--fast", is_flag=True, help="Train a few steps and validate once, as a trial.")
@WAIT
@NO_PUSH
@JSON
@click.pass_obj
def run(
    folder: str,
    spec: str,
    member: str | None,
    local: bool,
    snapshot: bool,
    fast: bool,
    wait: bool | None,
    no_push: bool,
    as_json: bool,
) -> None:
    """Run one experiment at once, without mtf sync.

    SPEC is a file in experiments/, or an experiment's name. Its run has the code and the spec of
    HEAD; with uncommitted changes, mtf refuses unless --snapshot pins them too. The run is recorded
    like any other, and mtf sync --prune leaves it alone. If the same code has run with the same
    values, that run is shown instead; one that failed is run again.

    On this machine, its output is shown until it ends; Ctrl-C cancels it. On SLURM, mtf run returns
    once it is submitted; with --wait, Ctrl-C leaves it running.

    Example: mtf run experiments/first.yaml --local --fast

    Exit code: 0 submitted, or completed if it was followed; 1 errors; 3 it did not complete, or is
    not submitted yet; 130 interrupted.
    """
    project = open_here(folder)
    place = spec
    with suppress(OSError):
        place = str(Path(folder, spec)) if Path(folder, spec).exists() else spec
    with stoppable() as pause:
        started = commands.run(
            project,
            place,
            member=member,
            snapshot=snapshot,
            fast=fast,
            executor="local" if local else None,
            publish=not no_push,
            say=inform,
        )
        record = started.record
        if not started.is_new:
            inform(
                f"recorded {record.run}: the same code has these values already ({record.state})"
            )
        follower = commands.Follower(
            project,
            record.run,
            not no_push,
            log_error if as_json else print_log,
            log_error,
            inform,
        )
        code = started.exit_code
        is_here = record.executor == "local"
        if wait or (wait is None and is_here):
            record, code = followed(follower, record, pause, cancels=is_here)
        elif not record.is_over:
            inform(f"follow it: mtf logs -f {record.run}")
    if as_json:
        print_text(json_text.dumps({**run_as_dict(record), "is_new": started.is_new}, indent=2))
    sys.exit(code)


def log_error(text: str) -> None:
    """Print output of a job on standard error."""
    print_log(text, err=True)


def followed(
    follower: commands.Follower, record: RunRecord, pause: Callable[[float], bool], *, cancels: bool
) -> tuple[RunRecord, int]:
    """Follow a run to its end; return its record and the exit code.

    A stop request cancels it (``cancels``), or leaves it running.
    """
    if not record.is_over:
        record = follower.until_over(pause)
    if record.is_over:
        inform(end_text(record))
        return record, 0 if record.state is RunState.COMPLETED else EXIT_PARTIAL
    run = record.run
    if not cancels:
        inform(f"{run} goes on. mtf logs -f {run} follows it, mtf cancel {run} ends it")
        return record, EXIT_INTERRUPTED
    inform(f"stopping {run} (Ctrl-C again leaves it to end by itself)")
    waited = 0.0

    def limited(seconds: float) -> bool:
        nonlocal waited
        time.sleep(seconds)
        waited += seconds
        return waited > 60

    record = follower.cancel(inform, limited)
    if record.is_over:
        saved = "its checkpoints are kept, " if record.checkpoint else ""
        inform(f"{record.state} {run}: {saved}mtf retry {run} continues it")
    else:
        inform(
            f"the cancellation of {run} is recorded, and its job is ending. See mtf status {run}"
        )
    return record, EXIT_INTERRUPTED


def end_text(record: RunRecord) -> str:
    """Return the line about the end of a run: its state, where it ran, and what came of it."""
    where = record.attempt.node or "this machine"
    on = f"on {where} ({record.executor} job {record.job_id})"
    if record.state is not RunState.COMPLETED:
        return f"error: {record.run} is {record.state}: {record.reason}. It ran {on}"
    best = "" if record.best is None else f", best {best_text(record)}"
    used = f" ({used_text(record.resources)})" if record.resources else ""
    trial = " The trial fits: nothing of it counts as a result" if record.trial else ""
    return f"completed {record.run}: step {record.step}{best}, {on}{used}.{trial}"
