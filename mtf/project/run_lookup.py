"""Finds the runs that a user names: by id, name, job id, unique prefix or `--where`."""

from __future__ import annotations

from collections import Counter
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from mtf.core.planner.grids.holds import held_back
from mtf.core.selection.run_conditions import names_of
from mtf.core.selection.run_conditions import where as condition
from mtf.core.vocabulary.ids import submission_of
from mtf.core.vocabulary.spelling import did_you_mean
from mtf.errors import MtfError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mtf.core.vocabulary.ids import RunId, SubmissionId
    from mtf.core.vocabulary.records import RunRecord
    from mtf.ledger.store import Ledger


def newest_first(records: Iterable[RunRecord]) -> list[RunRecord]:
    """Return the runs by submission, the newest first, and by name within a submission."""
    by_member = sorted(records, key=lambda r: r.run)
    return sorted(by_member, key=lambda r: r.run.split("/")[1], reverse=True)


def of_newest_submission(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Return the runs of the first one's submission; ``records`` are given the newest first."""
    return [r for r in records if r.submission == records[0].submission]


def current_members(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Return the runs of a grid that nothing has superseded.

    ``records`` are all runs of the grid, the newest first. These are the members of its newest
    submission, and of all that are linked to it because runs of one took the place of another's.
    """
    pairs = {(r.submission, submission_of(r.superseded_by)) for r in records if r.superseded_by}
    submissions: set[SubmissionId] = set()
    linked = {records[0].submission}
    while linked - submissions:
        submissions |= linked
        linked = {one for pair in pairs if submissions.intersection(pair) for one in pair}
    return [r for r in records if r.submission in submissions and r.superseded_by is None]


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
        found = [r for r in found if r.superseded_by is None] or found
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
    grid = near.partition("/")[0]
    if near != grid and (why := held_back(records).get(grid)):
        return f"Its grid has members without a run: {why}"
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

    The name of a grid means its ``current_members``, the id of a submission all of its members.

    Raises:
        MtfError: there is no run of a name.
    """
    found: dict[str, RunRecord] = {}
    for name in names:
        for record in _group(ledger, name) or [find_run(ledger, name)]:
            found[record.run] = record
    return list(found.values())


def named_one_by_one(ledger: Ledger, names: Iterable[str]) -> set[RunId]:
    """Return the runs that these names mean each for itself, not as members of a group."""
    groups = [_group(ledger, name) or [find_run(ledger, name)] for name in names]
    return {group[0].run for group in groups if len(group) == 1}


def _group(ledger: Ledger, name: str) -> list[RunRecord]:
    """Return the runs of a grid or of a submission, the newest first; none for another name."""
    records = newest_first(ledger.runs.values())
    of_grid = [r for r in records if r.grid == name]
    return current_members(of_grid) if of_grid else [r for r in records if r.submission == name]


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
            if record.superseded_by is None:
                newest.setdefault((record.grid, record.experiment), record)
        records = list(newest.values())
    return [record for record in records if all(test(record) for test in tests)]


def matching(ledger: Ledger, globs: Sequence[str], *, superseded: bool = True) -> list[RunRecord]:
    """Return the runs with a name that matches one of the globs; all runs without a glob.

    Without ``superseded``, superseded runs are left out, except where a glob is an id of theirs.
    """
    return [
        r
        for r in newest_first(ledger.runs.values())
        if (not globs or any(fnmatchcase(n, g) for n in names_of(r) for g in globs))
        and (superseded or r.superseded_by is None or _has_id(r, globs))
    ]


def _has_id(record: RunRecord, globs: Sequence[str]) -> bool:
    return record.run in globs or any(a.job_id in globs for a in record.attempts if a.job_id)
