"""What a proof of resuming has come to, as a table and as sentences."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from mtf.report.tables import Columns, count

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NO_PHASE = "(at moments: a loop of its own)"


def table_of(rows: Sequence[Mapping[str, Any]]) -> Columns:
    """Return the table of interruptions, one row a phase."""
    cells = [
        [row["phase"] or _NO_PHASE, str(row["stops"]), str(row["kills"]), _exact(row)]
        for row in rows
    ]
    return Columns(["PHASE", "STOPS", "KILLS", "EXACT"], cells)


def _exact(row: Mapping[str, Any]) -> str:
    total = row["stops"] + row["kills"]
    return "all" if row["exact"] == total else f"{row['exact']} of {total}"


def verdict_text(verdict: Mapping[str, Any]) -> str:
    """Return the verdict in words: what differs, since when, and why."""
    seconds = f"{verdict['seconds']:.0f} s"
    if verdict["exact"]:
        return (
            f"exact: {count(verdict['trainings'] - 1, 'other training')} ended in the very bits of"
            f" the first, whatever interrupted them ({seconds})"
        )
    finding, cause = verdict["finding"], verdict["cause"]
    lines = [f"NOT exact: {_what(finding)} ({seconds})"]
    if finding["batch"]:
        lines.append(f"  first step    {_step(finding)}")
    if finding["row"]:
        lines.append(f"  first scalars {_row(finding['row'][0])}")
        lines.append(f"           then {_row(finding['row'][1])}")
    if finding["first"]:
        more = f" ({count(finding['places'], 'place')} in all)" if finding["places"] > 1 else ""
        lines.append(f"  first tensor  {finding['first']}{more}")
    return "\n".join(
        [*lines, f"  cause         {cause['text']}", f"  cure          {cause['cure']}"]
    )


def _what(finding: Mapping[str, Any]) -> str:
    match finding["stage"]:
        case "repetition":
            return "two trainings differ that nobody interrupted"
        case "chain":
            return "a training that was interrupted again and again differs"
    return f"a training differs that got {finding['interruption']}"


def _step(finding: Mapping[str, Any]) -> str:
    text = str(finding["batch"])
    if len(losses := finding["losses"]) == 2 and losses[0] != losses[1]:
        text += f": loss {losses[0]:.9g}, then {losses[1]:.9g}"
    if finding["at_resume"] is not None:
        text += "; the first after the resume" if finding["at_resume"] else "; not at the resume"
    return text


def _row(row: Any) -> str:
    return "(missing)" if row is None else json.dumps(row)
