"""Kills syncs at their effects, each in a world of its own, syncs again and reports faults."""

from __future__ import annotations

import json
import re
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mtf import rundir
from mtf.core.vocabulary.states import RunState
from mtf.git.repo import GitRepo
from mtf.ledger.store import LedgerStore
from mtf.reconcile.cleanup import idle_requests
from tests.crash.killer import Kill, Outcome, Task, purpose, run
from tests.crash.repositories import copy_world, make_world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mtf.core.vocabulary.records import RunRecord
    from tests.crash.killer import When
    from tests.repos import Repo

RUNS = 2  # in each world
_VERBS = {
    "write",
    "read",
    "mkdir",
    "rename",
    "link",
    "symlink",
    "remove",
    "rmdir",
    "chmod",
    "truncate",
    "sql",
}
# Purposes that must occur in some scenario, so that a harness that no longer sees an effect fails.
# Each is a pattern of the purposes in their order, one a line.
ON_ANY = {
    "the ledger's first commit, the claim and the jobs": r"(^ledger: git fast-import$.*?){3}",
    "a ref update, and the job's branch": r"^ledger: git update-ref$",
    "the code that is checked out": r"^reconcile: write <code>$",
    "the checkout put in place": r"^reconcile: rename \.code/<id>$",
    "its proof": r"^reconcile: rename \.code/<id>\.json$",
    "the runs' configurations": r"^reconcile: rename configs\.jsonl$",
    "the request's folder": r"^reconcile: mkdir \.jobs/<id>$",
    "a claim that is given up": r"^reconcile: link \.claims/<id>$",
    "a request that came to nothing": r"^reconcile: rmdir \.jobs/<id>$",
    "a journal read": r"^reconcile: read journal\.jsonl$",
    "the lock of the clone": r"^commands: write sync\.lock$",
    "a grid's summary": r"^reconcile: rename results_summary\.json$",
}
WITH_REMOTE = {
    "the claim and the jobs pushed": r"(^ledger: git push$.*?){2}",
    "a look at the remote": r"^ledger: git ls-remote$",
    "a fetch, and following the remote": r"^ledger: git fetch$(?:(?!git fast-import).)*^ledger: git update-ref$",
}
ON_SLURM = {
    "a script": r"^executor\.slurm: rename job\.sbatch$",
    "a submission": r"^executor\.slurm: sbatch$",
    "a look at the queue": r"^executor\.slurm: squeue$",
    "where the runs' folders are": r"^executor\.slurm: rename folders$",
}
LOCAL = {
    "a script": r"^executor\.local: rename job\.sbatch$",
    "a submission": r"^executor\.local: sql COMMIT$",
    "the queue": r"^executor\.local: link queue\.sqlite$",
    "the worker": r"^executor\.local: mtf\.executor\.local\.worker$",
}
SUBMITS = {"slurm": "executor.slurm: sbatch", "local": "executor.local: sql COMMIT"}  # the first
PUSH = "ledger: git push"


@dataclass(frozen=True)
class Scenario:
    """The syncs before the one to be killed; each of them may be killed, too."""

    name: str
    before: tuple[Kill | None, ...] = ()
    after_the_jobs: bool = False  # the sync to be killed comes when the jobs are over
    needs_remote: bool = False


def scenarios(executor: str, *, remote: bool) -> list[Scenario]:
    submits = SUBMITS[executor]
    found = [
        Scenario("nothing submitted yet"),
        Scenario("claimed only", (Kill(submits),)),
        Scenario("submitted, not recorded", (Kill(submits, 0, "after"),)),
        Scenario("claimed and pushed only", (Kill(PUSH, 0, "after"),), needs_remote=True),
        Scenario("the jobs are over", (Kill(submits), None), after_the_jobs=True),
    ]
    return [s for s in found if remote or not s.needs_remote]


def is_program(name: str) -> bool:
    return name.split(": ", 1)[1].split(maxsplit=1)[0] not in _VERBS


def each_once(effects: Sequence[str], seen: set[str]) -> list[Kill]:
    """Return kills beside or during the first effect of each name that was not seen before.

    One kill between two effects tests both, since the second finds what the first has left. Every
    second file is killed while it is still empty, and every second program while it runs.
    """
    kills: list[Kill] = []
    for name, following in zip(effects, [*effects[1:], ""], strict=True):
        if name in seen:
            continue
        seen.add(name)
        if len(kills) % 2 and is_program(name):
            kills.append(Kill(name, 0, "during"))
        elif following in seen or not following or (len(kills) % 2 and _only_opens(name)):
            kills.append(Kill(name, 0, "after"))
        else:
            kills.append(Kill(following, 0, "before"))
            seen.add(following)
    return kills


