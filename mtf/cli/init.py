"""`mtf init` and `mtf schema`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from mtf.cli.terminal.output import inform


@click.command()
@click.argument("path", type=click.Path(file_okay=False), default=".")
@click.option("--demo", is_flag=True, help="Add a small, real example: a grid on images of digits.")
@click.pass_obj
def init(folder: str, path: str, demo: bool) -> None:
    """Scaffold an experiments repository in PATH; what is there already is kept."""
    from mtf.commands.init import init as scaffold

    target = Path(folder, path)
    for name in scaffold(target, demo=demo):
        inform(f"created  {target / name}")
    inform("next: commit it (git add -A && git commit), then mtf plan, mtf sync")


@click.command()
@click.argument("kind", type=click.Choice(["spec", "settings"]), default="spec")
@click.option("--write", is_flag=True, help="Write both into .mtf/ of the repository instead.")
@click.pass_obj
def schema(folder: str, kind: str, *, write: bool) -> None:
    """Print the JSON Schema of specs, or of the settings in mtf.yaml, for editors.

    Files that mtf init has made name it in their first line; yaml-language-server (VS Code, Neovim,
    Emacs, ...) then completes, explains and checks them. After an upgrade of mtf: --write.
    """
    from mtf.project import editor_schemas
    from mtf.project.worktree import project_root

    if not write:
        click.echo(json.dumps(editor_schemas.schema(kind), indent=1, ensure_ascii=False))
        return
    root = project_root(Path(folder))
    for name in editor_schemas.write(root) or ["nothing: both are up to date"]:
        inform(f"written  {name}")
