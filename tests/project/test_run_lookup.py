"""Which runs a name, several names and conditions mean."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf.core.vocabulary.ids import JobId
from mtf.core.vocabulary.states import RunState
from mtf.errors import MtfError, UsageError
from mtf.ledger.store import Ledger
from mtf.project.run_lookup import (
    choose,
    find_run,
    find_runs,
    matching,
    named_one_by_one,
    newest_first,
)
from tests.core.planner.worlds import experiment, iso, record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mtf.core.vocabulary.ids import RunId
    from mtf.core.vocabulary.records import RunRecord

TIMES = ("20250101T110000Z", "20260101T110000Z", "20260102T110000Z")


def ledger_of(records: Iterable[RunRecord]) -> Ledger:
    return Ledger(None, {r.run: r for r in records}, frozenset())


def single(name: str, at: str) -> RunRecord:
    return record(experiment(name), run=f"{name}/{at}/cccccccc")


def member(grid: str, name: str, at: str) -> RunRecord:
    return record(experiment(name, grid), run=f"{grid}/{at}/cccccccc/{name}")


def ids(records: Iterable[RunRecord]) -> list[RunId]:
    return [r.run for r in records]


# -- names -----------------------------------------------------------------------------------------

SUBMISSIONS = st.dictionaries(
    st.tuples(st.sampled_from(["search", "sweep"]), st.sampled_from(TIMES)),
    st.sets(st.sampled_from(["lr=1", "lr=2", "lr=3"]), min_size=1),
    min_size=1,
)


@given(SUBMISSIONS)
def test_a_grids_name_means_the_members_of_its_newest_submission(
    submissions: dict[tuple[str, str], set[str]],
) -> None:
    ledger = ledger_of(
        member(g, name, at) for (g, at), names in submissions.items() for name in names
    )
    for grid in {grid for grid, _ in submissions}:
        newest = max(at for g, at in submissions if g == grid)
        expected = {f"{grid}/{newest}/cccccccc/{name}" for name in submissions[grid, newest]}
        assert set(ids(find_runs(ledger, [grid]))) == expected


@given(SUBMISSIONS)
def test_a_submissions_id_means_all_its_members_however_old(
    submissions: dict[tuple[str, str], set[str]],
) -> None:
    ledger = ledger_of(
        member(g, name, at) for (g, at), names in submissions.items() for name in names
    )
    for (grid, at), names in submissions.items():
        submission = f"{grid}/{at}/cccccccc"
        expected = {f"{submission}/{name}" for name in names}
        assert set(ids(find_runs(ledger, [submission]))) == expected


@given(SUBMISSIONS)
def test_a_members_name_means_its_newest_run(submissions: dict[tuple[str, str], set[str]]) -> None:
    newest: dict[str, str] = {}
    for (grid, at), names in sorted(submissions.items(), key=lambda item: item[0][1]):
        newest |= {f"{grid}/{name}": f"{grid}/{at}/cccccccc/{name}" for name in names}
    ledger = ledger_of(
        member(g, name, at) for (g, at), names in submissions.items() for name in names
    )
    for name, run in newest.items():
        assert find_run(ledger, name).run == run
        assert ids(find_runs(ledger, [name])) == [run]


@given(st.sets(st.sampled_from(TIMES), min_size=1))
def test_an_experiments_name_means_its_newest_run(times: set[str]) -> None:
    ledger = ledger_of([*(single("alone", at) for at in times), single("other", TIMES[-1])])
    assert find_run(ledger, "alone").run == f"alone/{max(times)}/cccccccc"
    for at in times:  # its id names any run
        assert find_run(ledger, f"alone/{at}/cccccccc").run == f"alone/{at}/cccccccc"


@given(st.lists(st.sampled_from(["search", "alone", f"search/{TIMES[0]}/cccccccc", "search/lr=1"])))
def test_several_names_mean_the_runs_of_each_and_each_run_once(names: list[str]) -> None:
    ledger = ledger_of(
        [
            *(member("search", name, at) for name in ("lr=1", "lr=2") for at in TIMES[:2]),
            single("alone", TIMES[0]),
        ]
    )
    found = ids(find_runs(ledger, names))
    assert len(found) == len(set(found))
    assert set(found) == {run for name in names for run in ids(find_runs(ledger, [name]))}


def test_a_job_id_names_its_run() -> None:
    ledger = ledger_of(
        [
            replace(
                single(name, TIMES[0]),
                attempts=(replace(single(name, TIMES[0]).attempt, job_id=JobId(job)),),
            )
            for name, job in (("one", "71"), ("two", "72"))
        ]
    )
    assert find_run(ledger, "72").experiment == "two"


def test_an_unambiguous_prefix_names_a_run() -> None:
    ledger = ledger_of([single("alone", TIMES[0]), single("other", TIMES[0])])
    assert find_run(ledger, "alo").experiment == "alone"


def test_a_whole_name_is_no_prefix_of_a_longer_one() -> None:
    ledger = ledger_of([single("alone", TIMES[0]), single("alone_again", TIMES[1])])
    assert find_run(ledger, "alone").experiment == "alone"


def test_a_prefix_of_several_runs_is_refused_and_lists_them() -> None:
    ledger = ledger_of([single(f"alone{n}", TIMES[0]) for n in range(12)])
    with pytest.raises(MtfError, match="names 12 runs") as caught:
        find_run(ledger, "alo")
    assert f"  alone0/{TIMES[0]}/cccccccc" in str(caught.value)
    assert str(caught.value).endswith("... and 2 more")


@pytest.mark.parametrize("name", ["alnoe", "alone/1999", "78", ""])
def test_a_name_of_no_run_is_refused(name: str) -> None:
    ledger = ledger_of([single("alone", TIMES[0])] if name else [])
    with pytest.raises(MtfError, match="no such run"):
        find_runs(ledger, ["alone", name] if name else [name])


def test_a_misspelled_name_is_answered_with_the_nearest() -> None:
    ledger = ledger_of([member("search", "lr=1", TIMES[0])])
    with pytest.raises(MtfError, match=r"serch: no such run. Did you mean 'search'\?"):
        find_run(ledger, "serch")


def test_globs_match_any_name_of_a_run_and_keep_every_submission() -> None:
    records = [member("search", "lr=1", at) for at in TIMES] + [single("alone", TIMES[1])]
    ledger = ledger_of(records)
    assert ids(matching(ledger, ["s*"])) == [f"search/{at}/cccccccc/lr=1" for at in TIMES[::-1]]
    assert ids(matching(ledger, ["alone", "*/lr=1"])) == ids(newest_first(records))
    assert ids(matching(ledger, [])) == ids(newest_first(records))


# -- superseded runs -------------------------------------------------------------------------------


def superseded(grid: str, name: str, at: str, by: str) -> RunRecord:
    successor = member(grid, name, by)
    return replace(member(grid, name, at), superseded_by=successor.run)


def test_a_grid_of_which_parts_were_run_again_is_named_as_a_whole() -> None:
    first, second, third = TIMES
    ledger = ledger_of(
        [
            superseded("search", "lr=1", first, by=second),
            superseded("search", "lr=2", first, by=third),
            member("search", "lr=3", first),
            member("search", "lr=1", second),
            member("search", "lr=2", third),
        ]
    )
    current = [
        f"search/{third}/cccccccc/lr=2",
        f"search/{second}/cccccccc/lr=1",
        f"search/{first}/cccccccc/lr=3",
    ]
    assert ids(find_runs(ledger, ["search"])) == current
    assert ids(choose(ledger, [], ["grid=search"])) == current
    assert ids(matching(ledger, ["search*"], superseded=False)) == current
    assert len(matching(ledger, ["search*"])) == 5


def test_a_superseded_run_is_found_by_its_id_alone() -> None:
    old, new = (
        superseded("search", "lr=1", TIMES[0], by=TIMES[1]),
        member("search", "lr=1", TIMES[1]),
    )
    ledger = ledger_of([old, new])
    assert find_run(ledger, old.run) == old
    assert find_run(ledger, "search/2") == new
    assert matching(ledger, [old.run], superseded=False) == [old]


def test_only_names_of_one_run_name_it_itself() -> None:
    ledger = ledger_of(
        [
            single("alone", TIMES[0]),
            *(member("search", f"lr={n}", TIMES[1]) for n in range(2)),
        ]
    )
    assert named_one_by_one(ledger, ["alone", "search/lr=0", "search"]) == {
        f"alone/{TIMES[0]}/cccccccc",
        f"search/{TIMES[1]}/cccccccc/lr=0",
    }


# -- conditions ------------------------------------------------------------------------------------


def ended(name: str, state: RunState, cause: str, *, at: str = TIMES[1]) -> RunRecord:
    made = record(experiment(name), run=f"{name}/{at}/cccccccc", state=state)
    attempt = replace(made.attempt, outcome=cause, ended_at=iso())
    return replace(made, attempts=(attempt,))


LEDGER = ledger_of(
    [
        ended("small", RunState.FAILED, "host-oom"),
        ended("large", RunState.FAILED, "cuda-oom"),
        ended("late", RunState.TIMEOUT, "time-limit"),
        ended("large", RunState.FAILED, "host-oom", at=TIMES[0]),  # of an older submission
    ]
)


@pytest.mark.parametrize(
    ("where", "names"),
    [
        (["cause=host-oom"], ["small"]),
        (["cause=host-oom,cuda-oom"], ["large", "small"]),
        (["state=failed", "name=l*"], ["large"]),
        (["state=failed,timeout", "cause=time-limit"], ["late"]),
        (["cause=lost"], []),
    ],
)
def test_all_conditions_hold_together_for_the_newest_run_of_each_name(
    where: list[str], names: list[str]
) -> None:
    assert [r.experiment for r in choose(LEDGER, [], where)] == names


def test_conditions_narrow_named_runs() -> None:
    old = f"large/{TIMES[0]}/cccccccc"
    assert ids(choose(LEDGER, [old, "late"], ["cause=host-oom"])) == [old]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cause=host-om", "no cause 'host-om'. Did you mean 'host-oom'?"),
        ("state=failled", "no state 'failled'. Did you mean 'failed'?"),
        (
            "casue=host-oom",
            "column 1: no run has a metric or parameter 'casue'. Did you mean 'cause'?",
        ),
        ("cause=", "column 7: a value is missing here"),
        ("host-oom", "column 9: expected =, !="),
    ],
)
def test_a_condition_that_is_not_valid_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        choose(LEDGER, [], [text])
    assert message in str(caught.value)
