"""The `mtf` program: finds the command, and turns errors into text and exit codes."""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn

import click

from mtf.distribution import DISTRIBUTION
from mtf.errors import EXIT_ERROR, EXIT_USAGE, MtfError

if TYPE_CHECKING:
    from collections.abc import Mapping

# Modules are imported when their command runs: `mtf --help` takes milliseconds, hooks too.
COMMANDS: Mapping[str, tuple[str, str]] = {
    "init": ("mtf.cli.init:init", "Scaffold an experiments repository."),
    "validate": ("mtf.cli.validate:validate", "Check specs and settings; every error at once."),
    "verify-resume": (
        "mtf.cli.verify_resume:verify_resume",
        "Prove that a training, once interrupted, ends in the same bits.",
    ),
    "plan": ("mtf.cli.plan:plan", "Show what a sync would do, or what a branch would add."),
    "sync": ("mtf.cli.sync:sync", "Make the cluster match the committed experiments."),
    "status": (
        "mtf.cli.show_runs:status",
        "Show every run: state, job, progress, checkpoint, best.",
    ),
    "show": ("mtf.cli.show_runs:show", "Show one run with its history."),
    "logs": ("mtf.cli.show_runs:logs", "Print a run's output."),
    "diff": ("mtf.cli.show_runs:diff", "Show what differs between runs, specs or revisions."),
    "results": ("mtf.cli.show_runs:results", "Show a grid's outcomes, the best first."),
    "cancel": ("mtf.cli.act_on_runs:cancel", "End runs for good."),
    "retry": ("mtf.cli.act_on_runs:retry", "Give runs that are over another attempt."),
    "preempt": (
        "mtf.cli.act_on_runs:preempt",
        "Interrupt runs; they checkpoint, requeue and go on.",
    ),
    "doctor": (
        "mtf.cli.doctor:doctor",
        "Check repository, cluster, environment, ledger and runs; say how to repair each.",
    ),
    "schema": ("mtf.cli.init:schema", "Print the JSON Schema of specs, for editors."),
    "controller": (
        "mtf.cli.controller:controller",
        "Who controls which cluster; a systemd unit or a crontab line for it.",
    ),
    "hooks": ("mtf.cli.hooks:hooks", "Install the git hooks."),
    "comment": ("mtf.cli.post_comment:comment", "Post a plan to the pull request; for CI."),
}


class LazyGroup(click.Group):
    """Commands that are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names in the order people meet them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Return a command, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name][0].split(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list of commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-C", "folder", type=click.Path(file_okay=False), default=".", help="Work in this folder."
)
@click.version_option(package_name=DISTRIBUTION)
@click.pass_context
def cli(ctx: click.Context, folder: str) -> None:
    """A git repository as the control plane for machine-learning experiments on SLURM.

    Commit an experiment or a grid under experiments/, then: mtf plan, mtf sync, mtf status.
    """
    ctx.obj = folder


def main() -> NoReturn:
    """Run the command line and exit."""
    # pydantic would look through all installed packages for plugins: a tenth of a short command
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    gc.set_threshold(100_000)  # most commands end before they leave that many cycles
    atexit.register(gc.freeze)  # else the interpreter looks through all modules before it ends
    try:
        code = cli.main(standalone_mode=False)
    except click.UsageError as e:
        e.show()
        code = EXIT_USAGE
    except click.exceptions.Exit as e:
        code = e.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        code = 130
    except BrokenPipeError:  # `mtf status | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except MtfError as e:
        click.echo(_for_people(e), err=True)
        code = e.exit_code
    except Exception:  # noqa: BLE001  # a bug: say so, with what to paste into an issue
        traceback.print_exc()
        click.echo("mtf: this is a bug in mtf. Please report it with the lines above", err=True)
        code = EXIT_ERROR
    sys.exit(code if isinstance(code, int) else 0)


def _for_people(error: MtfError) -> str:
    from mtf.errors import SpecError

    text = str(error)
    return text if isinstance(error, SpecError) else f"mtf: {text}"
