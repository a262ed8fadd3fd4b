"""The plan of a sync as text, Markdown and JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest

from mtf.core.vocabulary.actions import (
    Cancel,
    Plan,
    Rebuild,
    Record,
    Repin,
    Restore,
    Resume,
    Submit,
    Throttle,
)
from mtf.core.vocabulary.experiments import run_key
from mtf.core.vocabulary.ids import RunId
from mtf.errors import Problem
from mtf.report.plans import SpecChange, plan_json, plan_markdown, plan_text, verdict
from mtf.spec.schema.slurm_section import SLURMConfig
from tests.core.planner.worlds import desired, experiment, record

if TYPE_CHECKING:
    from mtf.core.vocabulary.jobs import Resources

MEMBER = experiment(
    "optimizer.lr=0.1,training.seed=1", "search", **{"optimizer.lr": 0.1, "training.seed": 1}
)
RUN = record(MEMBER, run=f"search/20260101T110000Z/cccccccc/{MEMBER.name}")


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


@pytest.mark.parametrize(
    ("plan", "text"),
    [
        (Plan((), 3, ()), "Plan: nothing to do, 3 unchanged."),
        (Plan((), 0, (), waiting=2), "Plan: nothing to do, 0 unchanged, 2 waiting for others."),
        (Plan((), 1, (), held=4), "Plan: nothing to do, 1 unchanged, 4 held back."),
    ],
)
def test_a_plan_without_actions_says_what_it_leaves_alone(plan: Plan, text: str) -> None:
    assert verdict(plan) == text


def test_the_summary_counts_actions_by_what_they_do() -> None:
    plan = Plan(
        (
            Cancel(RUN.run, RUN, "x"),
            Resume(RUN.run, RUN, "x"),
            Restore(RUN.run, RUN, "x"),
            Repin(RUN.run, RUN, "x", None, on_remote=False),
            Rebuild(RUN.run, RUN, "x"),
        ),
        0,
        (),
    )
    assert verdict(plan).startswith("Plan: 1 to continue, 1 to cancel, 3 to restore, 0 unchanged.")
    symbols = [line[0] for line in plan_text(plan, [], []).splitlines()[:-1]]
    assert symbols == ["-", "~", "!", "!", "!"]


@pytest.mark.parametrize("more", [0, 1, 30])
def test_fifty_actions_are_listed_and_the_others_counted(more: int) -> None:
    changes = (Record(RUN.run, RUN, f"{n} -> running") for n in range(50 + more))
    plan = Plan(tuple(changes), 0, ())
    lines = plan_text(plan, [], []).splitlines()
    assert sum(line.startswith("* ") for line in lines) == 50
    rest = [f"  ... and {more} more (mtf plan --format json)"] if more else []
    assert lines[50:-1] == rest


def test_many_actions_that_are_alike_are_one_line_for_their_grid() -> None:
    plan = Plan((Cancel(RUN.run, RUN, "its spec is gone (--prune)"),) * 12, 0, ())
    assert plan_text(plan, [], []).splitlines()[0] == (
        "- search: 12 runs: its spec is gone (--prune)"
    )


def test_a_plan_as_json_has_every_action_note_and_problem() -> None:
    plan = Plan((Record(RUN.run, RUN, "because"),) * 60, 4, ("drift",), waiting=1, held=2)
    value = json.loads(plan_json(plan, "c" * 40, [Problem("s.yaml", 2, 1, "unusual", "warning")]))
    assert len(value["actions"]) == 60
    assert value["actions"][0] == {
        "action": "record",
        "experiment": MEMBER.name,
        "run": RUN.run,
        "reason": "because",
    }
    assert (value["unchanged"], value["waiting"], value["held"]) == (4, 1, 2)
    assert (value["commit"], value["notes"]) == ("c" * 40, ["drift"])
    assert value["problems"][0]["severity"] == "warning"


def test_a_plan_as_markdown_is_its_text_in_a_code_block() -> None:
    plan = Plan((), 3, ("a ``` note",))
    text = plan_text(plan, [], [])
    assert plan_markdown(plan, [], []) == f"### mtf plan\n\n````\n{text}\n````\n"


def test_an_update_of_a_waiting_run_and_a_limit_of_a_grid_have_words_of_their_own() -> None:
    update = Resume(RUN.run, RUN, "slurm.time: 1:00 -> 2:00", withdraws=True)
    limit = Throttle(RUN.run, RUN, "at most 2 of its runs at a time (max_parallel)", ())
    assert plan_text(Plan((update, limit), 0, ()), [], []).splitlines() == [
        f"~ {RUN.run}: slurm.time: 1:00 -> 2:00",
        "% search: at most 2 of its runs at a time (max_parallel)",
        "Plan: 1 to update, 1 to limit, 0 unchanged. Run mtf sync to apply it.",
    ]
