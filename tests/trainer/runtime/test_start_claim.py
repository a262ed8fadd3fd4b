"""Who may write to a run folder: starts on this host, on others, with several ranks, at once."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mtf import rundir
from mtf.errors import MtfError
from mtf.trainer.runtime import process_identity
from mtf.trainer.runtime.process_identity import ProcessIdentity
from mtf.trainer.runtime.start_claim import ShutOutError, Start, take

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier
    from pathlib import Path

ONE = Start("t", "1", restarts=0, world_size=1)
TWO = Start("t", "1", restarts=0, world_size=2)


def on_another_host(claim: Path, **changes: str) -> None:
    """Rewrite a claim as if a process of another host, by default, had made it."""
    found = json.loads(claim.read_text())
    found["process"] |= changes or {"host": "elsewhere", "boot": "another"}
    claim.write_text(json.dumps(found))


def start_file(run: Path, number: int = 1) -> Path:
    return run / rundir.CLAIMS / f"start-{number}"


def test_a_process_of_another_host_counts_as_alive_until_the_job_is_started_again(
    tmp_path: Path,
) -> None:
    before = take(tmp_path, ONE, 0)
    on_another_host(start_file(tmp_path))
    with pytest.raises(ShutOutError, match="on elsewhere executes job 1 already"):
        take(tmp_path, ONE, 0)
    before.require()
    now = take(tmp_path, replace(ONE, restarts=1), 0)
    now.require()
    with pytest.raises(ShutOutError, match=r"job 1 \(restart 1\) on .* has taken over this run"):
        before.require()
    with pytest.raises(ShutOutError, match=r"job 1 \(restart 1\) has started since"):
        take(tmp_path, ONE, 0)


def test_a_host_that_was_booted_again_runs_nothing_of_before(tmp_path: Path) -> None:
    take(tmp_path, ONE, 0)
    on_another_host(start_file(tmp_path), boot="another")
    take(tmp_path, ONE, 0).require()


def test_a_process_in_another_container_cannot_be_judged_by_its_pid(tmp_path: Path) -> None:
    take(tmp_path, ONE, 0)
    on_another_host(start_file(tmp_path), namespace="pid:[1]")
    with pytest.raises(ShutOutError):
        take(tmp_path, ONE, 0)


def test_a_pid_that_was_used_again_is_another_process(tmp_path: Path) -> None:
    take(tmp_path, ONE, 0)
    on_another_host(start_file(tmp_path), since="1")
    take(tmp_path, ONE, 0).require()


def test_the_ranks_of_one_start_share_it_and_each_is_there_once(tmp_path: Path) -> None:
    ranks = [take(tmp_path, TWO, rank) for rank in (1, 0)]  # in any order
    for claim in ranks:
        claim.require()
    for rank in (0, 1):
        with pytest.raises(ShutOutError):
            take(tmp_path, TWO, rank)
    with pytest.raises(ShutOutError):
        take(tmp_path, replace(TWO, world_size=3), 2)
    again = [take(tmp_path, replace(TWO, restarts=1), rank) for rank in (0, 1)]
    for now, before in zip(again, ranks, strict=True):
        now.require()
        with pytest.raises(ShutOutError):
            before.require()
    names = sorted(p.name for p in (tmp_path / rundir.CLAIMS).iterdir())
    assert names == ["start-2", "start-2-1"]  # nothing of the start before


def _compete(run: Path, barrier: Barrier, found: multiprocessing.Queue[bool]) -> None:
    for number in range(20):
        barrier.wait()
        try:
            take(run, replace(ONE, restarts=number), 0)
        except ShutOutError:
            found.put(False)
        else:
            found.put(True)
        barrier.wait()


def test_of_processes_that_start_at_once_exactly_one_gets_the_run(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    found: multiprocessing.Queue[bool] = fork.Queue()
    barrier = fork.Barrier(3)
    workers = [fork.Process(target=_compete, args=(tmp_path, barrier, found)) for _ in range(3)]
    for worker in workers:
        worker.start()
    answers = [found.get(timeout=60) for _ in range(60)]
    for worker in workers:
        worker.join()
    assert answers.count(True) == 20
    assert [p.name for p in (tmp_path / rundir.CLAIMS).iterdir()] == ["start-20"]


def test_what_a_process_writes_while_it_is_shut_out_has_no_effect(tmp_path: Path) -> None:
    """It has opened the journal and looked for its claim, and writes after the takeover."""
    before = take(tmp_path, ONE, 0, [rundir.JOURNAL])
    rundir.append_journal(tmp_path, "started", {})

    def overtaken() -> None:
        before.require()
        take(tmp_path, replace(ONE, restarts=1), 0, [rundir.JOURNAL])

    rundir.append_journal(tmp_path, "metrics", {}, overtaken)
    assert [event["event"] for event in rundir.read_journal(tmp_path)] == ["started"]
    with pytest.raises(ShutOutError):
        rundir.append_journal(tmp_path, "metrics", {}, before.require)


def test_a_killed_claimant_leaves_nothing_that_holds_up_others(tmp_path: Path) -> None:
    take(tmp_path, ONE, 0)
    left = rundir.temporary_path(start_file(tmp_path, 1))
    left.touch()
    take(tmp_path, replace(ONE, restarts=1), 0)
    assert not left.exists()


def test_a_run_folder_that_was_removed_is_not_taken_for_a_takeover(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    claim = take(run, ONE, 0)
    start_file(run).unlink()
    start_file(run).parent.rmdir()
    claim.require()  # the write itself fails, with its own reason


def test_a_claim_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    take(tmp_path, ONE, 0)
    start_file(tmp_path).write_text("{}")
    with pytest.raises(MtfError, match=r"start-1: not a claim of mtf. If no job of this run"):
        take(tmp_path, ONE, 0)


def test_a_stopped_process_is_alive_and_a_zombie_is_not() -> None:
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    since = process_identity._stat(pid)[1]
    child = replace(ProcessIdentity.of_this_process(), pid=pid, since=since)
    os.kill(pid, signal.SIGSTOP)
    assert not child.is_dead()
    os.kill(pid, signal.SIGKILL)
    while process_identity._stat(pid)[0] not in ("Z", ""):
        time.sleep(0.01)
    assert child.is_dead()
    os.waitpid(pid, 0)
    assert child.is_dead()
