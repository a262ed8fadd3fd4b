"""`mtf verify-resume`."""

from __future__ import annotations

import json
import signal
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mtf.cli.terminal.output import inform, print_table
from mtf.errors import EXIT_ERROR, MtfError
from mtf.report.tables import count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mtf.commands.verify_resume import Prepared


@click.command("verify-resume")
@click.argument("spec")
@click.option("--member", metavar="NAME", help="The member of a grid; the first by default.")
@click.option("--phases", default="all", metavar="all|PHASE,...", help="Where to interrupt.")
@click.option(
    "--stops", type=click.IntRange(0), default=10, show_default=True,
    help="Then interrupt one training so often, at random places.",
)  # fmt: skip
@click.option("--epochs", type=click.IntRange(1), help="Epochs to train for; 2 by default.")
@click.option("--steps", type=click.IntRange(1), help="Optimizer steps an epoch; 4 by default.")
@click.option("--workers", type=click.IntRange(0), help="In place of data.num_workers.")
@click.option(
    "--jobs", type=click.IntRange(1), help="Trainings at once; by default what cores allow."
)
@click.option("--keep", is_flag=True, help="Keep the scratch folder and say where it is.")
@click.option("--json", "as_json", is_flag=True, help="One object.")
@click.pass_obj
def verify_resume(
    folder: str,
    spec: str,
    member: str | None,
    phases: str,
    stops: int,
    epochs: int | None,
    steps: int | None,
    workers: int | None,
    jobs: int | None,
    keep: bool,
    as_json: bool,
) -> None:
    """Prove that the training of SPEC, once interrupted, ends in the same bits as without.

    SPEC is a file of the work tree or the name of an experiment or a grid. It is the work tree
    that is verified, spec and code, so that you can ask before you commit. The training is
    shortened, made twice, then stopped and killed in every phase and resumed in a new process,
    in a scratch folder. Where the results differ, the first step and tensor that do are named,
    and the likely cause. Exit code 0: exact, 1: not.
    """
    from mtf.commands import verify_resume as proof

    wishes = proof.Wishes(member, epochs, steps, workers, _phases(phases), stops, jobs)
    prepared = proof.prepare(Path(folder), spec, wishes)
    inform(f"verifying the work tree {prepared.root}: {prepared.name}")
    for note in prepared.notes:
        inform(f"  {note}")
    watcher, kept = _Watcher(prepared.gpus), keep
    try:
        with _ended_as_by_hand():
            for event in proof.events(prepared):
                watcher.see(event)
        kept = keep or watcher.has_failure
    except MtfError:  # its text names files of the folder
        kept = True
        raise
    finally:
        if kept:
            inform(f"kept: {prepared.folder}")
        else:
            proof.remove(prepared)
    _print(watcher, prepared, as_json=as_json)
    if not watcher.verdict["exact"]:
        sys.exit(EXIT_ERROR)


@contextmanager
def _ended_as_by_hand() -> Iterator[None]:
    """Let TERM and HUP do what Ctrl-C does: the trainings and their folder go with this process."""
    heard = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_DFL]
    for number in heard:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, signal.SIG_DFL)


def _phases(text: str) -> tuple[str, ...]:
    from mtf.commands.verify_resume import PHASES

    if text == "all":
        return ()
    wanted = tuple(part.strip().upper() for part in text.split(","))
    for name in wanted:
        if name not in PHASES:
            raise click.UsageError(f"--phases: {name} is none of {', '.join(PHASES)}")
    return wanted


class _Watcher:
    """Says what happens, and keeps it for the table."""

    def __init__(self, gpus: int) -> None:
        self._gpus = gpus
        self.started: dict[str, Any] = {}
        self.rows: dict[str, dict[str, Any]] = {}
        self.chain: dict[str, Any] | None = None
        self.verdict: dict[str, Any] = {}
        self._planned: Counter[str] = Counter()

    @property
    def has_failure(self) -> bool:
        """Return whether a training has failed, whose output the verdict names."""
        cause = self.verdict.get("cause")
        return bool(cause and cause["kind"] == "resume-fails")

    def see(self, event: dict[str, Any]) -> None:
        """Take in one event."""
        match str(event["verify"]):
            case "started":
                self.started = {k: event[k] for k in ("device", "torch", "python")}
                if event["device"] != "cpu" or self._gpus:
                    no_gpu = "the CPU, for there is no GPU: its kernels are not proved"
                    inform(f"  on {no_gpu if event['device'] == 'cpu' else event['device']}")
            case "whole":
                again = "once more in a new interpreter: " if event["number"] == 2 else ""
                inform(f"trained without interruption, {again}{event['seconds']:.1f} s")
            case "plan":
                self._planned.update(event["phases"])
                for phase in event["phases"]:
                    self.rows[phase] = {"phase": phase, "stops": 0, "kills": 0, "exact": 0}
                loop = " at moments, for it is a loop of its own: neither shortened nor with phases"
                inform(
                    f"interrupting it {self._planned.total()} times{loop * ('' in self._planned)}"
                )
            case "interrupted":
                self._interrupted(event)
            case "chain":
                self.chain = {k: v for k, v in event.items() if k != "verify"}
                how = "exact" if event["exact"] else "NOT exact"
                times = count(event["interruptions"], "interruption")
                inform(f"  {times} of {count(event['trainings'], 'training')}, in chains: {how}")
            case "probing":
                inform(f"looking for the cause: {event['what']}")
            case _:
                self.verdict = event
                if (event["finding"] or {}).get("stage") == "repetition":
                    self.rows, self.chain = {}, None  # what nobody interrupts differs as well

    def _interrupted(self, event: dict[str, Any]) -> None:
        phase = event["phase"]
        row = self.rows[phase]
        row["kills" if event["kill"] else "stops"] += 1
        row["exact"] += event["exact"]
        total = row["stops"] + row["kills"]
        if total == self._planned[phase]:
            how = "exact" if row["exact"] == total else f"{row['exact']} of {total} exact"
            inform(f"  {phase or 'its own loop'}: {how}")


def _print(watcher: _Watcher, prepared: Prepared, *, as_json: bool) -> None:
    from mtf.report.proofs import Proved, table_of, verdict_text

    verdict, rows = watcher.verdict, list(watcher.rows.values())
    proved = Proved(prepared.name, watcher.started, rows, watcher.chain)
    if as_json:
        said = {k: v for k, v in verdict.items() if k != "verify"}
        facts = {"experiment": prepared.name, "notes": list(prepared.notes), **watcher.started}
        click.echo(json.dumps({**facts, "phases": rows, "chain": watcher.chain, **said}, indent=2))
        return
    if rows:
        print_table(table_of(rows))
    click.echo(verdict_text(verdict, proved))
