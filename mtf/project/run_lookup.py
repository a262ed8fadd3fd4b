"""Finds the runs that a user names: by id, name, job id, unique prefix or `--where`."""

from __future__ import annotations

from collections import Counter
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from mtf.core.selection.run_conditions import names_of
from mtf.core.selection.run_conditions import where as condition
from mtf.core.vocabulary.spelling import did_you_mean
from mtf.errors import MtfError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mtf.core.vocabulary.records import RunRecord
    from mtf.ledger.store import Ledger


def newest_first(records: Iterable[RunRecord]) -> list[RunRecord]:
    """Return the runs by submission, the newest first, and by name within a submission."""
    by_member = sorted(records, key=lambda r: r.run)
    return sorted(by_member, key=lambda r: r.run.split("/")[1], reverse=True)


def of_newest_submission(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Return the runs of the first one's submission; ``records`` are given the newest first."""
    return [r for r in records if r.submission == records[0].submission]


def find_run(ledger: Ledger, name: str) -> RunRecord:
    """Return the one run of that name in the newest submission of that name.

    Raises:
        MtfError: no run has that name, or several have; the message lists them.
    """
    records = newest_first(ledger.runs.values())
    exact = [r for r in records if name in names_of(r)]
    if exact:
        found = of_newest_submission(exact)
    else:
        found = [r for r in records if any(n.startswith(name) for n in names_of(r))]
    if not found:
        raise MtfError(f"{name}: no such run. {existing_runs(records, near=name)}")
    if len(found) > 1:
        shown = "\n".join(f"  {r.run}" for r in found[:10])
        more = f"\n  ... and {len(found) - 10} more" if len(found) > 10 else ""
        raise MtfError(f"{name}: names {len(found)} runs. Choose one:\n{shown}{more}")
    return found[0]


def existing_runs(records: Iterable[RunRecord], near: str = "") -> str:
    """Return the names that exist, or one like ``near``, for a message that nothing matched."""
    records = list(records)
    if not records:
        return "No runs yet. Commit a spec under experiments/, then run mtf sync"
    known = did_you_mean(near, {r.grid or r.experiment for r in records})
    if known and not known.endswith("?"):
        known += "."
    return f"{known} mtf status lists the runs".lstrip()


def counts_by_state(records: Iterable[RunRecord]) -> str:
    """Return text like "3 completed, 1 running"."""
    counts = Counter(record.state for record in records)
    return ", ".join(f"{n} {state}" for state, n in counts.most_common())


def find_runs(ledger: Ledger, names: Iterable[str]) -> list[RunRecord]:
    """Return the runs of these names, each once.

    The name of a grid means the members of its newest submission, the id of a submission all of its
    members.

    Raises:
        MtfError: there is no run of a name.
    """
    found: dict[str, RunRecord] = {}
    for name in names:
        records = newest_first(ledger.runs.values())
        group = [r for r in records if name in (r.grid, r.submission)]
        for record in of_newest_submission(group) or [find_run(ledger, name)]:
            found[record.run] = record
    return list(found.values())


def choose(ledger: Ledger, names: Sequence[str], where: Sequence[str]) -> list[RunRecord]:
    """Return the runs of these names, or the newest of each experiment, that meet all conditions.

    Raises:
        MtfError: there is no run of a name, or a condition is not valid.
    """
    tests = [condition(text, ledger.runs.values()) for text in where]
    if names:
        records = find_runs(ledger, names)
    else:
        newest: dict[tuple[str | None, str], RunRecord] = {}
        for record in newest_first(ledger.runs.values()):
            newest.setdefault((record.grid, record.experiment), record)
        records = list(newest.values())
    return [record for record in records if all(test(record) for test in tests)]


def matching(ledger: Ledger, globs: Sequence[str]) -> list[RunRecord]:
    """Return the runs with a name that matches one of the globs; all runs without a glob."""
    return [
        r
        for r in newest_first(ledger.runs.values())
        if not globs or any(fnmatchcase(n, g) for n in names_of(r) for g in globs)
    ]
