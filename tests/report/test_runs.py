"""Runs as text: the status table, the page of a run, results and their order."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf.core.planner.journal_reader import Progress, starts_by_attempt
from mtf.core.planner.rows.run_rows import Row
from mtf.core.vocabulary.ids import RunId
from mtf.core.vocabulary.records import Best, Checkpoint, Origin
from mtf.core.vocabulary.states import RunState
from mtf.report.runs import (
    best_text,
    rank,
    results_table,
    run_page,
    status_table,
    summary,
    times_of_old,
)
from mtf.report.tables import count, render_csv, render_markdown, render_plain
from tests.core.planner.worlds import NOW, experiment, iso, record

if TYPE_CHECKING:
    from mtf.core.vocabulary.records import RunRecord

MEMBER = experiment(
    "optimizer.lr=0.1,training.seed=1", "search", **{"optimizer.lr": 0.1, "training.seed": 1}
)
RUN = replace(
    record(MEMBER, run=f"search/20260101T110000Z/cccccccc/{MEMBER.name}"),
    state=RunState.RUNNING,
    epoch=3,
    max_epochs=10,
    best=Best("val_accuracy", 0.91234, 2, 20, "max"),
    checkpoint=Checkpoint("/r/checkpoints/epoch_003_step_000030.ckpt", 30, "f" * 64, 10),
    parameters={"optimizer.lr": 0.1, "training.seed": 1},
    metrics={"val_accuracy": 0.9},
    submitted_at=iso(-90),
)
FAILED = replace(RUN, state=RunState.FAILED, best=None, reason="ValueError: x\nmore")


def row(of: RunRecord) -> Row:
    return Row(of, iso(-3), live=True)


def test_the_status_table_names_the_metric_once_and_shortens_run_names() -> None:
    assert render_plain(status_table([RUN], NOW)) == (
        "RUN                   STATE    SYNC    JOB  EPOCH  VAL_ACCURACY  CHECKPOINT\n"
        "search/lr=0.1,seed=1  running  Synced  77   3/10   0.9123        step 30"
    )


def test_a_failed_run_shows_its_cause_and_what_to_do() -> None:
    attempt = replace(
        FAILED.attempt, outcome="host-oom", ended_at=iso(), changes={"slurm.mem": "8G"}
    )
    killed = replace(FAILED, attempts=(attempt,))
    table = status_table([RUN, killed], NOW)
    at = table.headings.index("CAUSE")
    assert [row[at] for row in table.rows] == ["-", "host-oom"]
    page = run_page(row(killed), "", [])
    assert "cause      host-oom (mtf retry --where cause=host-oom --set slurm.mem=" in page
    assert "  slurm.mem=8G\n" in page


def test_the_status_table_shows_the_first_line_of_each_reason() -> None:
    table = status_table([RUN, FAILED], NOW)
    assert table.headings[-1] == "REASON"
    assert [row[-1] for row in table.rows] == ["", "ValueError: x"]


def test_the_wide_table_shortens_nothing() -> None:
    text = render_plain(status_table([RUN], NOW + timedelta(minutes=5), wide=True))
    assert RUN.run in text
    assert "/r/checkpoints/epoch_003_step_000030.ckpt sha256:ffffffff" in text
    assert "1 h ago" in text


def test_parameters_with_equal_last_parts_keep_their_whole_path() -> None:
    name = "model.size=1,data.size=2"
    twins = replace(RUN, run=RunId(f"search/20260101T110000Z/cccccccc/{name}"), experiment=name)
    assert twins.label == f"search/{name}"


def test_the_summary_counts_states_and_names_the_best_run() -> None:
    assert (
        summary([RUN, FAILED])
        == "2 runs: 1 running, 1 failed · best val_accuracy 0.9123 (search/lr=0.1,seed=1)"
    )
    assert count(1, "run") == "1 run"


def test_results_are_rendered_as_table_csv_and_markdown() -> None:
    table = results_table([RUN])
    assert table.headings == [
        "RUN",
        "STATE",
        "BEST",
        "optimizer.lr",
        "training.seed",
        "val_accuracy",
    ]
    assert (
        render_csv(table).splitlines()[1]
        == '"search/lr=0.1,seed=1",running,val_accuracy 0.9123,0.1,1,0.9'
    )
    assert "| search/lr=0.1,seed=1 | running |" in render_markdown(table)


def test_the_page_of_a_running_run_shows_its_speed_and_remaining_time() -> None:
    progress = Progress(total_steps=1000, steps_per_s=12.34, eta_s=4000.0)
    page = run_page(row(replace(RUN, step=30)), "", [], progress)
    assert "progress   epoch 3/10, step 30 of 1000, 12.3 steps/s, about 1 h 6 min left\n" in page
    assert "progress   epoch 3/10, step 30\n" in run_page(row(replace(RUN, step=30)), "", [])


def with_best(value: float, mode: Literal["min", "max"]) -> RunRecord:
    return replace(RUN, best=Best("metric", value, 1, 10, mode))


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=6), st.sampled_from(["min", "max"]))
def test_results_are_ordered_from_the_best_value_and_end_with_runs_without_one(
    values: list[float], mode: Literal["min", "max"]
) -> None:
    unranked = replace(RUN, best=None)
    ordered = sorted([unranked, *(with_best(v, mode) for v in values)], key=rank)
    assert [r.best.value for r in ordered if r.best] == sorted(values, reverse=mode == "max")
    assert ordered[-1] is unranked


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=6), st.sampled_from(["min", "max"]))
def test_the_summary_and_the_order_of_results_agree_on_the_best_run(
    values: list[float], mode: Literal["min", "max"]
) -> None:
    records = [with_best(v, mode) for v in values]
    best = min(records, key=rank)
    assert f"best {best_text(best)} (" in summary(records)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s ago"),
        (59, "59 s ago"),
        (60, "1 min ago"),
        (3599, "59 min ago"),
        (3600, "1 h ago"),
        (86399, "23 h ago"),
        (86400, "1 d ago"),
        (-5, "0 s ago"),
    ],
)
def test_the_wide_table_shows_ages_in_the_largest_unit_that_fits(seconds: int, text: str) -> None:
    table = status_table(
        [replace(RUN, submitted_at=iso())], NOW + timedelta(seconds=seconds), wide=True
    )
    assert table.rows[0][list(table.headings).index("SUBMITTED")] == text


def test_runs_with_different_metrics_share_a_column_that_names_each() -> None:
    other = replace(RUN, best=Best("val_loss", 0.5, 2, 20, "min"))
    table = status_table([RUN, other], NOW)
    at = list(table.headings).index("BEST")
    assert [row[at] for row in table.rows] == ["val_accuracy 0.9123", "val_loss 0.5"]


def test_the_cluster_is_shown_if_runs_are_on_several() -> None:
    assert "CLUSTER" not in status_table([RUN, RUN], NOW).headings
    table = status_table([RUN, replace(RUN, cluster="west")], NOW)
    at = list(table.headings).index("CLUSTER")
    assert [row[at] for row in table.rows] == ["default", "west"]


@pytest.mark.parametrize("wide", [False, True])
def test_long_reasons_are_cut_unless_the_table_is_wide(wide: bool) -> None:
    reason = "x" * 100
    table = status_table([replace(FAILED, reason=reason)], NOW, wide=wide)
    shown = table.rows[0][-1]
    assert shown == reason if wide else (len(shown), shown[-3:]) == (60, "...")


def test_advice_is_given_only_for_runs_that_mtf_does_not_continue() -> None:
    attempt = replace(RUN.attempt, outcome="host-oom", ended_at=iso())
    over = replace(FAILED, attempts=(attempt,))
    waiting = replace(over, state=RunState.PENDING)
    assert "(mtf retry " in run_page(row(over), "", [])
    assert "cause      host-oom\n" in run_page(row(waiting), "", [])


def test_the_page_of_a_run_lists_attempts_history_and_configuration() -> None:
    origin = Origin(RunId("first/t/c"), "/r/first.ckpt", "e" * 64, 7)
    page = run_page(row(replace(RUN, origin=origin)), "a: 1\nb: 2", ["abc mtf: record"])
    assert f"init from  first/t/c, step 7 (/r/first.ckpt, sha256 {'e' * 64})\n" in page
    assert "metrics    val_accuracy 0.9\n" in page
    assert "  1  job 77  not started ..   active\n" in page
    assert page.endswith("mtf/ledger)\n  abc mtf: record\n\nconfiguration\n  a: 1\n  b: 2")


def test_active_runs_that_cannot_be_seen_say_how_old_their_states_are() -> None:
    old = Row(RUN, iso(-90), live=False)
    table = status_table(
        [RUN, FAILED], NOW, old=times_of_old([old, Row(FAILED, iso(), live=False)])
    )
    at = table.headings.index("AS OF")
    assert table.rows[0][at] == "1 h ago"
    assert "AS OF" not in status_table([RUN], NOW).headings
    why = "slurm cannot be asked"
    assert f"as of      {iso(-90)} ({why})" in run_page(old, "", [], why_old=why)
    assert f"as of      {iso(-3)} (asked slurm)" in run_page(row(RUN), "", [])


def test_the_page_of_a_requeued_run_shows_each_start_and_what_ended_it() -> None:
    token = RUN.attempt.token
    events: list[dict[str, object]] = [
        {"event": "started", "at": iso(-30), "token": token},
        {"event": "checkpoint", "at": iso(-25), "path": "checkpoints/a.ckpt", "step": 7},
        {"event": "stopped", "at": iso(-24), "reason": "SIGTERM"},
        {"event": "started", "at": iso(-20), "token": token, "step": 7},
        {"event": "progress", "at": iso(-15), "step": 9},
        {"event": "started", "at": iso(-10), "token": token, "step": 7},
    ]
    page = run_page(row(RUN), "", [], starts=starts_by_attempt(events))
    assert f"start 1  {iso(-30)} .. {iso(-24)}  step 7  preempted (SIGTERM)" in page
    assert f"start 2  {iso(-20)} .. {iso(-15)}  step 9  requeued without a signal" in page
    assert f"start 3  {iso(-10)} ..   step 7\n" in page
    assert "start 1" not in run_page(row(RUN), "", [], starts=starts_by_attempt(events[:3]))
