"""A sync that withdraws waiting jobs, or lets runs follow a canary, is killed at its effects.

A waiting run gets a job with other resources, or is held back after too many failures.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mtf import rundir
from mtf.core.vocabulary.states import RunState
from tests.crash.campaign import each_once, leftover_files, wait_for
from tests.crash.clones import records
from tests.crash.killer import Kill, Outcome, Task, purpose, run
from tests.crash.repositories import copy_world, grid, make_world
from tests.executor.local.bench import end_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mtf.core.vocabulary.records import RunRecord
    from tests.repos import Repo

SYNC = ("sync",)
WITHDRAWS = {"reconcile: link .claims/<id>", "executor.local: sql UPDATE"}
SUBMITS = {
    "ledger: git fast-import",
    "reconcile: rename configs.jsonl",
    "executor.local: rename job.sbatch",
    "executor.local: sql COMMIT",
}


@dataclass
class World:
    """One repository with a grid of which one run goes on."""

    lab: Repo
    kill: Kill | None = None
    outcome: Outcome | None = None
    faults: list[str] = field(default_factory=list)

    @property
    def runs(self) -> list[RunRecord]:
        return sorted(records(self.lab), key=lambda record: record.experiment)

    @property
    def lives(self) -> list[list[str]]:
        paths = [Path(record.run_dir) / "lives" for record in self.runs]
        return [path.read_text().split() if path.exists() else [] for path in paths]

    def touch(self, name: str) -> None:
        (self.lab.path / "runs" / name).touch()

    def remove(self, name: str) -> None:
        (self.lab.path / "runs" / name).unlink(missing_ok=True)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    end_all(tmp_path)


def campaign(
    folder: Path, spec: str, prepare: Callable[[list[World]], None], expected: set[str]
) -> list[World]:
    """Return worlds in which the sync after ``prepare`` was killed, each at another effect."""
    lab = make_world(folder / "base", executor="local", remote=False)
    lab.commit({"experiments/many.yaml": spec})
    (lab.path / "runs").mkdir()
    (lab.path / "runs" / "hold").touch()
    whole = World(copy_world(folder / "base", folder / "whole"))
    _crash([whole], prepare)
    assert whole.outcome is not None
    effects = whole.outcome.effects
    assert expected <= set(map(purpose, effects)), sorted(effects)
    kills = each_once(effects, {e for e in effects if purpose(e) not in expected})
    worlds = [
        World(copy_world(folder / "base", folder / str(n)), kill) for n, kill in enumerate(kills)
    ]
    _crash(worlds, prepare)
    return [whole, *worlds]


def _crash(worlds: list[World], prepare: Callable[[list[World]], None]) -> None:
    sync(worlds)
    prepare(worlds)
    outcomes = sync(worlds, [world.kill for world in worlds])
    for world, outcome in zip(worlds, outcomes, strict=True):
        world.outcome = outcome
    sync(worlds)


def sync(
    worlds: Sequence[World], kills: Sequence[Kill | None] | None = None, args: Sequence[str] = SYNC
) -> list[Outcome]:
    given = kills or [None] * len(worlds)
    outcomes = run(
        Task(str(w.lab.path), args, kill=kill) for w, kill in zip(worlds, given, strict=True)
    )
    for world, kill, outcome in zip(worlds, given, outcomes, strict=True):
        if outcome.code != (-9 if kill else 0):
            world.faults.append(f"{args}: {outcome.code} {outcome.output}")
    return outcomes


def wait_for_lives(worlds: Sequence[World], numbers: list[int]) -> None:
    def are_there() -> bool:
        return all([len(jobs) for jobs in world.lives] == numbers for world in worlds)

    assert wait_for(are_there, 120), [world.lives for world in worlds]


def end(worlds: Sequence[World]) -> None:
    """Let all jobs end, and sync until every run is over; note what is left behind."""
    for world in worlds:
        world.remove("hold")

    def are_over() -> bool:
        sync([w for w in worlds if not all(r.is_over for r in w.runs)])
        return all(r.is_over or w.faults for w in worlds for r in w.runs)

    assert wait_for(are_over, 120), [(w.kill, w.runs) for w in worlds]
    plans = run(Task(str(w.lab.path), ("plan", "--format", "json")) for w in worlds)
    for world, plan in zip(worlds, plans, strict=True):
        if actions := json.loads(plan.output)["actions"]:
            world.faults.append(f"the plan is not empty: {actions}")
        world.faults += [f"left behind: {path}" for path in leftover_files(world.lab.path)]
        world.faults += [
            f"{record.run}: {record.state} ({record.reason})"
            for record in world.runs
            if record.state is not RunState.COMPLETED
        ]


def no_faults(worlds: Sequence[World]) -> None:
    assert not [(world.kill, world.faults) for world in worlds if world.faults]


def test_a_killed_update_of_a_waiting_run_is_completed_by_the_next_sync(folder: Path) -> None:
    spec = grid(seeds=2) + "max_parallel: 1\n"

    def more_memory(worlds: list[World]) -> None:
        wait_for_lives(worlds, [1, 0])
        for world in worlds:
            world.lab.commit({"experiments/many.yaml": spec.replace("mem: 100M", "mem: 200M")})

    worlds = campaign(folder, spec, more_memory, WITHDRAWS | SUBMITS)
    end(worlds)
    no_faults(worlds)
    for world in worlds:
        assert world.lives == [[record.job_id] for record in world.runs], world.kill
        memory = [record.attempt.changes.get("slurm.mem") for record in world.runs]
        assert memory == [None, "200M"], world.kill  # what the jobs really have is recorded
        for record, asked in zip(world.runs, ("100M", "200M"), strict=True):
            config = (Path(record.run_dir) / rundir.CONFIG).read_text()
            assert re.search(rf"mem: ['\"]?{asked}", config), world.kill


def test_a_killed_withdrawal_after_too_many_failures_is_completed_by_the_next_sync(
    folder: Path,
) -> None:
    spec = grid(seeds=3) + "max_parallel: 1\nmax_failed: 1\n"

    def fail(worlds: list[World]) -> None:
        wait_for_lives(worlds, [1, 0, 0])
        for world in worlds:
            world.touch("fail")
        wait_for_lives(worlds, [1, 1, 0])

    worlds = campaign(folder, spec, fail, WITHDRAWS | {"ledger: git fast-import"})
    for world in worlds:
        states = [record.state for record in world.runs]
        assert (states[0], states[2]) == (RunState.FAILED, RunState.PENDING), world.kill
        assert world.runs[2].reason.startswith("held back: 1 run has failed"), world.kill
        world.remove("fail")
        world.remove("hold")
    sync(worlds, args=("retry", "many/training.seed=0"))
    end(worlds)
    no_faults(worlds)
    for world in worlds:
        assert [len(set(jobs)) for jobs in world.lives] == [2, 1, 1], world.kill
        assert [len(jobs) for jobs in world.lives] == [2, 1, 1], world.kill


def test_a_killed_sync_after_a_canary_submits_the_others_once(folder: Path) -> None:
    def pass_canary(worlds: list[World]) -> None:
        wait_for_lives(worlds, [1])
        assert all(len(world.runs) == 1 for world in worlds)
        for world in worlds:
            world.remove("hold")
        journals = [Path(world.runs[0].run_dir) for world in worlds]
        assert wait_for(lambda: all(map(_is_complete, journals)), 120)

    worlds = campaign(folder, grid(seeds=3) + "canary: 1\n", pass_canary, SUBMITS)
    end(worlds)
    no_faults(worlds)
    for world in worlds:
        assert world.lives == [[record.job_id] for record in world.runs], world.kill
        assert len(world.runs) == 3, world.kill


def _is_complete(run_dir: Path) -> bool:
    return any(event["event"] == "finished" for event in rundir.read_journal(run_dir))
