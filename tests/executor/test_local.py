"""The local executor: the contract, and what happens when it is killed."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mtf.core.states import JobState
from mtf.errors import ExecutorUnavailableError, MtfError
from mtf.executor.local import LocalExecutor
from tests.executor.contract import HEARS_TERM, Bench, Contract
from tests.executor.local_bench import kill_worker, make

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["make"]  # a fixture


class TestContract(Contract):
    """The local executor keeps the contract."""

    @pytest.fixture
    def make(self, make: Callable[[str], Bench]) -> Callable[[str], Bench]:  # noqa: F811
        return make


def test_a_killed_workers_jobs_go_on_and_their_ends_are_known(make: Callable[[str], Bench]) -> None:
    bench = make(
        'echo up > "$MTF_RUN_DIR/up"; while [ ! -e "$MTF_RUN_DIR/go" ]; do sleep 0.05; done; exit 9'
    )
    request = bench.request()
    bench.submit(request)
    bench.wait_file(request, "up")
    kill_worker(bench.root)
    (Path(request.tasks[0].run_dir) / "go").touch()
    time.sleep(0.3)  # it ends while nobody watches
    view = bench.wait_ended(request)[0]
    assert (view.state, view.exit_code) == (JobState.FAILED, 9)


def test_queued_jobs_survive_the_worker_and_are_started_once(make: Callable[[str], Bench]) -> None:
    bench = make('echo x >> "$MTF_RUN_DIR/lives"; sleep 0.2')
    request = bench.request(tuple(range(12)))
    bench.submit(request)
    for _ in range(4):
        time.sleep(0.15)
        kill_worker(bench.root)
        bench.views(request)  # any look starts a worker again
    found = bench.wait_ended(request)
    assert {v.state for v in found.values()} == {JobState.COMPLETED}
    assert [bench.wait_file(request, "lives", i).count("x") for i in range(12)] == [1] * 12


def test_a_job_killed_with_all_its_processes_is_a_node_failure(
    make: Callable[[str], Bench],
) -> None:
    bench = make('echo $PPID > "$MTF_RUN_DIR/up"; while :; do sleep 0.1; done')
    request = bench.request()
    bench.submit(request)
    os.killpg(int(bench.wait_file(request, "up")), signal.SIGKILL)
    assert bench.wait_ended(request)[0].state is JobState.NODE_FAILURE


def test_a_job_of_an_earlier_boot_is_recognised_though_its_pid_lives(
    make: Callable[[str], Bench],
) -> None:
    bench = make(
        'echo up > "$MTF_RUN_DIR/up"; while [ ! -e "$MTF_RUN_DIR/go" ]; do sleep 0.05; done'
    )
    request = bench.request()
    bench.submit(request)
    bench.wait_file(request, "up")
    kill_worker(bench.root)
    (start,) = (bench.root / ".local" / "starts").glob("*.start")
    start.write_text(f"{os.getpid()} another-boot 123\n")
    assert bench.wait_ended(request)[0].state is JobState.NODE_FAILURE
    (Path(request.tasks[0].run_dir) / "go").touch()


def test_the_time_limit_warns_then_ends_the_job(make: Callable[[str], Bench]) -> None:
    bench = make('trap "echo USR1 >> $MTF_RUN_DIR/heard" USR1; while :; do sleep 0.05; done')
    request = bench.request(time="00:00:02", signal_lead=1)
    bench.submit(request)
    assert bench.wait_file(request, "heard") == "USR1\n"
    assert bench.wait_ended(request)[0].state is JobState.TIMEOUT


def test_a_job_that_answers_the_warning_is_requeued_and_goes_on(
    make: Callable[[str], Bench],
) -> None:
    bench = make(
        '[ "$MTF_RESTARTS" = 1 ] && exit 0; trap "exit 85" USR1; while :; do sleep 0.05; done'
    )
    request = bench.request(time="00:00:05", signal_lead=4)
    bench.submit(request)
    view = bench.wait_ended(request)[0]
    assert (view.state, view.restarts) == (JobState.COMPLETED, 1)


def test_a_cancellation_during_a_preemption_is_final(make: Callable[[str], Bench]) -> None:
    bench = make(HEARS_TERM)
    request = bench.request()
    jobs = list(bench.submit(request).values())
    bench.wait_file(request, "lives")
    bench.executor.preempt(jobs)
    bench.executor.cancel(jobs)
    assert bench.wait_ended(request)[0].state is JobState.CANCELLED


def test_a_queued_job_is_cancelled_without_starting(make: Callable[[str], Bench]) -> None:
    bench = make('echo x > "$MTF_RUN_DIR/lives"; while :; do sleep 0.05; done')
    request = bench.request((0, 1), throttle=1)
    jobs = bench.submit(request)
    bench.wait_file(request, "lives")
    bench.executor.cancel([jobs[1]])
    bench.wait(request, lambda f: f[1].state is JobState.CANCELLED)
    bench.executor.cancel([jobs[0]])
    bench.wait_ended(request)
    assert not (Path(request.tasks[1].run_dir) / "lives").exists()


def test_the_same_token_twice_is_one_submission(make: Callable[[str], Bench]) -> None:
    bench = make("sleep 0.1")
    request = bench.request((0, 1))
    assert bench.submit(request) == bench.submit(request)
    assert len(bench.wait_ended(request)) == 2


def test_the_submitters_secrets_do_not_reach_the_job(
    make: Callable[[str], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_KEY", "hush")
    bench = make('env > "$MTF_RUN_DIR/env"')
    request = bench.request(variables={"LAB": "a b'c"})
    bench.submit(request)
    bench.wait_ended(request)
    env = bench.wait_file(request, "env")
    assert "hush" not in env
    assert "LAB=a b'c\n" in env


def test_a_damaged_queue_is_unreadable_not_empty(make: Callable[[str], Bench]) -> None:
    bench = make("exit 0")
    request = bench.request()
    bench.submit(request)
    bench.wait_ended(request)
    kill_worker(bench.root)
    (bench.root / ".local" / "queue.sqlite").write_bytes(b"not a database, by any means" * 100)
    with pytest.raises(ExecutorUnavailableError, match=r"queue\.sqlite"):
        bench.views(request)


def test_a_run_root_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    bench = Bench(LocalExecutor(tmp_path / "file" / "runs", 1), tmp_path / "elsewhere")
    request = bench.request()
    with pytest.raises(MtfError, match="runs_root"):
        bench.submit(request)
