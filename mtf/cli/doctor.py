"""`mtf doctor`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from mtf.cli.terminal.output import inform
from mtf.errors import EXIT_ERROR


@click.command()
@click.option("--checksums", is_flag=True, help="Read checkpoints whole and compare their sha256.")
@click.option("--json", "as_json", is_flag=True, help="An object with `findings` and `checked`.")
@click.option("--write", is_flag=True, help="Write what SLURM says of the cluster into mtf.yaml.")
@click.pass_obj
def doctor(folder: str, checksums: bool, as_json: bool, write: bool) -> None:
    """Check git, settings, run root, executor, environment, ledger and runs.

    Each finding says what is wrong, where, and how to repair it. Exit code 0: no error (there may
    be warnings), 1: an error.
    """
    if write:
        from mtf.commands.doctor.write_cluster import write_facts

        inform(f"wrote {write_facts(Path(folder))}: look at it (git diff), and commit it")
    from mtf.commands.doctor.examine import examine
    from mtf.report.findings import findings_text

    found = examine(Path(folder), checksums=checksums)
    if as_json:
        value = {
            "checked": found.themes,
            "findings": [{"theme": theme, **asdict(f)} for theme, f in found.findings],
        }
        click.echo(json.dumps(value, indent=2, ensure_ascii=False))
    else:
        rows = [(theme, f.severity, f.what, f.where, f.repair) for theme, f in found.findings]
        click.echo(findings_text(rows, found.themes))
    sys.exit(0 if found.is_healthy else EXIT_ERROR)
