"""Failed runs whose code the branch has changed since are named with `mtf rerun`, and no others."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mtf.core.selection.older_code import older_code_notes
from mtf.core.vocabulary.ids import CommitId, RunId
from mtf.core.vocabulary.states import RunState
from tests.core.planner.worlds import COMMIT, experiment, record

if TYPE_CHECKING:
    from mtf.core.vocabulary.ids import RunKey
    from mtf.core.vocabulary.records import RunRecord

TIP = CommitId("d" * 40)
FAILED = record(experiment(), state=RunState.FAILED)
GRID = [
    record(
        experiment(f"m{n}", "search", n=n),
        f"search/20260101T110000Z/cccccccc/m{n}",
        state=RunState.FAILED,
    )
    for n in range(3)
]


def notes(*records: RunRecord, changed: list[str], keys: set[RunKey] | None = None) -> list[str]:
    wanted = {r.key for r in records} if keys is None else keys
    return older_code_notes(records, wanted, (TIP, "main"), lambda _: changed)


def test_each_spec_with_failed_runs_gets_one_note_that_names_the_rerun() -> None:
    assert notes(FAILED, *GRID, changed=["src/model.py"]) == [
        "alone failed at cccccccc, and main has newer code (dddddddd): mtf rerun alone",
        "3 runs of search failed at older commits, and main has newer code (dddddddd):"
        " mtf rerun --where 'grid=search and state=failed'",
    ]


@pytest.mark.parametrize(
    "run",
    [
        replace(FAILED, state=RunState.COMPLETED),
        replace(FAILED, state=RunState.RUNNING),
        replace(FAILED, commit=TIP),
        replace(FAILED, superseded_by=RunId("alone/20260102T110000Z/dddddddd")),
    ],
)
def test_other_runs_are_not_named(run: RunRecord) -> None:
    assert notes(run, changed=["src/model.py"]) == []


def test_neither_specs_nor_documents_are_newer_code() -> None:
    changed = ["experiments/b.yaml", "mtf.yaml", "README.md"]
    assert notes(FAILED, changed=changed) == []
    assert notes(FAILED, changed=[*changed, "templates/job.sbatch.j2"]) != []


def test_a_run_that_no_spec_asks_for_any_more_is_not_named() -> None:
    assert notes(FAILED, changed=["a.py"], keys=set()) == []


def test_each_commit_is_compared_once() -> None:
    asked: list[CommitId] = []

    def changed(commit: CommitId) -> list[str]:
        asked.append(commit)
        return ["a.py"]

    older_code_notes([FAILED, *GRID], {r.key for r in (FAILED, *GRID)}, (TIP, "main"), changed)
    assert asked == [COMMIT]
