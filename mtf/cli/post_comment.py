"""`mtf comment`, for CI."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from mtf.cli.terminal.output import inform

if TYPE_CHECKING:
    from typing import TextIO


@click.command()
@click.argument("file", type=click.File(encoding="utf-8"))
@click.option("--number", help="Of the pull request, where the CI does not tell it.")
def comment(file: TextIO, number: str | None) -> None:
    """Post FILE, a plan as Markdown, to the pull request whose CI this is, or update it there.

    A token that may only read, as that of a pull request from a fork, is no error.
    """
    from mtf.commands.post_comment import forge_of, post

    made = post(forge_of(os.environ, number), file.read())
    inform(f"comment {made}" if made else "no comment: this token may not write one")
