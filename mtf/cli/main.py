"""The `mtf` program: finds the command to run, and turns errors into messages and exit codes."""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn

import click

from mtf.cli.terminal.output import inform
from mtf.core.vocabulary.spelling import did_you_mean
from mtf.distribution import DISTRIBUTION
from mtf.errors import EXIT_ERROR, EXIT_USAGE, MtfError, SpecError, storage_error

if TYPE_CHECKING:
    from collections.abc import Mapping

EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it

# Name, "module:function" and first line of help of each command, in the order newcomers meet them.
# A module is imported when its command runs, so that `mtf --help` and hooks start in milliseconds.
SECTIONS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "Set up": {
        "init": (
            "mtf.cli.init:init",
            "Create an experiments repository, or complete an existing one.",
        ),
        "doctor": (
            "mtf.cli.doctor:doctor",
            "Find what is wrong with repository, cluster, ledger or runs.",
        ),
        "hooks": ("mtf.cli.hooks:hooks", "Install or remove the git hooks that check specs."),
        "schema": (
            "mtf.cli.init:schema",
            "Print the JSON Schema of specs or settings, for editors.",
        ),
    },
    "Write experiments": {
        "validate": (
            "mtf.cli.validate:validate",
            "Check specs and settings, and list every mistake.",
        ),
        "reproduce": (
            "mtf.cli.reproduce:reproduce",
            "Run a run again from its pin, and compare the two bit for bit.",
        ),
        "verify-resume": (
            "mtf.cli.verify_resume:verify_resume",
            "Prove that an interrupted training resumes bit for bit.",
        ),
    },
    "Run experiments": {
        "plan": ("mtf.cli.plan:plan", "Show what mtf sync would do, or what a branch would add."),
        "sync": ("mtf.cli.sync:sync", "Make the cluster match the committed experiments."),
        "run": ("mtf.cli.run:run", "Run one experiment at once, without mtf sync."),
        "controller": (
            "mtf.cli.controller:controller",
            "Show which controller serves a cluster, or keep one running.",
        ),
    },
    "Look at runs": {
        "status": (
            "mtf.cli.show_runs:status",
            "List runs: state, job, progress, checkpoint and best metric.",
        ),
        "show": (
            "mtf.cli.show_runs:show",
            "Show one run with its attempts, history and configuration.",
        ),
        "logs": ("mtf.cli.show_runs:logs", "Print the output of a run's newest job."),
        "diff": ("mtf.cli.show_runs:diff", "Compare two runs, specs or revisions."),
        "results": (
            "mtf.cli.show_runs:results",
            "List the results of a grid or an experiment, best first.",
        ),
        "checkpoint": (
            "mtf.cli.checkpoint.group:checkpoint",
            "Do something with the checkpoints of a run.",
        ),
    },
    "Act on runs": {
        "cancel": ("mtf.cli.act_on_runs:cancel", "Cancel runs for good."),
        "retry": ("mtf.cli.act_on_runs:retry", "Start another attempt of runs that have ended."),
        "rerun": (
            "mtf.cli.rerun:rerun",
            "Run experiments again with the newest code of the branch.",
        ),
        "preempt": (
            "mtf.cli.act_on_runs:preempt",
            "Interrupt running runs; they checkpoint, requeue and resume.",
        ),
    },
    "For CI": {
        "comment": (
            "mtf.cli.post_comment:comment",
            "Post a plan as a comment on the pull request, or update it.",
        ),
    },
}
COMMANDS: Mapping[str, tuple[str, str]] = {
    name: entry for section in SECTIONS.values() for name, entry in section.items()
}


class LazyGroup(click.Group):
    """Commands that are imported when they are called."""

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; end quietly if the reader of its output is gone (`mtf status | head`)."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # click would exit with 1
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(0)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return a command."""
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name][0].split(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the first argument names; suggest one if it is unknown."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"No such command {name!r}. {did_you_mean(name, COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list of commands, section by section, without importing any."""
        width = max(map(len, COMMANDS))
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                rows = [(name.ljust(width), text) for name, (_, text) in commands.items()]
                formatter.write_dl(rows)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-C",
    "folder",
    metavar="FOLDER",
    type=click.Path(file_okay=False),
    default=".",
    help="Run as if mtf was started in FOLDER.",
)
@click.version_option(package_name=DISTRIBUTION)
@click.pass_context
def cli(ctx: click.Context, folder: str) -> None:
    """Run machine-learning experiments on SLURM from what is committed in a git repository.

    Commit an experiment or a grid under experiments/, then: mtf plan, mtf sync, mtf status.
    """
    ctx.obj = folder


def main() -> NoReturn:
    """Run the command line and exit."""
    # pydantic would search all installed packages for plugins: a tenth of a short command's time
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    gc.set_threshold(100_000)  # most commands end before they create that many cycles
    atexit.register(gc.freeze)  # otherwise the last collection at exit visits every module
    try:
        code = cli.main(standalone_mode=False)
    except click.UsageError as e:
        _show_usage_error(e)
        code = EXIT_USAGE
    except click.exceptions.Exit as e:
        code = e.exit_code
    except (click.Abort, KeyboardInterrupt):
        inform("interrupted")
        code = EXIT_INTERRUPTED
    except MtfError as e:
        inform(_message(e))
        code = e.exit_code
    except Exception as e:  # noqa: BLE001  # a full disk, or a bug
        code = _report(e)
    sys.exit(code if isinstance(code, int) else 0)


def _report(error: Exception) -> int:
    """Print an unexpected error: of the disk in one sentence, a bug with what to paste."""
    explained = storage_error(error) if isinstance(error, OSError) else None
    if explained is not None:
        inform(_message(explained))
    else:
        inform(traceback.format_exc())
        inform("error: this is a bug in mtf. Please report it with the lines above")
    return EXIT_ERROR


def _show_usage_error(error: click.UsageError) -> None:
    """Print a usage error the way all errors look: ``error: ...``, last."""
    if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):  # click < 8.2: none
        error.show()
        return
    if error.ctx is not None:
        inform(error.ctx.get_usage())
        inform(f"Run '{error.ctx.command_path} --help' for help.\n")
    inform(f"error: {error.format_message()}")


def _message(error: MtfError) -> str:
    text = str(error)  # a spec's mistakes each begin with path:line:column
    return text if isinstance(error, SpecError) else f"error: {text}"
