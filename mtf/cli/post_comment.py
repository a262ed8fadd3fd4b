"""`mtf comment`, which CI runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from mtf.cli.terminal.output import inform
from mtf.commands.post_comment import forge_of, post

if TYPE_CHECKING:
    from typing import TextIO


@click.command()
@click.argument("file", type=click.File(encoding="utf-8"))
@click.option("--number", help="Number of the pull request; GitLab CI sets it.")
def comment(file: TextIO, number: str | None) -> None:
    """Post a plan as a comment on the pull request, or update it.

    FILE holds the output of mtf plan --format markdown; - is standard input. A read-only token,
    which pull requests from forks get, is not an error: no comment is posted.

    Example: mtf plan --base main --format markdown | mtf comment -
    """
    made = post(forge_of(os.environ, number), file.read())
    inform(f"posted {made}" if made else "warning: no comment was posted: the token may only read")
