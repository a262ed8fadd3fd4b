"""A sync that gives a waiting run a job with other resources is killed at each of its effects."""

from __future__ import annotations

import json
import re
from collections import Counter
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
    from collections.abc import Iterator, Sequence

    from mtf.core.vocabulary.records import RunRecord
    from tests.repos import Repo

SYNC = ("sync",)
ONE_AT_A_TIME = grid(seeds=2) + "max_parallel: 1\n"
MORE_MEMORY = ONE_AT_A_TIME.replace("mem: 100M", "mem: 200M")
# the effects by which a waiting job gives way to another one
EXPECTED = {
    "reconcile: link .claims/<id>",
    "executor.local: sql UPDATE",
    "ledger: git fast-import",
    "reconcile: rename configs.jsonl",
    "executor.local: rename job.sbatch",
}


@dataclass
class World:
    """One repository whose grid has one run that goes on and one that waits."""

    lab: Repo
    kill: Kill | None = None
    outcome: Outcome | None = None
    faults: list[str] = field(default_factory=list)

    @property
    def runs(self) -> list[RunRecord]:
        return sorted(records(self.lab), key=lambda record: record.run)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    lab = make_world(tmp_path / "base", executor="local", remote=False, seeds=2)
    lab.commit({"experiments/many.yaml": ONE_AT_A_TIME})
    (lab.path / "runs").mkdir()
    (lab.path / "runs" / "hold").touch()
    yield tmp_path
    end_all(tmp_path)


def test_a_killed_update_of_a_waiting_run_is_completed_by_the_next_sync(folder: Path) -> None:
    whole = World(copy_world(folder / "base", folder / "whole"))
    update([whole])
    assert whole.outcome is not None
    seen = {effect for effect in whole.outcome.effects if purpose(effect) not in EXPECTED}
    assert set(map(purpose, whole.outcome.effects)) >= EXPECTED, sorted(whole.outcome.effects)
    kills = each_once(whole.outcome.effects, seen)
    worlds = [
        World(copy_world(folder / "base", folder / str(n)), kill) for n, kill in enumerate(kills)
    ]
    update(worlds)
    settle([whole, *worlds])
    faulty = [(world.kill, world.faults) for world in (whole, *worlds) if world.faults]
    assert not faulty, faulty


def sync(worlds: Sequence[World], kills: Sequence[Kill | None] | None = None) -> list[Outcome]:
    given = kills or [None] * len(worlds)
    outcomes = run(
        Task(str(w.lab.path), SYNC, kill=kill) for w, kill in zip(worlds, given, strict=True)
    )
    for world, kill, outcome in zip(worlds, given, outcomes, strict=True):
        if outcome.code != (-9 if kill else 0):
            world.faults.append(f"sync: {outcome.code} {outcome.output}")
    return outcomes


def update(worlds: Sequence[World]) -> None:
    """Submit both runs, change the spec while one of them runs, and kill the sync after that."""
    sync(worlds)
    assert wait_for(lambda: all(_started(w) == [True, False] for w in worlds), 120)
    for world in worlds:
        world.lab.commit({"experiments/many.yaml": MORE_MEMORY})
    outcomes = sync(worlds, [world.kill for world in worlds])
    for world, outcome in zip(worlds, outcomes, strict=True):
        world.outcome = outcome


def settle(worlds: Sequence[World]) -> None:
    sync(worlds)
    for world in worlds:
        (world.lab.path / "runs" / "hold").unlink()

    def are_over() -> bool:
        sync([w for w in worlds if not all(r.is_over for r in w.runs)])
        return all(r.is_over or w.faults for w in worlds for r in w.runs)

    assert wait_for(are_over, 120), [(w.kill, w.runs) for w in worlds]
    plans = run(Task(str(w.lab.path), ("plan", "--format", "json")) for w in worlds)
    for world, plan in zip(worlds, plans, strict=True):
        world.faults += faults_of(world, json.loads(plan.output)["actions"])


def _started(world: World) -> list[bool]:
    return [(Path(record.run_dir) / "lives").exists() for record in world.runs]


def faults_of(world: World, actions: list[object]) -> Iterator[str]:
    if actions:
        yield f"the plan is not empty: {actions}"
    for record, memory in zip(world.runs, ("100M", "200M"), strict=True):
        if record.state is not RunState.COMPLETED:
            yield f"{record.run}: {record.state} ({record.reason})"
        lives = (Path(record.run_dir) / "lives").read_text().split()
        if lives != [record.job_id]:
            yield f"{record.run}: lived {Counter(lives)}, recorded {record.job_id}"
        config = (Path(record.run_dir) / rundir.CONFIG).read_text()
        if not re.search(rf"mem: ['\"]?{memory}", config):
            yield f"{record.run}: not {memory}: {config}"
        if (record.attempt.changes.get("slurm.mem", "100M")) != memory:
            yield f"{record.run}: recorded as {record.attempt.changes}"
    yield from (f"left behind: {path}" for path in leftover_files(world.lab.path))
