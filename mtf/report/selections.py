"""The runs that a command is about to act on as a table, and those that it acted on as lines."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from mtf.core.vocabulary.causes import Cause
from mtf.report.tables import Columns, count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from mtf.core.vocabulary.records import RunRecord

_MOST = 20  # runs with a row each; more are summed up
_FEW = 3  # runs of a grid that get a line each


def selection_table(records: Sequence[RunRecord], *, at: str | None = None) -> Columns:
    """Return a row for each run, or for runs of a grid that are alike if there are many.

    ``at`` is the commit at which the runs will be run again, by default their own.
    """
    if len(records) <= _MOST:
        rows = [(record.label, *_facts(record, at)) for record in records]
    else:
        alike = Counter((r.grid or r.experiment, *_facts(r, at)) for r in records)
        rows = [(f"{owner} ({count(n, 'run')})", *facts) for (owner, *facts), n in alike.items()]
    return Columns(["RUN", "STATE", "CAUSE", "COMMIT"], rows)


def _facts(record: RunRecord, at: str | None) -> tuple[str, ...]:
    cause = "-" if record.cause in (None, Cause.COMPLETED) else str(record.cause)
    commit = record.commit[:8] if at is None else f"{record.commit[:8]} -> {at[:8]}"
    return str(record.state), cause, commit


def acted_lines(
    verb: str, records: Iterable[RunRecord], about: Callable[[RunRecord], str] = lambda _: ""
) -> list[str]:
    """Return a line for each run; many of a grid, with the same text ``about`` them, get one."""
    groups: dict[tuple[str, str], list[RunRecord]] = defaultdict(list)
    for record in records:
        groups[record.grid or record.run, about(record)].append(record)
    return [
        f"{verb:<8} {name}{text}"
        for (owner, text), members in groups.items()
        for name in (
            [r.run for r in members]
            if len(members) <= _FEW
            else [f"{owner}: {count(len(members), 'run')}"]
        )
    ]
