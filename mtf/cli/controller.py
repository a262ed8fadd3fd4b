"""`mtf controller`: who controls which cluster, and how a controller is kept running."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import click

from mtf.cli.terminal.output import inform, open_here
from mtf.errors import EXIT_ERROR


@click.group()
def controller() -> None:
    """The `mtf sync --watch` that serves a cluster."""


@controller.command("status")
@click.option("--json", "as_json", is_flag=True, help="A list of objects, one a cluster.")
@click.pass_obj
def show_status(folder: str, as_json: bool) -> None:
    """Show each cluster's controller; exit code 1 when this clone's cluster has none."""
    from mtf.commands.controller.service import standings

    project = open_here(folder)
    mine = project.settings.cluster.name
    found = standings(project)
    if as_json:
        rows = [{"cluster": s.cluster, "alive": s.is_alive, **asdict(s.holder)} for s in found]
        click.echo(json.dumps(rows, indent=2))
    else:
        for standing in found:
            click.echo(standing.line)
    if not any(s.is_alive for s in found if s.cluster == mine):
        inform(f"no controller serves {mine}: mtf sync --watch, or see mtf controller unit")
        sys.exit(EXIT_ERROR)


@controller.command("unit")
@click.pass_obj
def print_unit(folder: str) -> None:
    """Print a systemd user unit for this clone, and say how to install it."""
    from mtf.commands.controller.service import systemd_unit, unit_name

    project = open_here(folder)
    click.echo(systemd_unit(project), nl=False)
    name = unit_name(project)
    inform(f"install: mtf controller unit > ~/.config/systemd/user/{name}")
    inform(f"  systemctl --user daemon-reload && systemctl --user enable --now {name}")
    inform("  loginctl enable-linger   # so that it outlives your session")


@controller.command("crontab")
@click.pass_obj
def print_crontab(folder: str) -> None:
    """Print a crontab line for this clone, and say how to install it."""
    from mtf.commands.controller.service import crontab_line

    click.echo(crontab_line(open_here(folder)), nl=False)
    inform("install: (crontab -l; mtf controller crontab) | crontab -")
