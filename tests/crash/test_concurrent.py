"""Several submitters at once, in one clone and in many, and one that sleeps until its claims are given up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mtf.gitrepo import GitRepo
from mtf.ledger.store import LedgerStore
from tests.crash.campaign import SUBMITS, faults_of, wait_for
from tests.crash.killer import Kill, Task, run
from tests.crash.laboratory import copy_world, make_world
from tests.executor.local_bench import end_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mtf.core.records import RunRecord
    from tests.repos import Repo
    from tests.slurm_cluster import Cluster

AT_ONCE = 8


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    end_all(tmp_path)


def clones(folder: Path, number: int, *, executor: str, seeds: int, lease: int = 600) -> list[Repo]:
    """Return clones of one remote with one run root."""
    root = str(folder / "runs")
    first = make_world(folder / "w", executor=executor, remote=True, seeds=seeds, root=root, lease=lease)  # fmt: skip
    more = [copy_world(folder / "w", folder / f"clone{n}") for n in range(1, number)]
    for clone in more:
        clone.git("remote", "set-url", "origin", str(folder / "w" / "lab.git"))
    return [first, *more]


def records(lab: Repo) -> list[RunRecord]:
    return list(LedgerStore(GitRepo(lab.path), None).read().runs.values())


def settle(labs: list[Repo], runs: int) -> None:
    """Sync until all is over, and once more in each clone; then all must be as it should."""

    def are_over() -> bool:
        assert run([Task(str(labs[0].path))])[0].code == 0
        found = records(labs[0])
        return len(found) == runs and all(r.is_over for r in found)

    assert wait_for(are_over, 240), [(r.state, r.reason) for r in records(labs[0])]
    outcomes = run([Task(str(lab.path)) for lab in labs])
    assert [o.code for o in outcomes] == [0] * len(labs), outcomes
    assert len({lab.git("rev-parse", "mtf/ledger") for lab in labs}) == 1
    assert faults_of(labs[0], runs) == []
    plans = run([Task(str(lab.path), ("plan", "--format", "json")) for lab in labs])
    assert [json.loads(p.output)["actions"] for p in plans] == [[]] * len(labs)


def test_syncs_at_once_in_one_clone_submit_each_run_once(folder: Path) -> None:
    lab = make_world(folder / "w", executor="local", remote=True, seeds=4)
    codes = {o.code for o in run([Task(str(lab.path))] * AT_ONCE, parallel=AT_ONCE)}
    assert codes <= {0, 4}
    assert 0 in codes
    settle([lab], 4)
    assert all(len(r.attempts) == 1 for r in records(lab))


@pytest.mark.slurm
def test_syncs_at_once_in_many_clones_submit_each_run_once(cluster: Cluster, folder: Path) -> None:
    labs = clones(folder, AT_ONCE, executor="slurm", seeds=4)
    outcomes = run([Task(str(lab.path)) for lab in labs], parallel=AT_ONCE)
    assert {o.code for o in outcomes} == {0}, outcomes
    assert sum("submit " in o.output for o in outcomes) == 1
    settle(labs, 4)
    assert all(len(r.attempts) == 1 for r in records(labs[0]))


# -- a submitter that sleeps -----------------------------------------------------------------------

STOPS = {
    "it has claimed nothing yet": Kill("store._move: git push", 0, "before"),
    "the remote has its claim": Kill("store._move: git push", 0, "after"),
    "it is about to submit": Kill(SUBMITS["slurm"], 0, "before"),
    "its jobs are submitted": Kill(SUBMITS["slurm"], 0, "after"),
    "it is about to record": Kill("store._move: git push", 1, "before"),
}


@pytest.mark.slurm
def test_a_submitter_that_wakes_after_its_claims_were_given_up_does_no_harm(
    cluster: Cluster, folder: Path
) -> None:
    with ThreadPoolExecutor(len(STOPS)) as pool:
        places = [folder / str(n) for n in range(len(STOPS))]
        done = [pool.submit(_sleeps, place, kill) for place, kill in zip(places, STOPS.values(), strict=True)]  # fmt: skip
        for future in done:
            future.result()


def _sleeps(folder: Path, stop: Kill) -> None:
    sleeper, other = clones(folder, 2, executor="slurm", seeds=2, lease=1)
    stop = Kill(stop.point, stop.nth, stop.when, signal.SIGSTOP)
    process, pid = _start(sleeper, stop)
    time.sleep(1.1)  # its lease
    assert run([Task(str(other.path))])[0].code == 0
    assert all(r.job_id for r in records(other))
    os.kill(pid, signal.SIGCONT)
    out, err = process.communicate(timeout=240)
    (outcome,) = json.loads(out)
    assert outcome["code"] == 0, (outcome, err)
    settle([other, sleeper], 2)


def _start(lab: Repo, stop: Kill) -> tuple[subprocess.Popen[str], int]:
    """Start a sync and return once it has stopped, with its pid."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.crash.killer"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert process.stdin is not None
    wish = {"parallel": 1, "tasks": [vars(Task(str(lab.path), kill=stop)) | {"kill": vars(stop)}]}
    process.stdin.write(json.dumps(wish))
    process.stdin.close()
    process.stdin = None
    assert wait_for(lambda: any(_is_stopped(p) for p in _children(process.pid)), 120)
    return process, next(p for p in _children(process.pid) if _is_stopped(p))


def _children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except FileNotFoundError:
        return []
    return [int(word) for word in text.split()]


def _is_stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("T")
    except FileNotFoundError:
        return False
