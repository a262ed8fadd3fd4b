"""`mtf verify-resume`."""

from __future__ import annotations

import signal
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mtf.cli.terminal.output import inform, print_text
from mtf.cli.terminal.table_output import print_table
from mtf.commands import verify_resume as proof
from mtf.core.vocabulary import json_text
from mtf.errors import EXIT_ERROR, MtfError
from mtf.report.proofs import Proved, table_of, verdict_text
from mtf.report.tables import count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mtf.commands.verify_resume import Prepared


@click.command("verify-resume")
@click.argument("spec")
@click.option(
    "--member", metavar="NAME", help="Member of the grid to verify; by default the first."
)
@click.option(
    "--phases",
    default="all",
    metavar="all|PHASE,...",
    show_default=True,
    help="Phases to interrupt.",
)
@click.option(
    "--stops",
    type=click.IntRange(0),
    default=10,
    show_default=True,
    help="Then interrupt one training this many times, at random places.",
)
@click.option("--epochs", type=click.IntRange(1), help="Epochs to train; by default 2.")
@click.option("--steps", type=click.IntRange(1), help="Optimizer steps per epoch; by default 4.")
@click.option(
    "--workers", type=click.IntRange(0), help="Use this many data workers, not data.num_workers."
)
@click.option(
    "--jobs", type=click.IntRange(1), help="Trainings to run at once; by default as many as fit."
)
@click.option("--keep", is_flag=True, help="Keep the scratch folder, and print its path.")
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
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
    """Prove that an interrupted training resumes bit for bit.

    SPEC is a file in the work tree, or the name of an experiment or grid: spec and code are
    verified as they are on disk, before you commit. In a scratch folder, a shortened training is
    run twice, then stopped and killed in every phase and resumed in a new process. If a result
    differs, the first differing step and tensor are shown, with the likely cause.

    Example: mtf verify-resume digits_baseline

    Exit code: 0 exact, 1 not exact.
    """
    options = proof.Options(member, epochs, steps, workers, _phases(phases), stops, jobs)
    prepared = proof.prepare(Path(folder), spec, options)
    inform(f"verifying the work tree {prepared.root}: {prepared.name}")
    for note in prepared.notes:
        inform(f"  {note}")
    log, kept = _ProofLog(prepared.gpus), keep
    try:
        with _signals_as_interrupts():
            for event in proof.events(prepared):
                log.add(event)
        kept = keep or log.has_failure
    except MtfError:  # its message names files in the folder
        kept = True
        raise
    finally:
        if kept:
            inform(f"scratch folder kept: {prepared.folder}")
        else:
            proof.remove(prepared)
    _print(log, prepared, as_json=as_json)
    if not log.verdict["exact"]:
        sys.exit(EXIT_ERROR)


@contextmanager
def _signals_as_interrupts() -> Iterator[None]:
    """Let TERM and HUP act like Ctrl-C, so that trainings and their folder are cleaned up."""
    defaults = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_DFL]
    for number in defaults:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in defaults:
            signal.signal(number, signal.SIG_DFL)


def _phases(text: str) -> tuple[str, ...]:
    if text == "all":
        return ()
    wanted = tuple(part.strip().upper() for part in text.split(","))
    for name in wanted:
        if name not in proof.PHASES:
            raise click.UsageError(
                f"--phases: {name} is not a phase. Use {', '.join(proof.PHASES)}"
            )
    return wanted


class _ProofLog:
    """Prints the events of a proof as they happen, and keeps them for the final table."""

    def __init__(self, gpus: int) -> None:
        self._gpus = gpus
        self.started: dict[str, Any] = {}
        self.rows: dict[str, dict[str, Any]] = {}
        self.chain: dict[str, Any] | None = None
        self.verdict: dict[str, Any] = {}
        self._planned: Counter[str] = Counter()

    @property
    def has_failure(self) -> bool:
        """Return True if a training failed; the verdict then names its output."""
        cause = self.verdict.get("cause")
        return bool(cause and cause["kind"] == "resume-fails")

    def add(self, event: dict[str, Any]) -> None:
        """Print one event and keep it."""
        match str(event["verify"]):
            case "started":
                self._started(event)
            case "whole":
                again = " again, in a new process" if event["number"] == 2 else ""
                inform(f"trained without interruption{again}: {event['seconds']:.1f} s")
            case "plan":
                self._will_interrupt(event["phases"])
            case "interrupted":
                self._interrupted(event)
            case "chain":
                self.chain = {k: v for k, v in event.items() if k != "verify"}
                result = "exact" if event["exact"] else "NOT exact"
                times = count(event["interruptions"], "interruption")
                trainings = count(event["trainings"], "training")
                inform(f"  {times} in a row, in {trainings}: {result}")
            case "probing":
                inform(f"looking for the cause: {event['what']}")
            case _:
                self.verdict = event
                if (event["finding"] or {}).get("stage") == "repetition":
                    self.rows, self.chain = {}, None  # uninterrupted trainings differ too

    def _started(self, event: dict[str, Any]) -> None:
        self.started = {k: event[k] for k in ("device", "torch", "python")}
        if event["device"] != "cpu" or self._gpus:
            no_gpu = "the CPU, because no GPU was found: GPU kernels are not verified"
            inform(f"  on {no_gpu if event['device'] == 'cpu' else event['device']}")

    def _will_interrupt(self, phases: list[str]) -> None:
        self._planned.update(phases)
        for phase in phases:
            self.rows[phase] = {"phase": phase, "stops": 0, "kills": 0, "exact": 0}
        inform(f"interrupting it {count(self._planned.total(), 'time')}")
        if "" in self._planned:
            inform("  at random moments: its own training loop has no phases to interrupt")

    def _interrupted(self, event: dict[str, Any]) -> None:
        phase = event["phase"]
        row = self.rows[phase]
        row["kills" if event["kill"] else "stops"] += 1
        row["exact"] += event["exact"]
        total = row["stops"] + row["kills"]
        if total == self._planned[phase]:
            result = "exact" if row["exact"] == total else f"{row['exact']} of {total} exact"
            inform(f"  {phase or 'its own loop'}: {result}")


def _print(log: _ProofLog, prepared: Prepared, *, as_json: bool) -> None:
    verdict, rows = log.verdict, list(log.rows.values())
    proved = Proved(prepared.name, log.started, rows, log.chain)
    if as_json:
        result = {k: v for k, v in verdict.items() if k != "verify"}
        facts = {"experiment": prepared.name, "notes": list(prepared.notes), **log.started}
        print_text(
            json_text.dumps({**facts, "phases": rows, "chain": log.chain, **result}, indent=2)
        )
        return
    if rows:
        print_table(table_of(rows))
    print_text(verdict_text(verdict, proved))