def _only_opens(name: str) -> bool:
    return ": write " in name


def each_way(effects: Sequence[str]) -> list[Kill]:
    """Return kills in every way, at the first and at the last effect of each name."""
    kills = []
    for name in dict.fromkeys(effects):
        whens: tuple[When, ...] = ("before", "after")
        if is_program(name):
            whens = ("before", "during", "after")
        last = effects.count(name) - 1
        kills += [Kill(name, nth, when) for nth in sorted({0, last}) for when in whens]
    return kills


@dataclass
class World:
    """One repository, and the sync of it that is killed."""

    lab: Repo
    scenario: Scenario
    kill: Kill | None
    outcome: Outcome | None = None
    converged_s: float = 0.0  # from the kill until every run has its job
    syncs: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        if self.kill is None:
            return self.scenario.name
        return f"{self.scenario.name}: {self.kill.when} {self.kill.point} #{self.kill.nth}"

    def records(self) -> list[RunRecord]:
        return list(LedgerStore(GitRepo(self.lab.path), None).read().runs.values())

    def folders(self) -> list[Path]:
        return [Path(r.run_dir) for r in self.records()]


class Campaign:
    """Worlds that are copies of one repository, on one executor."""

    def __init__(self, folder: Path, *, executor: str, remote: bool, parallel: int = 2) -> None:
        self.folder, self.executor, self.remote = folder, executor, remote
        self.parallel = parallel
        make_world(folder / "base", executor=executor, remote=remote, seeds=RUNS)
        self._made = 0

    def world(self, scenario: Scenario, kill: Kill | None) -> World:
        self._made += 1
        return World(
            copy_world(self.folder / "base", self.folder / f"{self._made}"), scenario, kill
        )

    def effects(self) -> dict[Scenario, list[str]]:
        """Return the effects of a complete sync in each scenario."""
        worlds = [self.world(s, None) for s in scenarios(self.executor, remote=self.remote)]
        self.crash(worlds)
        self.recover(worlds)
        assert not (faults := [f for w in worlds for f in w.faults]), faults
        return {w.scenario: w.outcome.effects for w in worlds if w.outcome}

    def crash(self, worlds: list[World]) -> None:
        """Bring each world into its scenario, then kill a sync."""
        for step in range(max(len(w.scenario.before) for w in worlds)):
            those = [w for w in worlds if len(w.scenario.before) > step]
            self._sync(those, [w.scenario.before[step] for w in those])
        for world in worlds:
            if (
                world.scenario.needs_remote
            ):  # as if another clone had pushed: git noted the push here
                world.lab.git("update-ref", "-d", "refs/remotes/origin/mtf/ledger")
        late = [w for w in worlds if w.scenario.after_the_jobs]
        self._await_jobs(late)
        for world, outcome in zip(
            worlds, self._sync(worlds, [w.kill for w in worlds]), strict=True
        ):
            world.outcome = outcome
            if world.kill and outcome.code != -9:
                world.faults.append(f"not killed: {outcome.code} {outcome.output}")

    def _sync(self, worlds: list[World], kills: Sequence[Kill | None]) -> list[Outcome]:
        tasks = [Task(str(w.lab.path), kill=k) for w, k in zip(worlds, kills, strict=True)]
        return run(tasks, parallel=self.parallel)

    def recover(self, worlds: list[World], rounds: int = 30) -> None:
        """Sync again until each run is over; note every fault."""
        left = [w for w in worlds if not w.faults]
        for _ in range(rounds):
            outcomes = self._sync(left, [None] * len(left))
            for world, outcome in zip(left, outcomes, strict=True):
                world.syncs += 1
                if outcome.code:
                    world.faults.append(f"sync says {outcome.code}: {outcome.output}")
                found = world.records()
                if world.converged_s == 0.0 and all(r.job_id for r in found):
                    world.converged_s = outcome.seconds
                elif world.converged_s == 0.0:
                    world.faults.append(f"no job after one sync: {outcome.output}")
            left = [w for w in left if not w.faults and not _is_over(w.records())]
            if not left:
                break
            self._await_jobs(left)
        for world in left:
            world.faults.append(f"not over: {[(r.state, r.reason) for r in world.records()]}")
        self._judge([w for w in worlds if not w.faults])

    def _await_jobs(self, worlds: list[World], seconds: float = 120) -> None:
        def lived() -> bool:
            ends = [rundir.read_journal(f)[-1:] for w in worlds for f in w.folders()]
            return all(facts and facts[0]["event"] == "finished" for facts in ends)

        wait_for(lived, seconds)
        time.sleep(0.5)  # the jobs' ends follow their journals' last lines
        if self.executor == "slurm":  # ... and SLURM hears of them when it has the time
            wait_for(lambda: not _squeue(), seconds)

    def _judge(self, worlds: list[World]) -> None:
        tasks = [Task(str(w.lab.path), ("plan", "--format", "json")) for w in worlds]
        for world, planned in zip(worlds, run(tasks, parallel=self.parallel), strict=True):
            if planned.code or json.loads(planned.output)["actions"]:
                world.faults.append(f"the plan is not empty: {planned.output}")
            world.faults += faults_of(world.lab)
            if self.executor == "local":  # with SLURM, an orphaned sbatch may still have submitted
                idle = idle_requests(world.records())
                world.faults += [f"a request without a job is left: {f}" for f in idle.values()]


