"""`mtf sync` on a real cluster: killed at each of its effects, concurrent, and stopped too long."""

from __future__ import annotations

import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.crash.campaign import (
    ON_ANY,
    ON_SLURM,
    PUSH,
    SUBMITS,
    WITH_REMOTE,
    Campaign,
    kill_at_each,
)
from tests.crash.clones import clones, records, settle, start_and_stop
from tests.crash.killer import Kill, Task, run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.slurm_cluster import Cluster

pytestmark = pytest.mark.slurm
AT_ONCE = 8


def test_a_sync_killed_at_any_effect_is_continued_by_the_next(
    cluster: Cluster, tmp_path: Path
) -> None:
    campaign = Campaign(tmp_path, executor="slurm", remote=True)
    kill_at_each(campaign, ON_ANY | WITH_REMOTE | ON_SLURM)


def test_concurrent_syncs_in_many_clones_submit_each_run_once(
    cluster: Cluster, tmp_path: Path
) -> None:
    labs = clones(tmp_path, AT_ONCE, executor="slurm", seeds=4)
    outcomes = run([Task(str(lab.path)) for lab in labs], parallel=AT_ONCE)
    assert {o.code for o in outcomes} == {0}, outcomes
    assert sum("submit " in o.output for o in outcomes) == 1
    settle(labs, 4)
    assert all(len(r.attempts) == 1 for r in records(labs[0]))


# -- a submitter that is stopped -------------------------------------------------------------------

STOPS = {
    "it has claimed nothing yet": Kill(PUSH, 0, "before"),
    "the remote has its claim": Kill(PUSH, 0, "after"),
    "it is about to submit": Kill(SUBMITS["slurm"], 0, "before"),
    "its jobs are submitted": Kill(SUBMITS["slurm"], 0, "after"),
    "it is about to record": Kill(PUSH, 1, "before"),
}


def test_a_submitter_that_wakes_after_its_claims_were_fenced_does_no_harm(
    cluster: Cluster, tmp_path: Path
) -> None:
    with ThreadPoolExecutor(len(STOPS)) as pool:
        places = [tmp_path / str(n) for n in range(len(STOPS))]
        done = [
            pool.submit(_sleeps, place, kill)
            for place, kill in zip(places, STOPS.values(), strict=True)
        ]
        for future in done:
            future.result()


def _sleeps(folder: Path, stop: Kill) -> None:
    sleeper, other = clones(folder, 2, executor="slurm", seeds=2, lease=1)
    stop = Kill(stop.point, stop.nth, stop.when, signal.SIGSTOP)
    process, pid = start_and_stop(sleeper, stop)
    time.sleep(1.1)  # its lease
    assert run([Task(str(other.path))])[0].code == 0
    assert all(r.job_id for r in records(other))
    os.kill(pid, signal.SIGCONT)
    out, err = process.communicate(timeout=240)
    (outcome,) = json.loads(out)
    assert outcome["code"] == 0, (outcome, err)
    settle([other, sleeper], 2)
