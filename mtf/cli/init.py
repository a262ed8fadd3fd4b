"""`mtf init` and `mtf schema`."""

from __future__ import annotations

from pathlib import Path

import click

from mtf.cli.terminal.output import inform, print_text
from mtf.core.vocabulary import json_text


@click.command()
@click.argument("path", type=click.Path(file_okay=False), default=".")
@click.option(
    "--demo", is_flag=True, help="Add an example: a grid on images of handwritten digits."
)
@click.pass_obj
def init(folder: str, path: str, demo: bool) -> None:
    """Create an experiments repository, or complete an existing one.

    PATH is a folder, by default the current one. Inside a git repository it is the folder of the
    project: all commands run there, and jobs work in it. The tracked branch is the one that is
    checked out. Existing files are kept.

    Example: mtf init --demo lab
    """
    from mtf.commands.init import init as scaffold

    target = Path(folder, path)
    made = scaffold(target, demo=demo)
    for name in made.files:
        inform(f"created  {target / name}")
    for note in made.notes:
        inform(f"note: {note}")
    if not made.files:
        inform("nothing to create: every file exists already")
        return
    inform("Next: commit it (git add -A && git commit), then run mtf plan and mtf sync")


@click.command()
@click.argument("kind", type=click.Choice(["spec", "settings"]), default="spec")
@click.option(
    "--write", is_flag=True, help="Write both schemas to .mtf/ in the repository instead."
)
@click.pass_obj
def schema(folder: str, kind: str, *, write: bool) -> None:
    """Print the JSON Schema of specs or settings, for editors.

    Files that mtf init creates name their schema in the first line, so that yaml-language-server
    (VS Code, Neovim, Emacs, ...) completes, explains and checks them. Run mtf schema --write
    after an upgrade of mtf.
    """
    from mtf.project import editor_schemas
    from mtf.project.settings_file import required_root

    if not write:
        print_text(json_text.dumps(editor_schemas.schema(kind), indent=1, ensure_ascii=False))
        return
    root = required_root(Path(folder))
    written = editor_schemas.write(root)
    for name in written:
        inform(f"wrote    {name}")
    if not written:
        inform("both schemas are up to date")
