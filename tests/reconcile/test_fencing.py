"""Fencing: attempts of another ledger are ended before their runs are acted on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from mtf.core.vocabulary.actions import Cancel
from mtf.core.vocabulary.ids import record_path
from mtf.reconcile.fencing import Fence
from tests.core.planner.worlds import experiment, iso, record


def test_a_run_whose_other_attempts_cannot_be_ended_holds_up_no_other_run() -> None:
    unreachable = record(experiment("a"), "a/20260101T110000Z/cccccccc", cluster="elsewhere")
    reachable = record(
        experiment("b"),
        "b/20260101T110000Z/cccccccc",
        run_dir="/nowhere/b/20260101T110000Z/cccccccc",
        attempt={"job_id": None},
    )
    both = [Cancel(r.run, r, "its spec is gone") for r in (unreachable, reachable)]
    findings = [
        SimpleNamespace(path=record_path(r.run), rivals=r.attempts)
        for r in (unreachable, reachable)
    ]
    said: list[str] = []
    ledger: Any = SimpleNamespace(findings=findings)
    executors: Any = SimpleNamespace(runs_root="/nowhere")

    kept = Fence(ledger, {}, executors, "default", iso(), said.append).settle(both)

    assert kept == [both[1]]
    assert said == [
        f"failed   {unreachable.run}: other attempts may still be running: their folder"
        f" {unreachable.run_dir} cannot be reached from here. Run mtf sync where it can",
        f"ended    {reachable.run}: 1 attempt of another ledger",
    ]
