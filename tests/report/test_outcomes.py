"""The outcome of a sync in words: every run that something happened to, summed up by grid."""

from __future__ import annotations

from mtf.core.planner.deeds import Deed, Done
from mtf.core.vocabulary.ids import RunId
from mtf.report.outcomes import counts_text, done_as_json, done_counts, done_lines


def members(deed: Deed, owner: str, number: int, cause: str | None = None) -> list[Done]:
    return [
        Done(deed, RunId(f"{owner}/x/{n}"), f"{owner}/{n}", owner, f"why {n}\nmore", cause)
        for n in range(number)
    ]


def test_a_few_runs_of_a_grid_get_a_line_each_with_their_reason() -> None:
    assert done_lines(members(Deed.FAILED, "search", 2)) == [
        "failed      search/0: why 0",
        "failed      search/1: why 1",
    ]


def test_many_runs_of_a_grid_are_one_line_with_their_causes() -> None:
    done = [
        *members(Deed.FAILED, "search", 8, "code-error"),
        *members(Deed.FAILED, "search", 4, "host-oom"),
        *members(Deed.COMPLETED, "other", 5, "completed"),
    ]
    assert done_lines(done) == [
        "completed   other: 5 runs",
        "failed      search: 12 runs (8 code-error, 4 host-oom)",
    ]


def test_what_happened_to_very_many_experiments_is_cut_with_its_number() -> None:
    done = [one for n in range(100) for one in members(Deed.FAILED, f"single{n}", 1)]
    lines = done_lines(done)
    assert len(lines) == 30
    assert lines[-1] == "... and 71 more: mtf status"


def test_progress_and_submissions_are_counted_without_a_line() -> None:
    done = [*members(Deed.SUBMITTED, "a", 1000), *members(Deed.UPDATED, "b", 2)]
    assert done_lines(done) == []
    assert counts_text(done_counts(done)) == "1000 submitted, 2 updated"


def test_json_has_a_key_for_each_deed_whatever_was_done() -> None:
    empty = done_as_json([])
    assert {"submitted", "refused", "uncertain", "put_off", "timeout", "pruned"} <= empty.keys()
    assert not any(empty.values())
    assert all(key.isidentifier() for key in empty)
    (one,) = members(Deed.UNCLEAR, "a", 1)
    assert done_as_json([one])["uncertain"] == {one.run: "why 0\nmore"}
