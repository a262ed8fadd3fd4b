"""`mtf cancel`, `retry`, `rerun`, `run` and `sync --prune` are killed at each of their effects.

Then comes `mtf sync`, and the same command again where a user would give it again.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mtf import rundir
from mtf.core.vocabulary.ids import job_name, name_of
from mtf.core.vocabulary.states import RunState
from mtf.executor.local.local_executor import LocalExecutor
from mtf.git.repo import GitRepo
from mtf.ledger.store import Change, LedgerStore
from mtf.reconcile.cleanup import idle_requests
from tests.crash.campaign import SUBMITS, each_once, is_program, leftover_files, wait_for
from tests.crash.clones import records
from tests.crash.killer import Kill, Outcome, Task, purpose, run
from tests.crash.repositories import copy_world, make_world
from tests.executor.local.bench import end_all

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from mtf.core.vocabulary.records import RunRecord
    from tests.repos import Repo

PRUNE, CANCEL = ("sync", "--prune"), ("cancel", "many")
RETRY = ("retry", "many", "--set", "slurm.mem=200M")
RERUN = ("rerun", "many", "--yes")
RUN = ("run", "experiments/many.yaml", "--member=training.seed=0", "--snapshot", "--no-wait")
_AGAIN = (RETRY, RERUN, RUN)  # they start a job
NO_JOB = Kill(SUBMITS["local"])
NO_START = Kill(SUBMITS["local"], 0, "after")
NO_RECORD = Kill("executor.local: mtf.executor.local.worker", 0, "during")
LONG_AGO = "2026-01-01T00:00:00+00:00"
# effects of a sync, which test_killed.py covers
_SYNCS = re.compile(
    r"commands: (mkdir mtf|write sync\.\w+)|reconcile: \w+ (search_config\.yaml|results_summary\.json)~?"
    r"|reconcile: (read journal\.jsonl|rmdir \.jobs/<id>|remove [\w.]+)"
    r"|executor\.local: (write worker\.\w+|mtf\.executor\.local\.worker)"
)
_ASKING = {"cat-file", "config", "for-each-ref", "gc", "merge-base", "rev-parse", "status", "var"}
# purposes that must be among the effects of each command
_ENDS = {"ledger: git fast-import", "reconcile: link .claims/<id>", "executor.local: sql UPDATE"}
_NEW_RUN = {
    "ledger: git fast-import",
    "ledger: git update-ref",
    "reconcile: rename .code/<id>",
    "reconcile: rename configs.jsonl",
    "executor.local: rename job.sbatch",
    "executor.local: sql COMMIT",
}
EXPECTED = {
    CANCEL: _ENDS,
    PRUNE: _ENDS,
    RETRY: {
        "ledger: git fast-import",
        "reconcile: rename configs.jsonl",
        "executor.local: rename job.sbatch",
        "executor.local: sql COMMIT",
    },
    RERUN: _NEW_RUN,
    RUN: _NEW_RUN | {"commands: git commit-tree"},
}


@dataclass(frozen=True)
class Case:
    """A command, and the syncs and commands that come before it, each with its kill."""

    command: tuple[str, ...]
    before: tuple[tuple[tuple[str, ...], Kill | None], ...]
    lives: bool = True  # a job is running when the command is given


SYNC = ("sync",)
CASES = {
    "cancel what runs": Case(CANCEL, ((SYNC, None),)),
    "cancel a claim": Case(CANCEL, ((SYNC, NO_JOB),), lives=False),
    "cancel what runs and is not recorded": Case(CANCEL, ((SYNC, NO_RECORD),)),
    "cancel what waits and is not recorded": Case(CANCEL, ((SYNC, NO_START),), lives=False),
    "prune what runs": Case(PRUNE, ((SYNC, None),)),
    "prune a claim": Case(PRUNE, ((SYNC, NO_JOB),), lives=False),
    "retry": Case(RETRY, ((SYNC, NO_JOB), (CANCEL, None)), lives=False),
    "rerun": Case(RERUN, ((SYNC, NO_JOB), (CANCEL, None)), lives=False),
    "run": Case(RUN, (), lives=False),
}


@dataclass
class World:
    """One repository with one experiment, and the command on its run that is killed."""

    lab: Repo
    case: Case
    kill: Kill | None = None
    outcome: Outcome | None = None
    faults: list[str] = field(default_factory=list)

    @property
    def record(self) -> RunRecord:
        """The run that nothing has superseded."""
        (record,) = (r for r in records(self.lab) if r.superseded_by is None)
        return record

    @property
    def lives(self) -> list[str]:
        path = Path(self.record.run_dir) / "lives"
        return path.read_text().split() if path.exists() else []

    @property
    def title(self) -> str:
        name = next(name for name, case in CASES.items() if case == self.case)
        kill = self.kill
        return f"{name}: {kill.when} {kill.point}" if kill else name


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    make_world(tmp_path / "base", executor="local", remote=False, seeds=1)
    (tmp_path / "base" / "lab" / "runs").mkdir()
    (tmp_path / "base" / "lab" / "runs" / "hold").touch()
    yield tmp_path
    end_all(tmp_path)


def test_a_killed_cancel_prune_retry_rerun_or_run_is_completed_by_the_next_command(
    folder: Path,
) -> None:
    whole = [
        World(copy_world(folder / "base", folder / f"whole{n}"), c)
        for n, c in enumerate(CASES.values())
    ]
    crash(whole)
    # nothing has killed these
    assert [(w.title, w.faults) for w in whole if not _is_recorded(w)] == []
    settle(whole)
    worlds: list[World] = []
    seen: set[str] = set()
    for command, expected in EXPECTED.items():
        seen = {e for e in seen if purpose(e) not in expected}  # each command is killed there
        for world in (w for w in whole if w.case.command == command and w.outcome):
            assert world.outcome is not None
            seen.update(e for e in world.outcome.effects if not _matters(e))
            for kill in each_once(world.outcome.effects, seen):
                lab = copy_world(folder / "base", folder / str(len(worlds)))
                worlds.append(World(lab, world.case, kill))
        assert expected <= set(map(purpose, seen)), (command, sorted(seen))
    crash(worlds)
    settle(worlds)
    faulty = [(w.title, w.faults) for w in [*whole, *worlds] if w.faults]
    assert not faulty, faulty


def _matters(effect: str) -> bool:
    what = purpose(effect)
    return not _SYNCS.fullmatch(what) and not (
        is_program(effect) and what.rpartition(" ")[2] in _ASKING
    )


def each(steps: Iterable[tuple[World, Sequence[str], Kill | None]]) -> list[Outcome]:
    """Run a command in each world; one that fails unless it is killed is a fault."""
    given = list(steps)
    outcomes = run(Task(str(w.lab.path), args, kill=kill) for w, args, kill in given)
    for (world, args, kill), outcome in zip(given, outcomes, strict=True):
        if outcome.code != (-9 if kill else 0):
            world.faults.append(f"{' '.join(args)}: {outcome.code} {outcome.output}")
    return outcomes


def crash(worlds: list[World]) -> None:
    """Bring each world into its case, and kill the command."""
    for step in range(2):
        each((w, *w.case.before[step]) for w in worlds if len(w.case.before) > step)
    live = [w for w in worlds if w.case.lives]
    assert wait_for(lambda: all(w.lives for w in live), 120), [w.lives for w in live]
    for world in worlds:
        if world.case.command == PRUNE:
            world.lab.git("rm", "-q", "experiments/many.yaml")
            world.lab.git("commit", "-q", "-m", "no more")
        if world.case.command == RERUN:
            world.lab.commit({"newer.py": "# code\n"})
        if world.case.command == RUN:
            world.lab.git("rm", "-q", "--cached", "experiments/many.yaml")
            world.lab.git("commit", "-q", "-m", "no specs")
        if world.case.command in _AGAIN:
            (world.lab.path / "runs" / "hold").unlink()
    outcomes = each((w, w.case.command, w.kill) for w in worlds)
    for world, outcome in zip(worlds, outcomes, strict=True):
        world.outcome = outcome


def settle(worlds: list[World]) -> None:
    """Sync, repeat commands that were not recorded, and sync until every run is over."""
    each((w, SYNC, None) for w in worlds)
    each((w, w.case.command, None) for w in worlds if not _is_recorded(w))
    for world in worlds:
        _backdate_cancellations(
            world.lab
        )  # a cancellation that had no effect is repeated after a minute

    def are_over() -> bool:
        each((w, SYNC, None) for w in worlds if not w.record.is_over)
        return all(w.record.is_over or w.faults for w in worlds)

    assert wait_for(are_over, 120), [(w.title, w.record) for w in worlds if not w.record.is_over]
    for world in worlds:
        (world.lab.path / "runs" / "hold").unlink(missing_ok=True)
    each((w, SYNC, None) for w in worlds)
    plans = each((w, ("plan", "--format", "json"), None) for w in worlds)
    for world, plan in zip(worlds, plans, strict=True):
        world.faults += faults_of(world, json.loads(plan.output)["actions"])


def _is_recorded(world: World) -> bool:
    if world.case.command == RETRY:
        return len(world.record.attempts) > 1
    if world.case.command == RERUN:
        return len(records(world.lab)) > 1
    if world.case.command == RUN:
        return len(records(world.lab)) == 1
    return world.record.cancel_requested or world.record.is_over


def _backdate_cancellations(lab: Repo) -> None:
    store = LedgerStore(GitRepo(lab.path), None)
    ledger = store.read()
    old = tuple(replace(r, observed_at=LONG_AGO) for r in ledger.runs.values() if not r.is_over)
    if old:
        store.append(ledger, Change(runs=old), "as if a minute had passed")


def faults_of(world: World, actions: list[object]) -> Iterator[str]:
    record, lives = world.record, world.lives
    if actions:
        yield f"the plan is not empty: {actions}"
    if twice := [job for job, n in Counter(lives).items() if n > 1]:
        yield f"lived twice: {twice}"
    if strange := set(lives) - {a.job_id for a in record.attempts}:
        yield f"lived, and is not recorded: {strange}"
    yield from _faults_of_ends(world, record)
    if world.case.command == RERUN:
        yield from _faults_of_rerun(world, record)
    for attempt in record.attempts:
        claim = Path(record.run_dir) / rundir.CLAIMS / attempt.token
        holder = claim.read_text() if claim.exists() else None
        if attempt.job_id is None and holder != rundir.FENCED:
            yield f"the claim {attempt.token} is held by {holder}, and it was given up"
        if attempt.job_id in lives and holder != attempt.job_id:
            yield f"the claim {attempt.token} is held by {holder}, and {attempt.job_id} has lived"
    names = {a.token: job_name(name_of(record.run), a.token) for a in record.attempts}
    executor = LocalExecutor(world.lab.path / "runs", 2)
    if alive := [v for v in executor.jobs(names, None) if v.state in ("pending", "running")]:  # type: ignore[arg-type]
        yield f"jobs go on: {alive}"
    idle = idle_requests(records(world.lab))
    yield from (f"a request without a job is left: {f}" for f in idle.values())
    yield from (f"left behind: {path}" for path in leftover_files(world.lab.path))


def _faults_of_rerun(world: World, new: RunRecord) -> Iterator[str]:
    old = [r for r in records(world.lab) if r.run != new.run]
    if [r.superseded_by for r in old] != [new.run]:
        yield f"{new.run} takes the place of {[(r.run, r.superseded_by) for r in old]}"
    for record in old:
        if record.state is not RunState.CANCELLED or (Path(record.run_dir) / "lives").exists():
            yield f"{record.run} is {record.state}, and may have lived again"
        if new.commit == record.commit:
            yield f"it runs at {new.commit}, as before"


def _faults_of_ends(world: World, record: RunRecord) -> Iterator[str]:
    is_new = world.case.command in _AGAIN
    if is_new and (record.state, world.lives) != (RunState.COMPLETED, [record.job_id]):
        yield f"{record.state} ({record.reason}), lived {world.lives}"
    if world.case.command == RETRY:
        if dict(record.attempt.changes) != {"slurm.mem": "200M"}:
            yield f"it runs with {record.attempt.changes}"
        config = (Path(record.run_dir) / rundir.CONFIG).read_text()
        if "200M" not in config:
            yield f"its configuration is {config}"
    elif not is_new and not (record.state is RunState.CANCELLED and record.cancel_requested):
        yield f"{record.state} ({record.reason})"
