"""Finds failed runs that were pinned to older code than the branch has now. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from mtf.core.vocabulary.ids import name_of
from mtf.core.vocabulary.states import RunState

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from mtf.core.vocabulary.ids import CommitId, RunKey
    from mtf.core.vocabulary.records import RunRecord

_MOST_COMMITS = 20  # that are compared with the tip, the newest runs' first
# Files that a run with the same key cannot depend on: its configuration is part of the key.
_NO_CODE = (".yaml", ".yml", ".md", ".rst", ".txt")


def is_code(path: str) -> bool:
    """Return True if a file may be code that a run executes."""
    return not path.lower().endswith(_NO_CODE)


def older_code_notes(
    records: Iterable[RunRecord],
    keys: Collection[RunKey],
    tip: tuple[CommitId, str],
    changed_paths: Callable[[CommitId], Iterable[str]],
) -> list[str]:
    """Return a note for each spec with failed runs that the tip's code might mend.

    Args:
        records: of all runs.
        keys: of the runs that the tip's specs ask for.
        tip: the newest commit, and the name of its branch.
        changed_paths: the files that differ between a commit and the tip.
    """
    commit, branch = tip
    failed = [
        r
        for r in records
        if r.state is RunState.FAILED
        and r.superseded_by is None
        and r.commit != commit
        and r.key in keys
    ]
    newest_first = sorted(failed, key=lambda r: r.run.split("/")[1], reverse=True)
    commits = list(dict.fromkeys(r.commit for r in newest_first))[:_MOST_COMMITS]
    older = {c for c in commits if any(map(is_code, changed_paths(c)))}
    counts = Counter(name_of(r.run) for r in failed if r.commit in older)
    pinned = {name_of(r.run): r for r in failed if r.commit in older}
    return [_note(pinned[name], number, branch, commit) for name, number in sorted(counts.items())]


def _note(record: RunRecord, number: int, branch: str, tip: CommitId) -> str:
    has = f"and {branch} has newer code ({tip[:8]})"
    if record.grid is None:
        run = f"{record.experiment} failed at {record.commit[:8]}, {has}"
        return f"{run}: mtf rerun {record.experiment}"
    runs = "1 run" if number == 1 else f"{number} runs"
    return (
        f"{runs} of {record.grid} failed at older commits, {has}:"
        f" mtf rerun --where 'grid={record.grid} and state=failed'"
    )