def kill_at_each(campaign: Campaign, expected: dict[str, str]) -> None:
    found = campaign.effects()
    names = {name for effects in found.values() for name in effects}
    purposes = ["\n".join(map(purpose, effects)) for effects in found.values()]
    unseen = {
        what: pattern
        for what, pattern in expected.items()
        if not any(re.search(pattern, text, re.DOTALL | re.MULTILINE) for text in purposes)
    }
    assert not unseen, sorted(names)
    seen: set[str] = set()
    worlds = [
        campaign.world(scenario, kill)
        for scenario, effects in found.items()
        for kill in each_once(effects, seen)
    ]
    campaign.crash(worlds)
    campaign.recover(worlds)
    faulty = [(w.title, w.faults) for w in worlds if w.faults]
    assert not faulty, faulty
    assert seen == names


def _squeue() -> str:
    """Return the ids of the jobs that are not over."""
    command = ["squeue", "--noheader", "--format=%i"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def wait_for(true: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def _is_over(found: list[RunRecord]) -> bool:
    return len(found) == RUNS and all(r.is_over for r in found)


def faults_of(lab: Repo, runs: int = RUNS) -> list[str]:
    """Return the faults of a repository whose runs should all have been executed once."""
    found = LedgerStore(GitRepo(lab.path), None).read()
    faults = [f"damaged: {path}: {why}" for path, why in found.damaged.items()]
    if len(found.runs) != runs:
        faults.append(f"{len(found.runs)} records of {runs} runs")
    branches = lab.git("for-each-ref", "--format=%(refname)", "refs/heads/slurm-job")
    if remote := lab.git("remote"):
        branches += lab.git("ls-remote", "--heads", remote)
        there = lab.git("ls-remote", remote, "refs/heads/mtf/ledger").split()[0]
        if there != found.tip:
            faults.append(f"the ledger here is {found.tip}, on the remote {there}")
    for record in found.runs.values():
        faults += [f"{record.run}: {fault}" for fault in _faults_of_run(record)]
        if record.branch not in branches:
            faults.append(f"{record.run}: no branch {record.branch}")
    return faults + [f"left behind: {path}" for path in leftover_files(lab.path)]


def _faults_of_run(record: RunRecord) -> Iterator[str]:
    folder = Path(record.run_dir)
    lives = folder / "lives"
    lived = lives.read_text().split() if lives.exists() else []
    if lived != [record.job_id]:
        yield f"recorded {record.job_id}, executed {lived}"
    if record.state is not RunState.COMPLETED:
        yield f"{record.state} ({record.reason})"
    for attempt in record.attempts:
        claim = folder / rundir.CLAIMS / attempt.token
        holder = claim.read_text() if claim.exists() else None
        if holder != (record.job_id if attempt is record.attempt else rundir.FENCED):
            yield f"the claim {attempt.token} is held by {holder}"


def leftover_files(folder: Path) -> list[str]:
    """Return temporary files that a killed sync left behind."""
    found = []
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if name.startswith(".git/"):
            kept = name == ".git/mtf/sync.lock" or name.startswith(".git/mtf/look-")
            if name.endswith(".lock") and not kept:
                found.append(name)
            if "mtf/scratch" in name:
                found.append(name)
        elif (
            name.startswith("runs/")
            and "/.jobs/" not in name
            and path.name.startswith(".")
            and path.name.rpartition(".")[0]
        ):
            found.append(name)
    return found
