"""Resources of attempts: summed up over processes and sources, and turned into advice."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf.core.usage.advice import advice
from mtf.core.usage.used import NAMES, is_amount, reported, sound, together
from mtf.core.vocabulary.states import RunState
from tests.core.planner.worlds import desired, experiment, record
from tests.executor.contract import resources

if TYPE_CHECKING:
    from mtf.core.vocabulary.experiments import Desired
    from mtf.core.vocabulary.records import RunRecord


def report(rank: int = 0, restarts: int = 0, host: str = "n1", **used: float) -> dict[str, Any]:
    return {"token": "t", "rank": rank, "restarts": restarts, "host": host, **used}


def test_processes_of_a_node_are_added_and_the_greatest_node_counts() -> None:
    events = [
        report(0, peak_memory_mb=100, cpu_s=5, peak_gpu_memory_mb=10),
        report(1, peak_memory_mb=150, cpu_s=7, peak_gpu_memory_mb=40),
        report(2, host="n2", peak_memory_mb=200, cpu_s=1),
        {**report(0, peak_memory_mb=9999), "token": "another attempt"},
    ]
    assert reported(events, "t") == {
        "peak_memory_mb": 250,
        "cpu_s": 13,
        "peak_gpu_memory_mb": 40,
    }
    assert reported(events, None) == {}


def test_the_last_report_of_a_process_counts_and_a_requeued_job_adds_up() -> None:
    events = [
        report(peak_memory_mb=100, cpu_s=50),
        report(peak_memory_mb=110, cpu_s=60),
        report(restarts=1, peak_memory_mb=80, cpu_s=30),
    ]
    assert reported(events, "t") == {"peak_memory_mb": 110, "cpu_s": 90}


TIMES = {
    "submitted_at": "2026-01-01T00:00:00+00:00",
    "started_at": "2026-01-01T00:02:00+00:00",
    "ended_at": "2026-01-01T01:02:00+00:00",
}


def test_of_two_sources_the_greater_amount_counts() -> None:
    used = together({"peak_memory_mb": 10, "cpu_s": 5}, {"peak_memory_mb": 8, "cpu_s": 6}, TIMES)
    assert used == {"peak_memory_mb": 10, "cpu_s": 6, "wait_s": 120, "run_s": 3600}
    assert together({}, {}, {**TIMES, "started_at": None}) == {}


@given(st.dictionaries(st.sampled_from([*NAMES, "else"]), st.floats() | st.text() | st.none()))
def test_anything_in_a_journal_gives_few_sound_amounts(values: dict[str, Any]) -> None:
    found = reported([{"token": "t", **values}], "t")
    assert found.keys() <= set(NAMES)
    assert all(map(is_amount, found.values()))
    assert sound(values).keys() <= set(NAMES)


# -- advice ----------------------------------------------------------------------------------------


def done(number: int, **used: float) -> RunRecord:
    run = f"a/20260101T11000{number}Z/cccccccc"
    attempt = {"resources": used}
    return record(experiment("a"), run, state=RunState.COMPLETED, attempt=attempt)


def asking(**needs: Any) -> Desired:
    return desired(replace(experiment("a"), resources=resources(**needs)))


@pytest.mark.parametrize(
    ("needs", "used", "words"),
    [
        (
            {"mem": "64G"},
            {"peak_memory_mb": 4200},
            "a asks for 64G (slurm.mem), and 3 completed runs used 4.1G at most",
        ),
        (
            {"time": "1-00:00:00"},
            {"run_s": 4200},
            "a asks for 1 d 0 h (slurm.time), and 3 completed runs took 1 h 10 min at most",
        ),
        (
            {"cpus_per_task": 16},
            {"run_s": 100, "cpu_s": 210},
            "a asks for 16 CPUs (slurm.cpus_per_task), and 3 completed runs kept busy 2.1 CPUs at most",
        ),
    ],
)
def test_a_spec_that_asks_for_much_more_than_its_like_used_gets_advice(
    needs: dict[str, Any], used: dict[str, float], words: str
) -> None:
    runs = [done(n, **used) for n in range(3)]
    assert list(advice([asking(**needs)], runs)) == [words]
    assert list(advice([asking(**needs)], runs[:2])) == [], "two runs are no evidence"
    failed = [replace(run, state=RunState.FAILED) for run in runs]
    assert list(advice([asking(**needs)], failed)) == []


def test_the_run_that_used_most_counts_and_small_differences_are_left_alone() -> None:
    runs = [done(0, peak_memory_mb=100), done(1, peak_memory_mb=100), done(2, peak_memory_mb=30000)]
    assert list(advice([asking(mem="64G")], runs)) == []
    small = [done(n, peak_memory_mb=100, run_s=60) for n in range(3)]
    assert list(advice([asking(mem="2G", time="00:30:00")], small)) == []
    assert list(advice([asking(mem=None, time=None)], small)) == []
