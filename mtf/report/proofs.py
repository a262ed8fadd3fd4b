"""The results of `mtf verify-resume` and `mtf reproduce` as tables and as text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mtf.core.vocabulary import json_text
from mtf.report.tables import Columns, count

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mtf.core.review.reproduction import Evidence, Verdict

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


_MOST_LISTED = 12  # differences of the environment


def reproduction_text(verdict: Verdict) -> str:
    """Return the verdict on a reproduction: the first difference, and what else differs."""
    first, second = verdict.first, verdict.second
    gone = [e.run for e in (first, second) if e.rows is None]
    compared = [
        f"metrics: {'the same' if verdict.difference is None else 'they differ'}"
        f" ({count(verdict.rows, 'row')})"
        if verdict.rows is not None
        else f"metrics: not compared: those of {' and '.join(gone)} are gone",
        f"final weights: {_weights_text(verdict)}",
    ]
    if not verdict.is_compared:
        lines = [f"nothing of {first.run} and {second.run} could be compared", *compared]
    elif verdict.is_same:
        whole = verdict.rows is not None and verdict.tensors is not None
        how = "bit for bit" if whole else "as far as it could be compared"
        lines = [f"reproduced {first.run} {how} by {second.run}", *compared]
    else:
        lines = [
            f"NOT reproduced: {first.run} and {second.run} differ",
            *_first(verdict),
            *compared,
        ]
    return "\n".join([lines[0], *(f"  {line}" for line in [*lines[1:], *_environment(verdict)])])


def _weights_text(verdict: Verdict) -> str:
    if verdict.tensors is None:
        why = verdict.first.why_no_weights or verdict.second.why_no_weights
        return f"not compared: {why}"
    number = count(verdict.tensors, "tensor")
    if not verdict.differing:
        return f"the same ({number}, sha256 {verdict.first.weights_sha256})"
    return f"{len(verdict.differing)} of {number} differ, the first is {verdict.differing[0]}"


def _first(verdict: Verdict) -> list[str]:
    found = verdict.difference
    if found is None:
        return []
    where = f"step {found.step}" if found.step is not None else f"row {found.row + 1}"
    a, b = json_text.dumps(found.first), json_text.dumps(found.second)
    by = "" if found.by is None else f", {found.by:.3g} apart"
    return [f"first difference at {where}: {found.metric} is {a}, then {b}{by}"]


def _environment(verdict: Verdict) -> list[str]:
    if not (verdict.first.environment and verdict.second.environment):
        unknown: list[Evidence] = [e for e in (verdict.first, verdict.second) if not e.environment]
        return [f"environment: that of {unknown[0].run} is not known"]
    if not verdict.environment:
        why = "" if verdict.is_same else ": look for the cause with mtf verify-resume"
        return [f"environment: packages, hardware and threads are the same{why}"]
    lines = [f"{name}: {a or '-'}, then {b or '-'}" for name, a, b in verdict.environment]
    more = len(lines) - _MOST_LISTED
    return [*lines[:_MOST_LISTED], *([f"... and {more} more differences"] if more > 0 else [])]


def reproduction_json(verdict: Verdict) -> dict[str, Any]:
    """Return a comparison as JSON values."""
    found = verdict.difference
    return {
        "run": verdict.first.run,
        "reproduction": verdict.second.run,
        "reproduced": verdict.is_same,
        "rows": verdict.rows,
        "first_difference": found and {**vars(found), "by": found.by},
        "tensors": verdict.tensors,
        "differing_tensors": list(verdict.differing),
        "weights": [verdict.first.weights_sha256, verdict.second.weights_sha256],
        "not_compared": [
            e.why_no_weights for e in (verdict.first, verdict.second) if e.why_no_weights
        ],
        "environment": {name: [a, b] for name, a, b in verdict.environment},
    }
