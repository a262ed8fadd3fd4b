"""Crashes of the local executor: its worker, jobs, host or files fail at a bad moment."""

from __future__ import annotations

import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mtf import rundir
from mtf.core.vocabulary.states import JobState
from mtf.errors import ExecutorUnavailableError
from mtf.executor.local import job_process
from mtf.executor.local import queue_file as files
from mtf.executor.local.queue import LocalQueue, WorkerQueue
from tests.executor.contract import LOGS_TERM, Bench
from tests.executor.local.bench import WORKER, folder_of, kill_worker, processes, until

if TYPE_CHECKING:
    from mtf.core.vocabulary.jobs import JobRequest
    from tests.executor.local.bench import MakeBench

UNTIL_GO = """
echo $PPID > "$MTF_RUN_DIR/up"; echo x >> "$MTF_RUN_DIR/lives"
while [ ! -e "$MTF_RUN_DIR/go" ]; do sleep 0.02; done; exit 9
"""
ELSEWHERE = "another-host"


def running(local: MakeBench, snippet: str = UNTIL_GO) -> tuple[Bench, JobRequest]:
    """Return a bench with one job that runs until its file ``go`` is there."""
    bench = local(snippet)
    request = bench.request()
    bench.submit(request)
    bench.wait_file(request, "up")
    return bench, request


def go(request: JobRequest) -> None:
    (folder_of(request) / "go").touch()


def starts(bench: Bench) -> Path:
    return bench.root / ".local" / "starts"


def change(bench: Bench, **values: object) -> None:
    """Set columns of all jobs in the queue's database directly."""
    with closing(sqlite3.connect(bench.root / ".local" / "queue.sqlite")) as db, db:
        columns = ", ".join(f"{name} = ?" for name in values)
        db.execute(f"UPDATE jobs SET {columns}", tuple(values.values()))


# -- the worker dies -------------------------------------------------------------------------------


def test_jobs_of_a_killed_worker_keep_running_and_their_ends_are_recorded(local: MakeBench) -> None:
    bench, request = running(local)
    kill_worker(bench.root)
    go(request)
    until(lambda: list(starts(bench).glob("*.exit")), "it ends while nobody watches")
    until(lambda: not processes(bench.root), "its shell is gone")
    before = time.time()
    time.sleep(0.05)
    view = bench.wait_ended(request)[0]
    assert (view.state, view.exit_code) == (JobState.FAILED, 9)
    assert view.ended_at is not None
    assert view.ended_at.timestamp() <= before, "when it ended, not when that was seen"


def test_queued_jobs_survive_killed_workers_and_run_exactly_once(local: MakeBench) -> None:
    bench = local('echo x >> "$MTF_RUN_DIR/lives"; sleep 0.0$((RANDOM % 9))', max_parallel=5)
    request = bench.request(tuple(range(60)))
    bench.submit(request)
    dice = random.Random(0)
    for _ in range(12):
        time.sleep(dice.random() * 0.25)
        kill_worker(bench.root)
        bench.views(request)  # any look starts a worker again
    found = bench.wait_ended(request)
    assert {v.state for v in found.values()} == {JobState.COMPLETED}
    assert [bench.wait_file(request, "lives", i).count("x") for i in range(60)] == [1] * 60


@pytest.mark.parametrize("verb", ["cancel", "preempt"])
def test_a_requested_end_comes_even_if_the_worker_is_killed(local: MakeBench, verb: str) -> None:
    bench, request = running(local, 'trap "echo TERM >> $MTF_RUN_DIR/heard" TERM;' + UNTIL_GO)
    job = bench.views(request)[0].job_id
    getattr(bench, verb)(job)
    bench.wait_file(request, "heard")
    kill_worker(bench.root)
    if verb == "cancel":
        assert bench.wait_ended(request)[0].state is JobState.CANCELLED
    else:
        view = bench.wait(request, lambda f: f[0].restarts == 1)[0]
        assert view.job_id == job


