"""`mtf controller`: shows the controller of a cluster, and prints services that keep it running."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from mtf.cli.terminal.output import inform, open_here, print_text
from mtf.commands.controller.service import (
    controller_states,
    crontab_line,
    systemd_unit,
    unit_name,
)
from mtf.core.vocabulary import json_text
from mtf.errors import EXIT_ERROR


@click.group()
def controller() -> None:
    """Show which controller serves a cluster, or keep one running.

    A controller is a process of mtf sync --watch, which syncs a cluster again and again.
    """


@controller.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects, one per cluster.")
@click.pass_obj
def show_status(folder: str, as_json: bool) -> None:
    """Show the controller of each cluster.

    Exit code: 0 this clone's cluster has a live controller, 1 it has none.
    """
    project = open_here(folder)
    cluster = project.settings.cluster.name
    found = controller_states(project)
    if as_json:
        rows = [{"cluster": s.cluster, "alive": s.is_alive, **asdict(s.holder)} for s in found]
        print_text(json_text.dumps(rows, indent=2))
    else:
        for state in found:
            print_text(state.line)
    if not any(s.is_alive for s in found if s.cluster == cluster):
        inform(
            f"error: cluster {cluster} has no live controller. Start one: mtf sync --watch, or"
            " install a service: mtf controller unit"
        )
        sys.exit(EXIT_ERROR)


@controller.command("unit")
@click.pass_obj
def print_unit(folder: str) -> None:
    """Print a systemd user unit that runs the controller.

    The unit starts mtf sync --watch in this clone, and restarts it when it ends. The commands that
    install the unit are printed to standard error.
    """
    project = open_here(folder)
    print_text(systemd_unit(project), newline=False)
    name = unit_name(project)
    inform("To install it:")
    inform(f"  mtf controller unit > ~/.config/systemd/user/{name}")
    inform(f"  systemctl --user daemon-reload && systemctl --user enable --now {name}")
    inform("  loginctl enable-linger   # keeps it running after you log out")


@controller.command("crontab")
@click.pass_obj
def print_crontab(folder: str) -> None:
    """Print a crontab line that runs the controller.

    The line starts mtf sync --watch in this clone unless it runs already. The command that installs
    the line is printed to standard error.
    """
    print_text(crontab_line(open_here(folder)), newline=False)
    inform("To install it:")
    inform("  (crontab -l; mtf controller crontab) | crontab -")
