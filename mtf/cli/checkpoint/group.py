"""`mtf checkpoint export`."""

from __future__ import annotations

from pathlib import Path

import click

from mtf.cli.terminal.output import inform, open_here, print_text
from mtf.commands.checkpoint import export as exporter
from mtf.core.vocabulary import json_text
from mtf.report.tables import count


@click.group()
def checkpoint() -> None:
    """Do something with the checkpoints of a run."""


@checkpoint.command()
@click.argument("run")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File to write: .pt or .safetensors.",
)
@click.option("--best", is_flag=True, help="Take the checkpoint with the best metric.")
@click.option("--average", is_flag=True, help="Take the averaged weights of callbacks.ema.")
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
@click.pass_obj
def export(
    folder: str, run: str, output: Path, best: bool, average: bool, force: bool, as_json: bool
) -> None:
    """Write the weights of a run as a plain file.

    FILE gets the model's state_dict, of the run's newest checkpoint unless told otherwise. Run id,
    commit, configuration and metrics are written beside it, to FILE.json; a .safetensors file
    holds them, too. The checkpoint's sha256 is verified first.

    Example: mtf checkpoint export digits_baseline --best -o digits.safetensors
    """
    project = open_here(folder)
    target = Path(folder) / output
    done = exporter.export(project, run, target, best=best, average=average, force=force)
    if as_json:
        facts = {"run": done.run, "file": str(output), "facts": f"{output}.json"}
        place = {"epoch": done.checkpoint.epoch, "step": done.checkpoint.step}
        sizes = {"tensors": done.tensors, "parameters": done.parameters, "bytes": done.bytes}
        print_text(json_text.dumps({**facts, **place, **sizes, "sha256": done.sha256}, indent=2))
    else:
        print_text(
            f"{output}: {count(done.tensors, 'tensor')} of {done.run}, epoch"
            f" {done.checkpoint.epoch}, step {done.checkpoint.step}. Its facts: {output}.json"
        )
    if done.has_average:
        inform("note: the run also has averaged weights (callbacks.ema): --average exports those")