def test_several_clients_start_one_worker(local: MakeBench) -> None:
    bench = local(UNTIL_GO)
    request = bench.request()
    bench.submit(request)
    bench.wait_file(request, "up")
    kill_worker(bench.root)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: bench.views(request), range(40)))
    assert len(processes(bench.root, WORKER)) == 1


# -- a start is interrupted ------------------------------------------------------------------------


def test_a_start_that_was_recorded_but_not_made_is_repeated(local: MakeBench) -> None:
    bench = local('echo "$MTF_RESTARTS" >> "$MTF_RUN_DIR/lives"')
    request = submitted_without_worker(bench)
    queue = WorkerQueue(bench.root)
    job = queue.next_waiting()
    assert job is not None
    queue.update(job, state=JobState.RUNNING, host=socket.gethostname(), began=time.monotonic())
    queue.close()
    assert bench.wait_ended(request)[0].state is JobState.COMPLETED
    assert bench.wait_file(request, "lives") == "1\n"
    # and the one that was meant first, should it come late, does nothing
    late(request, starts(bench) / f"{job.id}.0")
    assert bench.wait_file(request, "lives") == "1\n"


def test_a_job_killed_before_it_claimed_its_start_is_started_again(
    local: MakeBench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shell = tmp_path / "bash"  # dies once, as if somebody had killed it
    shell.write_text(f'#!/bin/sh\n[ -e {shell}.used ] && exec /bin/bash "$@"\n> {shell}.used\n')
    shell.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    bench = local('echo "$MTF_RESTARTS" >> "$MTF_RUN_DIR/lives"')
    request = bench.request()
    bench.submit(request)
    assert bench.wait_ended(request)[0].state is JobState.COMPLETED
    assert bench.wait_file(request, "lives") == "1\n"


def test_a_start_that_is_tried_twice_happens_once(tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text(f"echo x >> {tmp_path}/lives; sleep 0.1; exit 3\n")
    output = (tmp_path / "out", tmp_path / "err")
    tried = [
        job_process.launch(tmp_path / "1.0", str(script), tmp_path, output, {}) for _ in range(9)
    ]
    until(lambda: not any(p.is_alive() for p in tried), "all have ended")
    assert (tmp_path / "lives").read_text() == "x\n"
    assert job_process.read_start(tmp_path / "1.0") in tried
    assert (job_process.read_exit(tmp_path / "1.0") or (None,))[0] == 3
    assert not job_process.prevent_start(tmp_path / "1.0")


def submitted_without_worker(bench: Bench) -> JobRequest:
    request = bench.request()
    queue = LocalQueue(bench.root)
    queue.make()
    lock = job_process.WorkerLock(queue.folder)
    assert lock.acquire()
    bench.submit(request)
    lock.release()
    assert not processes(bench.root, WORKER)
    return request


def late(request: JobRequest, base: Path) -> None:
    script = Path(request.job_dir, rundir.SCRIPT)
    folder = folder_of(request)
    env = {"MTF_RUN_DIR": str(folder), "MTF_RESTARTS": "0", "PATH": os.environ["PATH"]}
    process = job_process.launch(base, str(script), folder, (base, base), env)
    until(lambda: not process.is_alive(), "it has ended")


# -- jobs die --------------------------------------------------------------------------------------


def test_a_job_killed_with_all_its_processes_is_a_node_failure(local: MakeBench) -> None:
    bench, request = running(local)
    os.killpg(int(bench.wait_file(request, "up")), signal.SIGKILL)
    view = bench.wait_ended(request)[0]
    assert (view.state, view.reason) == (JobState.NODE_FAILURE, "the process disappeared")


def test_a_job_is_not_lost_while_any_of_its_processes_runs(local: MakeBench) -> None:
    bench, request = running(local, 'echo $$ > "$MTF_RUN_DIR/me";' + UNTIL_GO)
    me = Path("/proc", bench.wait_file(request, "me").strip())
    kill_worker(bench.root)
    os.kill(int(bench.wait_file(request, "up")), signal.SIGKILL)  # its shell alone
    assert me.exists()
    assert bench.wait_ended(request)[0].state is JobState.NODE_FAILURE
    assert not me.exists() or ") Z " in (me / "stat").read_text()


def test_a_job_killed_by_a_signal_reports_the_signal(local: MakeBench) -> None:
    bench = local("kill -SEGV $$")
    request = bench.request()
    bench.submit(request)
    view = bench.wait_ended(request)[0]
    assert (view.state, view.signal) == (JobState.FAILED, signal.SIGSEGV)


# -- the host dies ---------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["the host was booted again", "the pid was used again"])
def test_a_process_that_reuses_a_jobs_pid_is_not_signalled(local: MakeBench, what: str) -> None:
    bench, request = running(local)
    kill_worker(bench.root)
    (start,) = starts(bench).glob("*.start")
    _, boot, clock = start.read_text().split()
    stranger = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    identity = f"other-{boot} {clock}" if "boot" in what else f"{boot} {int(clock) - 1}"
    start.write_text(f"{stranger.pid} {identity}\n")
    assert bench.wait_ended(request)[0].state is JobState.NODE_FAILURE
    assert stranger.poll() is None, "a stranger was signalled"
    stranger.kill()
    stranger.wait()


def test_a_job_that_was_cancelled_and_lost_is_cancelled(local: MakeBench) -> None:
    bench, request = running(local)
    job = bench.views(request)[0].job_id
    kill_worker(bench.root)
    os.killpg(int(bench.wait_file(request, "up")), signal.SIGKILL)
    LocalQueue(bench.root).cancel([job])
    assert bench.wait_ended(request)[0].state is JobState.CANCELLED


def test_an_empty_start_file_is_a_lost_job(local: MakeBench) -> None:
    bench, request = running(local)
    kill_worker(bench.root)
    (start,) = starts(bench).glob("*.start")
    start.write_text("")
    assert bench.wait_ended(request)[0].state is JobState.NODE_FAILURE


def test_an_incomplete_exit_file_is_no_exit_code(tmp_path: Path) -> None:
    (tmp_path / "1.0.exit").write_text("1")
    assert job_process.read_exit(tmp_path / "1.0") is None


# -- another host shares the run root --------------------------------------------------------------


def test_a_job_of_another_host_runs_until_its_exit_file_appears(
    local: MakeBench,
) -> None:
    bench, request = running(local)
    kill_worker(bench.root)
    change(bench, host=ELSEWHERE)
    other = bench.request()
    bench.submit(other)
    bench.wait_for(other, JobState.RUNNING)
    assert bench.views(request)[0].state is JobState.RUNNING
    assert bench.views(request)[0].node == ELSEWHERE
    go(request)
    view = bench.wait_ended(request)[0]
    assert (view.state, view.exit_code) == (JobState.FAILED, 9)


def test_a_cancelled_job_of_another_host_names_the_host(local: MakeBench) -> None:
    bench, request = running(local)
    kill_worker(bench.root)
    change(bench, host=ELSEWHERE)
    bench.cancel(bench.views(request)[0].job_id)
    view = bench.wait_ended(request)[0]
    assert view.state is JobState.CANCELLED
    assert ELSEWHERE in view.reason


# -- the queue's file ------------------------------------------------------------------------------


def queue_file(bench: Bench) -> Path:
    return bench.root / ".local" / "queue.sqlite"


def test_a_damaged_queue_is_not_taken_for_an_empty_one(local: MakeBench) -> None:
    bench, request = running(local)
    kill_worker(bench.root)
    queue_file(bench).write_bytes(b"not a database, by any means" * 100)
    for ask in (
        lambda: bench.views(request),
        lambda: bench.submit(request),
        bench.cancel,
    ):
        with pytest.raises(ExecutorUnavailableError, match=r"queue\.sqlite.*damaged"):
            ask()


def test_a_truncated_queue_is_not_taken_for_an_empty_one(local: MakeBench) -> None:
    bench, request = running(local)
    kill_worker(bench.root)
    queue_file(bench).write_bytes(b"")
    with pytest.raises(ExecutorUnavailableError, match=r"queue\.sqlite"):
        bench.views(request)


def test_a_queue_of_a_newer_format_is_not_changed(local: MakeBench) -> None:
    bench, request = running(local)
    kill_worker(bench.root)
    with closing(sqlite3.connect(queue_file(bench))) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(ExecutorUnavailableError, match="format 99"):
        bench.views(request)


def test_a_queue_that_stays_locked_is_reported(
    local: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, request = running(local)
    kill_worker(bench.root)
    monkeypatch.setattr(files, "_BUSY_S", 0.1)
    with closing(sqlite3.connect(queue_file(bench), isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ExecutorUnavailableError, match="locked the queue for"):
            bench.views(request)
    assert bench.views(request)[0].state is JobState.RUNNING


def test_a_writer_killed_in_its_transaction_changes_nothing(local: MakeBench) -> None:
    bench, request = running(local)
    kill_worker(bench.root)
    writer = subprocess.Popen(
        [
            sys.executable, "-c",
            "import sqlite3, sys, time\n"
            "db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
            "db.execute('PRAGMA cache_size = 1')\n"
            "db.execute('BEGIN IMMEDIATE')\n"
            "db.execute('UPDATE jobs SET token = hex(zeroblob(100000))')\n"
            "print(flush=True); time.sleep(1000)",
            str(queue_file(bench)),
        ],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert writer.stdout is not None
    writer.stdout.readline()
    assert queue_file(bench).with_name("queue.sqlite-journal").exists()
    writer.kill()
    writer.wait()
    writer.stdout.close()
    go(request)
    assert bench.wait_ended(request)[0].exit_code == 9


def test_no_job_id_is_reused_after_the_queue_is_lost(local: MakeBench) -> None:
    bench, request = running(local)
    first = bench.views(request)[0].job_id
    kill_worker(bench.root)
    queue_file(bench).unlink()
    other = bench.request()
    (second,) = bench.submit(other).values()
    assert int(second.removeprefix("local-")) > int(first.removeprefix("local-"))
    go(request)
    folder_of(other).mkdir(exist_ok=True)
    go(other)
    assert bench.wait_ended(other)[0].exit_code == 9


def test_a_worker_exits_when_its_run_root_is_removed(local: MakeBench) -> None:
    bench, request = running(local)
    kept = bench.root.rename(bench.root.with_name("kept"))
    until(lambda: not processes(bench.root, WORKER), "the worker has ended")
    kept.rename(bench.root)
    go(request)
    assert bench.wait_ended(request)[0].exit_code == 9


def test_concurrent_clients_get_different_job_ids(local: MakeBench) -> None:
    bench = local("exit 0", max_parallel=2)
    requests = [bench.request((0, 1)) for _ in range(16)]
    with ThreadPoolExecutor(8) as pool:  # the queue itself is made by one of them
        found = list(pool.map(bench.submit, requests))
    ids = [job for jobs in found for job in jobs.values()]
    assert len(set(ids)) == 32
    for request in requests:
        assert {v.state for v in bench.wait_ended(request).values()} == {JobState.COMPLETED}


def test_a_cancellation_during_the_recording_of_an_end_is_not_lost(local: MakeBench) -> None:
    bench = local(LOGS_TERM)
    submitted_without_worker(bench)
    queue = WorkerQueue(bench.root)
    job = queue.next_waiting()
    assert job is not None
    assert queue.update(job, state=JobState.RUNNING, host=ELSEWHERE)
    job = replace(job, state=JobState.RUNNING)
    LocalQueue(bench.root).cancel([job.job_id])
    assert not queue.update(job, state=JobState.PENDING, restarts=1)
    assert queue.running()[0].wish == "cancel"
    queue.close()
