"""The result of `mtf verify-resume` as a table and as text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mtf.core.vocabulary import json_text
from mtf.report.tables import Columns, count

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NAMES = {"repetition": ("first", "second")}
_NO_PHASE = "(random moments: own loop)"


@dataclass(frozen=True)
class Proved:
    """The facts about a proof: what was verified, on which device, and the interruptions."""

    name: str  # of the experiment
    started: Mapping[str, Any]  # device and versions
    rows: Sequence[Mapping[str, Any]]  # one per phase
    chain: Mapping[str, Any] | None


def table_of(rows: Sequence[Mapping[str, Any]]) -> Columns:
    """Return the table of interruptions, one row per phase."""
    cells = [
        [row["phase"] or _NO_PHASE, str(row["stops"]), str(row["kills"]), _exact(row)]
        for row in rows
    ]
    return Columns(["PHASE", "STOPS", "KILLS", "EXACT"], cells)


def _exact(row: Mapping[str, Any]) -> str:
    total = row["stops"] + row["kills"]
    return "all" if row["exact"] == total else f"{row['exact']} of {total}"


def verdict_text(verdict: Mapping[str, Any], proved: Proved) -> str:
    """Return the verdict: what was verified, or the first difference with its likely cause."""
    seconds = f"{verdict['seconds']:.0f} s"
    if verdict["exact"]:
        return "\n".join(_proved(verdict, proved))
    finding, cause = verdict["finding"], verdict["cause"]
    names = _NAMES.get(finding["stage"], ("whole", "resumed"))
    lines = [f"NOT exact: {_what(finding)} ({seconds})"]
    if finding["batch"]:
        lines.append(f"  first step    {_step(finding, names)}")
    for name, row in zip(names, finding["row"] or (), strict=False):
        lines.append(f"    {name:<11} {'(missing)' if row is None else json_text.dumps(row)}")
    if finding["first"]:
        more = f" ({count(finding['places'], 'place')} in all)" if finding["places"] > 1 else ""
        lines.append(f"  first tensor  {finding['first']}{more}")
    return "\n".join(
        [*lines, f"  cause         {cause['text']}", f"  cure          {cause['cure']}"]
    )


def _proved(verdict: Mapping[str, Any], proved: Proved) -> list[str]:
    """Return the lines of a passed proof, complete enough to be shown to others."""
    stops, kills = (sum(row[kind] for row in proved.rows) for kind in ("stops", "kills"))
    where = f"in {count(len(proved.rows), 'phase')}"
    if [row["phase"] for row in proved.rows] == [""]:
        where = "at random moments"
    chain = proved.chain
    more = f", then {count(chain['interruptions'], 'time')} in a row" if chain else ""
    device = "the CPU" if proved.started["device"] == "cpu" else proved.started["device"]
    versions = f"torch {proved.started['torch']}, Python {proved.started['python']}"
    tensors = f"{count(verdict['tensors'], 'tensor')} ({verdict['bytes'] / 1e6:.3g} MB)"
    return [
        f"exact: {proved.name} ends in the same bits, however it is interrupted",
        f"  interrupted  {count(stops + kills, 'time')} {where} ({stops} by TERM, USR1 or INT,"
        f" {kills} by KILL){more}; resumed in a new process each time",
        f"  compared     every bit of {tensors}: weights, buffers, optimizer, random generators;"
        " and of counters, metrics and scalars",
        f"  on           {device}, {versions}",
        f"  took         {verdict['seconds']:.0f} s: {count(verdict['trainings'], 'training')} in"
        f" {verdict['processes']} processes, {verdict['at_once']} at once",
    ]


def _what(finding: Mapping[str, Any]) -> str:
    if finding["stage"] == "repetition":
        return "two uninterrupted trainings differ"
    if finding["stage"] == "chain":
        return "a training that was interrupted repeatedly differs"
    return f"a training that got {finding['interruption']} differs"


def _step(finding: Mapping[str, Any], names: tuple[str, str]) -> str:
    text = str(finding["batch"])
    if finding["at_resume"] is not None:
        text += ", the first after the resume" if finding["at_resume"] else ", not at the resume"
    if len(losses := finding["losses"]) == 2 and losses[0] != losses[1]:
        text += f": loss {losses[0]:.9g} {names[0]}, {losses[1]:.9g} {names[1]}"
    return text
