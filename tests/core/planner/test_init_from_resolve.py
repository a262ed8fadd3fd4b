"""The meaning of names in ``init_from``: committed specs first, then recorded runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mtf.core.planner.init_from_resolve import Lineage, unknown_origins
from mtf.core.vocabulary.experiments import run_key
from mtf.core.vocabulary.records import Best, Checkpoint, Origin, RunRecord
from mtf.core.vocabulary.states import RunState
from tests.core.planner.worlds import desired, experiment, record

CKPT = Checkpoint("/runs/last.ckpt", 9, "f" * 64, 100, 3)
ALONE = experiment(seed=1)
DAY = "20260102T110000Z/cccccccc"
MEMBERS = [experiment(f"optimizer.lr={rate}", "search", lr=rate) for rate in (1, 2, 3)]


def done(of: Any, run: str, loss: float | None = None, **changes: Any) -> RunRecord:
    """Return the record of a completed run; its checkpoint's path is its id."""
    saved = replace(CKPT, path=f"/{run}")
    values: dict[str, Any] = {
        "run": run,
        "state": RunState.COMPLETED,
        "checkpoint": saved,
        "best_checkpoint": saved,
        "best": None if loss is None else Best("val_loss", loss, 1, 9),
    }
    return record(of, **{**values, **changes})


def origin(name: str, specs: Any = (), records: Any = (), checkpoint: str = "latest") -> Any:
    """Return the path of the checkpoint that a name resolves to, or the reason to wait."""
    keyed = [(d, tuple(run_key(e, {}) for e in d.experiments)) for d in specs]
    found = Lineage(keyed, records).origin({"run": name, "checkpoint": checkpoint})
    return found.path if isinstance(found, Origin) else found


def test_a_run_that_begins_from_a_changed_experiment_waits_for_its_new_run() -> None:
    old = done(experiment(seed=0), f"alone/{DAY}")
    assert origin("alone", [desired(ALONE)], [old]) == "waits for alone, which has not run yet"
    new = done(ALONE, "alone/20260101T000000Z/cccccccc")  # whichever was submitted later
    assert origin("alone", [desired(ALONE)], [old, new]) == f"/{new.run}"
    assert origin(old.run, [desired(ALONE)], [old, new]) == f"/{old.run}"


def test_a_name_that_is_no_longer_committed_means_its_newest_run() -> None:
    runs = [done(experiment(seed=s), f"alone/2026010{s}T000000Z/cccccccc") for s in (3, 5, 4)]
    assert origin("alone", (), runs) == f"/{runs[1].run}"


def test_an_unknown_name_waits_while_a_spec_cannot_be_read() -> None:
    run = done(ALONE, f"alone/{DAY}")
    lineage = Lineage((), [run], is_whole=False)
    words = lineage.origin({"run": "alone", "checkpoint": "latest"})
    assert words == "waits for alone, which may be a spec that has mistakes"
    assert isinstance(lineage.origin({"run": run.run, "checkpoint": "latest"}), Origin)


def test_the_best_of_a_grid_is_chosen_among_members_of_all_submissions() -> None:
    runs = [
        done(e, f"search/2026010{day}T000000Z/cccccccc/{e.name}", loss)
        for e, day, loss in zip(MEMBERS, (1, 1, 2), (0.2, 0.1, 0.3), strict=True)
    ]
    for specs in ([desired(*MEMBERS)], []):
        assert origin("search", specs, runs) == f"/{runs[1].run}"
    assert origin("search", [desired(*MEMBERS)], runs[:2]) == (
        "waits for search, 1 of its 3 runs are missing"
    )
    going = [*runs[:2], replace(runs[2], state=RunState.RUNNING)]
    assert origin("search", [desired(*MEMBERS)], going) == f"waits for {runs[2].run} (running)"
    failed = [*runs[:2], replace(runs[2], state=RunState.FAILED)]
    assert origin("search", [desired(*MEMBERS)], failed) == f"/{runs[1].run}"


def test_init_from_accepts_a_members_full_name_and_its_label() -> None:
    run = done(MEMBERS[1], f"search/{DAY}/{MEMBERS[1].name}")
    for name in ("search/optimizer.lr=2", "search/lr=2"):
        assert origin(name, [desired(*MEMBERS)], [run]) == f"/{run.run}"
    assert (
        origin("search/lr=3", [desired(*MEMBERS)]) == "waits for search/lr=3, which has not run yet"
    )


def test_without_a_metric_there_is_no_best_run() -> None:
    runs = [done(e, f"search/{DAY}/{e.name}") for e in MEMBERS]
    words = "is blocked: no run of search has a metric. Name one of them"
    assert origin("search", [desired(*MEMBERS)], runs) == words


@pytest.mark.parametrize("state", [RunState.CANCELLED, RunState.FAILED, RunState.TIMEOUT])
def test_a_run_named_by_its_id_may_have_ended_in_any_state(state: RunState) -> None:
    run = done(ALONE, f"alone/{DAY}", state=state)
    assert origin(run.run, (), [run]) == f"/{run.run}"
    assert origin("alone", (), [run]) == (
        f"is blocked: {run.run} is {state}. Retry it (mtf retry {run.run}), or name another run in"
        " init_from"
    )
    without = replace(run, checkpoint=None)
    assert origin(run.run, (), [without]).endswith(f" is {state} and has no checkpoint")


def test_best_and_latest_name_different_checkpoints() -> None:
    best = replace(CKPT, path="/best", step=4)
    run = done(ALONE, f"alone/{DAY}", 0.1, best_checkpoint=best)
    assert origin("alone", (), [run], "best") == "/best"
    words = origin("alone", (), [replace(run, best_checkpoint=None)], "best")
    assert words.endswith("is completed and has no checkpoint of its best epoch")


def test_an_unknown_name_is_a_problem_only_for_runs_that_are_not_recorded() -> None:
    asked = {"run": "alnoe", "checkpoint": "latest"}
    tuned = replace(experiment("tuned"), config={"slurm": {}, "init_from": asked})
    spec = replace(desired(tuned), named_at={"alnoe": ("experiments/tuned.yaml", 9, 12)})
    keyed = [
        (one, tuple(run_key(e, {}) for e in one.experiments)) for one in (spec, desired(ALONE))
    ]
    (problem,) = unknown_origins(keyed, Lineage(keyed, ()), ())
    assert str(problem) == (
        "experiments/tuned.yaml:9:12: init_from: no run or spec is called 'alnoe'."
        " Did you mean 'alone'?"
    )
    assert not unknown_origins(keyed, Lineage(keyed, ()), {run_key(tuned, {})})
