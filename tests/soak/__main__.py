"""Kills syncs for as long as you like, and prints a table of faults: `python -m tests.soak`.

First every effect of a sync in every way (before it, after it, while its program runs; the first and the last
of each name), then at random times, with several submitters of one remote at once, some killed with all
their children. Each run must have been executed once.

The options' defaults take a few minutes on two idle cores. SLURM is a private one, or that of SLURM_CONF. Exit code 1: something was lost or done twice.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mtf.git.repo import GitRepo
from mtf.ledger.store import LedgerStore
from tests.crash.campaign import Campaign, each_way, faults_of, wait_for
from tests.crash.killer import Outcome, Task, run
from tests.crash.repositories import copy_world, grid, make_world
from tests.executor.local.bench import end_all
from tests.slurm_cluster import Cluster

if TYPE_CHECKING:
    from tests.repos import Repo

_CLONES = 3  # that sync at the same time
_KILLED_WITH_CHILDREN = 0.2


@dataclass
class Totals:
    """The rows of the table."""

    kills: int = 0
    points: set[str] = field(default_factory=set)
    runs: int = 0
    duplicates: int = 0
    lost: int = 0
    other: list[str] = field(default_factory=list)
    converged_s: list[float] = field(default_factory=list)
    whole_s: list[float] = field(default_factory=list)  # durations of syncs that are not killed

    def count(self, where: str, faults: list[str]) -> None:
        for fault in faults:
            if "executed [" in fault:
                executed = fault.partition("executed ")[2]
                self.lost += executed == "[]"
                self.duplicates += executed.count(",") > 0
            self.other.append(f"{where}: {fault}")

    def table(self) -> str:
        times = sorted(self.converged_s) or [0.0]
        rows = {
            "kills": self.kills,
            "crash points covered": len(self.points),
            "runs": self.runs,
            "executed twice": self.duplicates,
            "lost runs": self.lost,
            "other faults": len(self.other),
            "time to converge after a crash, median": f"{statistics.median(times):.2f} s",
            "time to converge after a crash, worst": f"{times[-1]:.2f} s",
            "time of a sync that is not killed": f"{statistics.median(self.whole_s or [0.0]):.2f} s",
        }
        return "\n".join(f"{name:<42}{value:>8}" for name, value in rows.items())


def everywhere(folder: Path, executor: str, most: int, end: float, totals: Totals) -> None:
    """Kill at every effect in every way, in an order that covers many names early."""
    for remote in (True, False):
        campaign = Campaign(folder / f"remote-{remote}", executor=executor, remote=remote)
        pairs = [(s, k) for s, effects in campaign.effects().items() for k in each_way(effects)]
        random.Random(0).shuffle(pairs)
        pairs = pairs[: most // 2]
        while pairs and time.monotonic() < end:
            some, pairs = pairs[:16], pairs[16:]
            worlds = [campaign.world(scenario, kill) for scenario, kill in some]
            campaign.crash(worlds)
            campaign.recover(worlds)
            for world in worlds:
                totals.kills += 1 + sum(k is not None for k in world.scenario.before)
                totals.points.add(f"{world.kill and world.kill.when} {world.title}")
                totals.runs += 2
                totals.converged_s.append(world.converged_s)
                totals.count(world.title, world.faults)
            print(f"  {totals.kills} kills, {len(totals.other)} faults", file=sys.stderr)


def at_random(folder: Path, executor: str, most: int, end: float, totals: Totals) -> None:
    """Kill clones of one remote that sync concurrently, again and again, while specs are added."""
    dice = random.Random(1)
    runs_root = folder / "runs"
    lab = make_world(folder / "w", executor=executor, remote=True, seeds=1, root=str(runs_root))
    clones = [lab, *(copy_world(folder / "w", folder / f"c{n}") for n in range(1, _CLONES))]
    for clone in clones[1:]:
        clone.git("remote", "set-url", "origin", str(folder / "w" / "lab.git"))
    asked, killed, rounds = 1, 0, 0
    mean_s = 0.5
    while killed < most and time.monotonic() < end:
        rounds += 1
        for _ in range(3):  # crash after crash
            asked += 1
            lab.commit({"experiments/many.yaml": grid(seeds=asked)})
            lab.git("push", "-q", "origin", "main")
            tasks = [
                Task(
                    str(clone.path),
                    delay_s=dice.uniform(0, 0.7 * mean_s),
                    with_children=dice.random() < _KILLED_WITH_CHILDREN,
                )
                for clone in clones * 2
            ]
            outcomes = run(tasks, parallel=_CLONES)
            dead = [o for o in outcomes if o.code == -9]
            killed += len(dead)
            totals.points |= {f"at random after {o.effects[-1]}" for o in dead if o.effects}
            _complain(outcomes, totals)
        began = time.monotonic()
        while (left := _without_job(lab, asked)) and time.monotonic() < began + 240:
            _serve(folder / "w" / "lab.git")
            outcomes = run([Task(str(c.path)) for c in clones], parallel=_CLONES)
            _complain(outcomes, totals)
            totals.whole_s += [o.seconds for o in outcomes]
            mean_s = statistics.mean(o.seconds for o in outcomes)
        totals.converged_s.append(time.monotonic() - began)
        if left:
            totals.other.append(f"round {rounds}: {left} runs without a job after 240 s")
        print(f"  {killed} random kills, {len(totals.other)} faults", file=sys.stderr)
    totals.kills += killed
    totals.runs += asked
    wait_for(lambda: len(list(runs_root.rglob("lives"))) >= asked, 300)
    _settle(clones, totals)
    for number, clone in enumerate(clones):
        totals.count(
            f"clone {number}", faults_of(clone, asked) if number == 0 else _tips(clone, lab)
        )


def _settle(clones: list[Repo], totals: Totals) -> None:
    """Sync in all clones until every run is over, and once more."""
    for _ in range(20):
        _complain(run([Task(str(c.path)) for c in clones], parallel=1), totals)
        records = LedgerStore(GitRepo(clones[0].path), None).read().runs.values()
        if all(r.is_over for r in records):
            break
        time.sleep(1)
    _complain(run([Task(str(c.path)) for c in clones], parallel=1), totals)


def _serve(remote: Path) -> None:
    """Remove the locks of a remote whose receiving git was killed with the sync."""
    for lock in remote.rglob("*.lock"):
        with suppress(FileNotFoundError):
            if time.time() - lock.stat().st_mtime > 5:
                lock.unlink()


def _tips(clone: Repo, lab: Repo) -> list[str]:
    tips = [repo.git("rev-parse", "mtf/ledger") for repo in (clone, lab)]
    return [] if tips[0] == tips[1] else [f"its ledger is at {tips[0]}, not at {tips[1]}"]


def _without_job(lab: Repo, asked: int) -> int:
    records = LedgerStore(GitRepo(lab.path), None).read("refs/remotes/origin/mtf/ledger").runs
    return asked - sum(r.job_id is not None for r in records.values())


def _complain(outcomes: list[Outcome], totals: Totals) -> None:
    """Count syncs that failed without being killed; a held lock or a partial sync is no failure."""
    for outcome in outcomes:
        if outcome.code not in {0, 4, -9}:
            totals.other.append(f"a sync exited with {outcome.code}: {outcome.output[-300:]}")


def main() -> None:
    """Run the soak and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--kills", type=int, default=150, help="at most so many")
    parser.add_argument("--seconds", type=float, default=240, help="no new ones after that")
    parser.add_argument("--executor", choices=["local", "slurm"], default="local")
    parser.add_argument("--random-only", action="store_true", help="leave the named effects out")
    options = parser.parse_args()
    os.environ |= {
        f"GIT_{who}_{what}": "soak" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    totals, began = Totals(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mtf-soak-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        private = options.executor == "slurm" and "SLURM_CONF" not in os.environ
        cluster = Cluster(folder / "cluster") if private else None
        try:
            if cluster is not None:
                cluster.up()
                os.environ["SLURM_CONF"] = str(cluster.conf)
            half = began + options.seconds / 2
            share = options.kills // 2
            if not options.random_only:
                everywhere(folder / "e", options.executor, share, half, totals)
            end = began + options.seconds
            at_random(folder / "r", options.executor, options.kills - totals.kills, end, totals)
        finally:
            end_all(folder)
            if cluster is not None:
                cluster.down()
    for text, number in Counter(totals.other).most_common(20):
        print(f"{number} x {text}")
    print(totals.table())
    print(f"{options.executor}, {time.monotonic() - began:.0f} s")
    sys.exit(bool(totals.other))


if __name__ == "__main__":
    main()
