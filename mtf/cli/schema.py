"""`mtf schema`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from mtf.cli.output import say


@click.command()
@click.argument("kind", type=click.Choice(["spec", "settings"]), default="spec")
@click.option("--write", is_flag=True, help="Write both into .mtf/ of the repository instead.")
@click.pass_obj
def schema(folder: str, kind: str, *, write: bool) -> None:
    """Print the JSON Schema of specs, or of the settings in mtf.yaml, for editors.

    Files that mtf init has made name it in their first line; yaml-language-server (VS Code, Neovim,
    Emacs, ...) then completes, explains and checks them. After an upgrade of mtf: --write.
    """
    from mtf.commands import schemas
    from mtf.commands.worktree import project_root

    if not write:
        click.echo(json.dumps(schemas.schema(kind), indent=1, ensure_ascii=False))
        return
    root = project_root(Path(folder))
    for name in schemas.write(root) or ["nothing: both are up to date"]:
        say(f"written  {name}")
