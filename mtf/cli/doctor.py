"""`mtf doctor`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import click

from mtf.cli.terminal.output import inform, print_text
from mtf.commands.doctor.examine import examine
from mtf.core.vocabulary import json_text
from mtf.errors import EXIT_ERROR
from mtf.report.findings import findings_text


@click.command()
@click.option("--checksums", is_flag=True, help="Read every checkpoint and compare its sha256.")
@click.option("--json", "as_json", is_flag=True, help="Print an object: `findings`, `checked`.")
@click.option(
    "--write",
    is_flag=True,
    help="Also ask SLURM for the cluster's partitions and limits, and write them to mtf.yaml.",
)
@click.pass_obj
def doctor(folder: str, checksums: bool, as_json: bool, write: bool) -> None:
    """Find what is wrong with repository, cluster, ledger or runs.

    Each finding says what is wrong, where, and the command that repairs it.

    Exit code: 0 no errors (warnings do not count), 1 errors.
    """
    if write:
        from mtf.commands.doctor.write_cluster import write_facts

        inform(f"wrote {write_facts(Path(folder))}. Check it with git diff, then commit it")
    found = examine(Path(folder), checksums=checksums)
    if as_json:
        value = {
            "checked": found.themes,
            "findings": [{"theme": theme, **asdict(f)} for theme, f in found.findings],
        }
        print_text(json_text.dumps(value, indent=2, ensure_ascii=False))
    else:
        rows = [(theme, f.severity, f.what, f.where, f.repair) for theme, f in found.findings]
        print_text(findings_text(rows, found.themes))
    sys.exit(0 if found.is_healthy else EXIT_ERROR)
