"""README.md of the ledger branch: a table of submissions for people who open the branch."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from mtf.core.vocabulary.json_text import number_text
from mtf.core.vocabulary.records import best_run
from mtf.core.vocabulary.shown_text import code, markdown_cell
from mtf.core.vocabulary.states import RunState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mtf.core.vocabulary.ids import SubmissionId
from mtf.core.vocabulary.records import RunRecord

_MAX_ROWS = 200  # the newest submissions


def render_overview(records: Iterable[RunRecord]) -> str:
    """Return the page, with one table row for each submission, the newest first."""
    groups: dict[SubmissionId, list[RunRecord]] = {}
    for record in records:
        groups.setdefault(record.submission, []).append(record)
    newest = sorted(groups, key=lambda s: s.split("/")[1:], reverse=True)
    rows = [_row(s, groups[s]) for s in newest[:_MAX_ROWS]]
    lines = [
        "# mtf ledger",
        "",
        "Records of all runs: one file for each run under `runs/`, one for each submission under",
        "`submissions/`. Only mtf writes them. Run `mtf status` to read them.",
        "",
        "| submission | runs | " + " | ".join(RunState) + " | best |",
        "|---|--:|" + "--:|" * len(RunState) + "---|",
        *rows,
    ]
    if len(newest) > _MAX_ROWS:
        lines += ["", f"The newest {_MAX_ROWS} of {len(newest)} submissions."]
    return "\n".join(lines) + "\n"


def _row(submission: SubmissionId, records: list[RunRecord]) -> str:
    counts = Counter(record.state for record in records)
    cells = [str(counts[state] or "") for state in RunState]
    return f"| {code(submission)} | {len(records)} | {' | '.join(cells)} | {_best(records)} |"


def _best(records: list[RunRecord]) -> str:
    record = best_run(records)
    if record is None or record.best is None:
        return ""
    best = f"{record.best.name} {number_text(record.best.value, '.4g')} ({record.label})"
    return markdown_cell(best)
