"""Small worlds for the planner's tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from mtf.core.planner.plan import Policy, World, plan
from mtf.core.vocabulary.actions import (
    Adopt,
    Cancel,
    Plan,
    Rebuild,
    Record,
    Repin,
    Resume,
    Submit,
    Throttle,
)
from mtf.core.vocabulary.experiments import Desired, Experiment, run_key
from mtf.core.vocabulary.ids import CommitId, JobId, RunId, Token, submission_of
from mtf.core.vocabulary.jobs import JobView
from mtf.core.vocabulary.records import Attempt, RunRecord
from mtf.core.vocabulary.states import JobState, RunState

COMMIT = CommitId("c" * 40)
NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def iso(minutes: float = 0) -> str:
    return (NOW + timedelta(minutes=minutes)).isoformat(timespec="seconds")


def experiment(name: str = "alone", grid: str | None = None, **values: Any) -> Experiment:
    return Experiment(
        name=name,
        grid=grid,
        config={"training": values, "slurm": {}},
        resources={},  # type: ignore[typeddict-item]
        parameters=values,
        generation=1,
        rerun_on=(),
    )


def desired(*experiments: Experiment) -> Desired:
    first = experiments[0]
    return Desired(
        first.owner_name, f"experiments/{first.owner_name}.yaml", experiments, None, None
    )


def record(
    of: Experiment, run: str = "alone/20260101T110000Z/cccccccc", **changes: Any
) -> RunRecord:
    attempt: dict[str, Any] = {
        "token": Token("a" * 16),
        "index": 0,
        "claimed_at": iso(-60),
        "claimed_by": "me@here:1",
        "lease_until": iso(-50),
        "job_id": JobId("77"),
        "submitted_at": iso(-60),
    }
    attempt |= changes.pop("attempt", {})
    values: dict[str, Any] = {
        "run": RunId(run),
        "experiment": of.name,
        "grid": of.grid,
        "branch": f"slurm-job/{submission_of(RunId(run))}",
        "commit": COMMIT,
        "key": run_key(of, {}),
        "generation": 1,
        "spec": "s.yaml",
        "executor": "slurm",
        "cluster": "default",
        "state": RunState.PENDING,
        "reason": "",
        "claimed_at": iso(-60),
        "observed_at": iso(-60),
        "run_dir": f"/runs/{run}",
        "attempts": (Attempt(**attempt),),
    }
    return RunRecord(**{**values, **changes})


def job(state: JobState, **changes: Any) -> JobView:
    values: dict[str, Any] = {
        "job_id": JobId("77"),
        "token": Token("a" * 16),
        "index": 0,
        "state": state,
        "raw_state": state.upper(),
    }
    return JobView(**{**values, **changes})


def world(
    *specs: Desired,
    records: tuple[RunRecord, ...] = (),
    jobs: tuple[JobView, ...] = (),
    **more: Any,
) -> World:
    return World(
        commit=COMMIT,
        desired=tuple((d, tuple(run_key(e, {}) for e in d.experiments)) for d in specs),
        records={r.run: r for r in records},
        live={"slurm": {(j.token, j.index or 0): j for j in jobs if j.token}, "local": {}},
        **more,
    )


def kinds(plan: Plan) -> list[type]:
    return [type(a) for a in plan.actions]


__all__ = ["Adopt", "Cancel", "Record", "Resume", "Submit"]


def first_record(made: Plan) -> RunRecord:
    """Return the run record that the plan's first action carries."""
    action = made.actions[0]
    assert not isinstance(action, Submit | Repin | Rebuild | Throttle)
    assert isinstance(action.record, RunRecord)
    return action.record


ALONE = experiment(seed=1)
SPEC = desired(ALONE)
POLICY = Policy()


def decide(w: World, policy: Policy = POLICY) -> Any:
    """Return the plan for a world as of `NOW`."""
    return plan(w, policy, NOW)
