"""Runs, plans and problems as the text and tables that people read."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, cast

from mtf.core.planner.journal_reader import Progress
from mtf.core.vocabulary.actions import Plan, Record, Submit
from mtf.core.vocabulary.experiments import run_key
from mtf.core.vocabulary.ids import RunId
from mtf.core.vocabulary.records import Best, Checkpoint
from mtf.core.vocabulary.states import RunState
from mtf.errors import Problem, SpecError
from mtf.report.plans import SpecChange, plan_text
from mtf.report.problems import render_problems
from mtf.report.runs import results_table, run_page, status_table, summary
from mtf.report.tables import Columns, count, render_csv, render_markdown, render_plain
from mtf.spec.schema.slurm_section import SLURMConfig
from tests.core.planner.worlds import NOW, desired, experiment, iso, record

if TYPE_CHECKING:
    from mtf.core.vocabulary.jobs import Resources

MEMBER = experiment("optimizer.lr=0.1,training.seed=1", "search", **{"optimizer.lr": 0.1, "training.seed": 1})  # fmt: skip
RUN = replace(
    record(MEMBER, run=f"search/20260101T110000Z/cccccccc/{MEMBER.name}"),
    state=RunState.RUNNING, epoch=3, max_epochs=10, best=Best("val_accuracy", 0.91234, 2, 20, "max"),
    checkpoint=Checkpoint("/r/checkpoints/epoch_003_step_000030.ckpt", 30, "f" * 64, 10),
    parameters={"optimizer.lr": 0.1, "training.seed": 1}, metrics={"val_accuracy": 0.9}, submitted_at=iso(-90),
)  # fmt: skip
FAILED = replace(RUN, state=RunState.FAILED, best=None, reason="ValueError: x\nmore")


def test_the_status_table_names_the_metric_once_and_shortens_run_names() -> None:
    assert render_plain(status_table([RUN], NOW)) == (
        "RUN                   STATE    SYNC    JOB  EPOCH  VAL_ACCURACY  CHECKPOINT\n"
        "search/lr=0.1,seed=1  running  Synced  77   3/10   0.9123        step 30"
    )


def test_a_failed_run_shows_its_cause_and_what_to_do() -> None:
    attempt = replace(FAILED.attempt, outcome="host-oom", ended_at=iso(), changes={"slurm.mem": "8G"})  # fmt: skip
    killed = replace(FAILED, attempts=(attempt,))
    table = status_table([RUN, killed], NOW)
    at = table.headings.index("CAUSE")
    assert [row[at] for row in table.rows] == ["-", "host-oom"]
    page = run_page(killed, "", [])
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
    assert render_markdown(Columns(["a"], [["x|y"]])) == "| a |\n| --- |\n| x\\|y |"


def test_a_plan_ends_with_its_summary_line() -> None:
    spec = desired(MEMBER)
    submit = Submit(RunId("search/t/c/x"), spec, MEMBER, run_key(MEMBER, {}))
    asks = SLURMConfig(time="02:00:00", gpus_per_node=2).model_dump()
    change = SpecChange("search", "s.yaml", (replace(MEMBER, resources=cast("Resources", asks)),))
    text = plan_text(
        Plan((submit, Record(RUN.run, RUN, "pending -> running")), 4, ("drift",)),
        [change],
        [Problem("s.yaml", 2, 1, "unusual", "warning"), Problem("s.yaml", 3, 1, "too much")],
    )
    assert text.splitlines() == [
        "search  s.yaml",
        "  + 1 run   1 node, 2 GPU, 1 CPU, 02:00:00",
        "      optimizer.lr: 0.1",
        "      training.seed: 1",
        "      at most 4 GPU-h, 2 CPU-h",
        "",
        f"* {RUN.run}: pending -> running",
        "note: drift",
        "s.yaml:2:1: warning: unusual",
        "error: s.yaml:3:1: too much",
        "Plan: 1 to submit, 1 to record, 4 unchanged. Run mtf sync to apply it.",
    ]


def test_annotations_for_github_are_escaped() -> None:
    problem = Problem("a,b.yaml", 3, 7, "50% of\nit")
    assert (
        render_problems([problem], "github")
        == "::error file=a%2Cb.yaml,line=3,col=7::50%25 of%0Ait"
    )
    assert render_problems([problem], "text") == "a,b.yaml:3:7: 50% of\nit"


def test_people_see_the_first_hundred_problems_of_a_file_and_json_has_all() -> None:
    unusual = [Problem("a.yaml", n, 1, "unusual", "warning") for n in range(1, 121)]
    wrong = [Problem("a.yaml", n, 1, "wrong") for n in range(200, 261)]
    problems = [*unusual, *wrong, Problem("b.yaml", 1, 1, "wrong")]
    lines = render_problems(problems, "text").splitlines()
    assert len(lines) == 102
    assert lines[38:40] == ["a.yaml:39:1: warning: unusual", "a.yaml:200:1: wrong"]
    assert lines[-2:] == [
        "a.yaml:40:1: warning: and 81 more in this file: mtf validate --format json lists them all",
        "b.yaml:1:1: wrong",
    ]
    assert len(render_problems(problems, "github").splitlines()) == 102
    assert len(json.loads(render_problems(problems, "json"))) == 182
    assert str(SpecError(wrong * 2)).count("wrong") == 61
    assert "a.yaml:101:1: and 6,900 more" in str(
        SpecError([Problem("a.yaml", n, 1, "wrong") for n in range(1, 7001)])
    )


def test_the_page_of_a_running_run_shows_its_speed_and_remaining_time() -> None:
    progress = Progress(total_steps=1000, steps_per_s=12.34, eta_s=4000.0)
    page = run_page(replace(RUN, step=30), "", [], progress)
    assert "progress   epoch 3/10, step 30 of 1000, 12.3 steps/s, about 1 h 6 min left\n" in page
    assert "progress   epoch 3/10, step 30\n" in run_page(replace(RUN, step=30), "", [])
