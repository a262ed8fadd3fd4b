"""Concurrent syncs in one clone and in few (tests/slurm/test_crash_slurm.py has many clones)."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mtf.core.vocabulary.ids import JobId
from mtf.core.vocabulary.states import RunState
from mtf.git.repo import GitRepo
from mtf.ledger.store import Change, LedgerStore
from mtf.reconcile.record_updates import with_job
from tests.crash.campaign import SUBMITS, wait_for
from tests.crash.clones import clones, records, settle, start_and_stop
from tests.crash.killer import Kill, Task, run
from tests.crash.repositories import make_world
from tests.executor.local.bench import end_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.repos import Repo

AT_ONCE = 8


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    end_all(tmp_path)


def test_a_run_survives_a_sync_killed_while_it_fences_a_slow_submitter(
    folder: Path,
) -> None:
    sleeper, other = clones(folder, 2, executor="local", seeds=1, lease=1)
    stop = Kill("executor.local: rename job.sbatch", 0, "before", signal.SIGSTOP)
    process, pid = start_and_stop(sleeper, stop)
    time.sleep(1.1)  # its lease
    dies = Kill("reconcile: link .claims/<id>", 0, "after")
    assert run([Task(str(other.path), kill=dies)])[0].code == -9
    os.kill(pid, signal.SIGCONT)
    (outcome,) = json.loads(process.communicate(timeout=240)[0])
    assert outcome["code"] == 0
    assert [r.job_id for r in records(sleeper)] == ["local-1"]  # which exits at once
    settle([other, sleeper], 1)
    assert [len(r.attempts) for r in records(other)] == [2]


def test_the_claim_decides_between_two_jobs_of_one_attempt_in_diverged_ledgers(
    folder: Path,
) -> None:
    labs = clones(folder, 2, executor="local", seeds=1)
    submitted = Kill(SUBMITS["local"], 0, "after")
    assert run([Task(str(labs[0].path), kill=submitted)])[0].code == -9  # claimed, and pushed
    for lab, job in zip(
        reversed(labs), ("local-99", "local-1"), strict=True
    ):  # without contact to each other
        note_job(lab, job, publish=job == "local-99")

    def is_over() -> bool:
        assert {o.code for o in run([Task(str(lab.path)) for lab in labs])} == {0}
        return all(r.is_over for r in records(labs[0]))

    assert wait_for(is_over, 240), records(labs[0])
    assert run([Task(str(labs[1].path))])[0].code == 0
    assert records(labs[0]) == records(labs[1])
    (record,) = records(labs[0])
    assert [a.job_id for a in record.attempts] == ["local-99", "local-1"]
    assert record.state is RunState.COMPLETED
    assert (Path(record.run_dir) / "lives").read_text() == "local-1\n"
    plans = run([Task(str(lab.path), ("plan", "--format", "json")) for lab in labs])
    assert [json.loads(p.output)["actions"] for p in plans] == [[], []]


def note_job(lab: Repo, job: str, *, publish: bool) -> None:
    """Record a job for the only claim in a clone's ledger."""
    store = LedgerStore(GitRepo(lab.path), "origin", publish=publish)
    if publish:
        store.fetch("main")
    ledger = store.read()
    noted = tuple(with_job(r, JobId(job), r.claimed_at) for r in ledger.runs.values())
    assert len(noted) == 1
    store.append(ledger, Change(runs=noted), f"job {job}")


def test_concurrent_syncs_in_one_clone_submit_each_run_once(folder: Path) -> None:
    lab = make_world(folder / "w", executor="local", remote=True, seeds=4)
    codes = {o.code for o in run([Task(str(lab.path))] * AT_ONCE, parallel=AT_ONCE)}
    assert codes <= {0, 4}
    assert 0 in codes
    settle([lab], 4)
    assert all(len(r.attempts) == 1 for r in records(lab))
