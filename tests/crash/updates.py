"""Syncs that withdraw waiting jobs, or let runs follow a canary, killed at their effects.

Each function makes worlds that are copies of one, kills a sync in each at another effect, syncs
again, asserts what must be true, and returns the worlds.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mtf import rundir
from mtf.core.vocabulary.states import RunState
from tests.crash.campaign import each_once, each_way, leftover_files, wait_for
from tests.crash.clones import records
from tests.crash.killer import Kill, Outcome, Task, purpose, run
from tests.crash.repositories import copy_world, grid, make_world

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mtf.core.vocabulary.records import RunRecord
    from tests.repos import Repo

SYNC = ("sync",)
RECORDS = {"ledger: git fast-import"}
WITHDRAWS = {
    "local": {"reconcile: link .claims/<id>", "executor.local: sql UPDATE"},
    "slurm": {"reconcile: link .claims/<id>", "executor.slurm: scancel"},
}
_SUBMITS = {"local": "executor.local: sql COMMIT", "slurm": "executor.slurm: sbatch"}
SUBMITS = {
    name: {
        *RECORDS,
        "reconcile: rename configs.jsonl",
        f"executor.{name}: rename job.sbatch",
        submits,
    }
    for name, submits in _SUBMITS.items()
}


@dataclass(frozen=True)
class Base:
    """Where a campaign runs, and how thoroughly."""

    folder: Path
    executor: str = "local"
    every_way: bool = False  # before, after and during the first and the last of each effect
    share: tuple[int, int] = (0, 1)  # of the kills: the first one, and how far the next one is


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


def campaign(
    base: Base, spec: str, prepare: Callable[[list[World]], None], expected: set[str]
) -> list[World]:
    """Return worlds in which the sync after ``prepare`` was killed, each at another effect."""
    folder = base.folder
    lab = make_world(folder / "base", executor=base.executor, remote=False)
    lab.commit({"experiments/many.yaml": spec})
    (lab.path / "runs").mkdir()
    (lab.path / "runs" / "hold").touch()
    whole = World(copy_world(folder / "base", folder / "whole"))
    _crash([whole], prepare)
    assert whole.outcome is not None
    effects = whole.outcome.effects
    assert expected <= set(map(purpose, effects)), sorted(effects)
    if base.every_way:
        kills = each_way([e for e in effects if purpose(e) in expected])
    else:
        kills = each_once(effects, {e for e in effects if purpose(e) not in expected})
    first, step = base.share
    worlds = [
        World(copy_world(folder / "base", folder / str(n)), kill)
        for n, kill in enumerate(kills[first::step])
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


def update_waiting(base: Base) -> list[World]:
    """A waiting run gets a job with more memory."""
    spec = grid(seeds=2) + "max_parallel: 1\n"

    def more_memory(worlds: list[World]) -> None:
        wait_for_lives(worlds, [1, 0])
        for world in worlds:
            world.lab.commit({"experiments/many.yaml": spec.replace("mem: 100M", "mem: 200M")})

    worlds = campaign(base, spec, more_memory, WITHDRAWS[base.executor] | SUBMITS[base.executor])
    end(worlds)
    no_faults(worlds)
    for world in worlds:
        assert world.lives == [[record.job_id] for record in world.runs], world.kill
        memory = [record.attempt.changes.get("slurm.mem") for record in world.runs]
        assert memory == [None, "200M"], world.kill  # what the jobs really have is recorded
        for record, asked in zip(world.runs, ("100M", "200M"), strict=True):
            config = (Path(record.run_dir) / rundir.CONFIG).read_text()
            assert re.search(rf"mem: ['\"]?{asked}", config), world.kill
    return worlds


def hold_back(base: Base) -> list[World]:
    """Runs are held back after a failure, and released."""
    spec = grid(seeds=3) + "max_parallel: 1\nmax_failed: 1\n"

    def fail(worlds: list[World]) -> None:
        wait_for_lives(worlds, [1, 0, 0])
        for world in worlds:
            world.touch("fail")
        wait_for_lives(worlds, [1, 1, 0])

    worlds = campaign(base, spec, fail, WITHDRAWS[base.executor] | RECORDS)
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
    return worlds


def follow_canary(base: Base) -> list[World]:
    """The others are submitted after the canary."""

    def pass_canary(worlds: list[World]) -> None:
        wait_for_lives(worlds, [1])
        assert all(len(world.runs) == 1 for world in worlds)
        for world in worlds:
            world.remove("hold")
        journals = [Path(world.runs[0].run_dir) for world in worlds]
        assert wait_for(lambda: all(map(_is_complete, journals)), 120)

    worlds = campaign(base, grid(seeds=3) + "canary: 1\n", pass_canary, SUBMITS[base.executor])
    end(worlds)
    no_faults(worlds)
    for world in worlds:
        assert world.lives == [[record.job_id] for record in world.runs], world.kill
        assert len(world.runs) == 3, world.kill
    return worlds


def _is_complete(run_dir: Path) -> bool:
    return any(event["event"] == "finished" for event in rundir.read_journal(run_dir))
