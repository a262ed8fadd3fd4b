"""The local executor: the contract of executors, and SLURM's behaviour beyond the contract."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mtf import rundir
from mtf.core.vocabulary.ids import JobId
from mtf.core.vocabulary.states import JobState
from mtf.errors import ExecutorUnavailableError, MtfError
from mtf.executor.local.local_executor import LocalExecutor
from tests.executor.contract import LOGS_TERM, Bench, Contract
from tests.executor.local.bench import WORKER, folder_of, processes, until

if TYPE_CHECKING:
    from mtf.core.vocabulary.jobs import JobRequest
    from tests.executor.local.bench import MakeBench

FOREVER = 'echo up > "$MTF_RUN_DIR/up"; while :; do sleep 0.05; done'


class TestContract(Contract):
    """The local executor keeps the contract."""

    @pytest.fixture
    def make(self, local: MakeBench) -> MakeBench:
        return local


# -- time limit ------------------------------------------------------------------------------------


def test_a_job_is_warned_before_its_time_limit_and_ended_at_it(local: MakeBench) -> None:
    bench = local('trap "echo USR1 >> $MTF_RUN_DIR/heard" USR1; while :; do sleep 0.05; done')
    request = bench.request(time="00:00:04", signal_lead=3)
    bench.submit(request)
    assert bench.wait_file(request, "heard") == "USR1\n"
    view = bench.wait_ended(request)[0]
    assert (view.state, view.reason) == (JobState.TIMEOUT, "time limit")
    assert bench.wait_file(request, "heard") == "USR1\n"


def test_a_job_that_ignores_term_is_killed_at_its_time_limit(local: MakeBench) -> None:
    bench = local('trap "" TERM USR1; while :; do sleep 0.05; done')
    request = bench.request(time="00:00:01")
    bench.submit(request)
    view = bench.wait_ended(request)[0]
    assert (view.state, view.signal) == (JobState.TIMEOUT, 9)


def test_a_lead_longer_than_the_limit_does_not_warn_a_job_at_its_start(
    local: MakeBench,
) -> None:
    bench = local('sleep 0.3; echo done > "$MTF_RUN_DIR/done"')
    request = bench.request(time="00:00:20", signal_lead=60)
    bench.submit(request)
    assert bench.wait_ended(request)[0].state is JobState.COMPLETED


@pytest.mark.parametrize(
    ("requeue", "state", "restarts"), [(True, JobState.COMPLETED, 1), (False, JobState.FAILED, 0)]
)
def test_a_job_that_saves_on_the_warning_is_requeued_if_allowed(
    local: MakeBench, requeue: bool, state: JobState, restarts: int
) -> None:
    bench = local(
        '[ "$MTF_RESTARTS" = 1 ] && exit 0; trap "exit 85" USR1; while :; do sleep 0.05; done'
    )
    request = bench.request(time="00:00:05", signal_lead=4, requeue=requeue)
    bench.submit(request)
    view = bench.wait_ended(request)[0]
    assert (view.state, view.restarts) == (state, restarts)
    assert view.exit_code == (0 if requeue else 85)


# -- preemption and cancellation -------------------------------------------------------------------


def test_a_preempted_job_without_requeue_is_over(local: MakeBench) -> None:
    bench = local(FOREVER)
    request = bench.request(requeue=False)
    jobs = bench.submit(request)
    bench.wait_file(request, "up")
    bench.preempt(*jobs.values())
    assert bench.wait_ended(request)[0].state is JobState.PREEMPTED


def test_a_preempted_job_goes_to_the_end_of_the_queue(local: MakeBench) -> None:
    bench = local('echo "$MTF_JOB_ID" >> "$MTF_RUN_DIR/../order"; ' + LOGS_TERM, max_parallel=1)
    first, second = bench.request(), bench.request()
    jobs = list(bench.submit(first).values())
    bench.wait_file(first, "lives")
    others = list(bench.submit(second).values())
    bench.preempt(*jobs)
    bench.wait_file(second, "lives")
    assert bench.views(first)[0].state is JobState.PENDING
    assert bench.views(first)[0].reason == "preempted"
    bench.preempt(*others)
    bench.wait_ended(first)
    bench.wait_ended(second)
    order = (bench.root / "sub" / "order").read_text().split()
    assert order == [*jobs, *others, *jobs, *others]


def test_a_cancellation_during_a_preemption_is_final(local: MakeBench) -> None:
    bench = local(LOGS_TERM)
    request = bench.request()
    jobs = list(bench.submit(request).values())
    bench.wait_file(request, "lives")
    bench.preempt(*jobs)
    bench.cancel(*jobs)
    bench.preempt(*jobs)
    assert bench.wait_ended(request)[0].state is JobState.CANCELLED


def test_repeated_cancellation_does_not_delay_the_kill(local: MakeBench) -> None:
    bench = local('trap "" TERM; ' + FOREVER)
    request = bench.request()
    jobs = list(bench.submit(request).values())
    bench.wait_file(request, "up")

    def over(views: object) -> bool:
        bench.cancel(*jobs)
        return bench.views(request)[0].state is JobState.CANCELLED

    bench.wait(request, over)


def test_a_queued_job_is_cancelled_without_starting(local: MakeBench) -> None:
    bench = local('echo x > "$MTF_RUN_DIR/lives"; while :; do sleep 0.05; done')
    request = bench.request((0, 1), throttle=1)
    jobs = bench.submit(request)
    bench.wait_file(request, "lives")
    bench.cancel(jobs[1])
    assert bench.views(request)[1].state is JobState.CANCELLED
    bench.cancel(jobs[0])
    bench.wait_ended(request)
    assert not (folder_of(request, 1) / "lives").exists()


def test_job_ids_of_other_executors_are_ignored(local: MakeBench) -> None:
    bench = local(
        'echo up > "$MTF_RUN_DIR/up"; while [ ! -e "$MTF_RUN_DIR/go" ]; do sleep 0.02; done'
    )
    request = bench.request()
    (job,) = bench.submit(request).values()
    bench.wait_file(request, "up")
    number = job.removeprefix("local-")
    bench.cancel(JobId(number), JobId(f"{number}_0"), JobId("local-²"), JobId("local-"))
    (folder_of(request) / "go").touch()
    assert bench.wait_ended(request)[0].state is JobState.COMPLETED


# -- processes -------------------------------------------------------------------------------------


def test_processes_that_a_job_leaves_behind_are_killed(local: MakeBench) -> None:
    bench = local('sleep 1000 & echo $! > "$MTF_RUN_DIR/left"')
    request = bench.request()
    bench.submit(request)
    assert bench.wait_ended(request)[0].state is JobState.COMPLETED
    left = Path("/proc", bench.wait_file(request, "left").strip(), "stat")
    until(lambda: not left.exists() or ") Z " in left.read_text(), "its child has ended")


def test_a_child_of_a_shell_that_exits_on_term_has_its_grace_time(local: MakeBench) -> None:
    bench = local(
        '[ "$MTF_RESTARTS" = 1 ] && exit 0\n'
        """bash -c 'trap "sleep 1; echo saved > $MTF_RUN_DIR/saved" TERM; echo up > $MTF_RUN_DIR/up
        while :; do sleep 0.05; done'; echo never""",
        grace_s=30.0,
    )
    request = bench.request()
    jobs = bench.submit(request)
    bench.wait_file(request, "up")
    bench.preempt(*jobs.values())
    assert bench.wait_file(request, "saved") == "saved\n"
    bench.cancel(*jobs.values())
    assert bench.wait_ended(request)[0].state is JobState.CANCELLED


def test_a_job_outlives_its_submitter_and_gets_signals_that_the_submitter_ignored(
    local: MakeBench,
) -> None:
    bench = local('trap "echo bye > $MTF_RUN_DIR/bye; exit 1" TERM; ' + FOREVER)
    request = bench.request()
    code = (
        "import pickle, sys\n"
        "from pathlib import Path\n"
        "from mtf.executor.local.local_executor import LocalExecutor\n"
        "request, root, text = pickle.load(sys.stdin.buffer)\n"
        "e = LocalExecutor(root, 4, {'local.sh.j2': text}, grace_s=0.5, kill_wait_s=5)\n"
        "print(*e.submit(request, e.scripts([request])[0]).jobs.values())\n"
    )
    import pickle

    assert isinstance(bench.executor, LocalExecutor)
    assert bench.executor._templates
    shell = subprocess.run(
        ["bash", "-c", 'trap "" TERM USR1 INT; "$0" -c "$1" 7<"$0"', sys.executable, code],
        input=pickle.dumps((request, bench.root, bench.executor._templates["local.sh.j2"])),
        capture_output=True, start_new_session=True, check=True,
    )  # fmt: skip
    bench.wait_file(request, "up")
    (worker,) = processes(bench.root, WORKER)
    assert os.getsid(worker) == worker
    opened = {str(fd.readlink()) for fd in Path(f"/proc/{worker}/fd").iterdir()}
    assert sys.executable not in opened, "the worker has inherited what the shell had open"
    bench.cancel(JobId(shell.stdout.decode().strip()))
    assert bench.wait_ended(request)[0].state is JobState.CANCELLED
    assert bench.wait_file(request, "bye") == "bye\n"


def test_an_idle_worker_exits_and_is_started_again(local: MakeBench) -> None:
    bench = local("exit 0", idle_s=0.1)
    before = len(zombies())
    for _ in range(3):
        request = bench.request()
        bench.submit(request)
        assert bench.wait_ended(request)[0].state is JobState.COMPLETED
        until(lambda: not processes(bench.root), "the worker has ended")
    assert not list((bench.root / ".local" / "starts").iterdir())
    assert len(zombies()) <= before + 1


def zombies() -> list[str]:
    stats = [p / "stat" for p in Path("/proc").iterdir() if p.name.isdigit()]
    found = [s.read_text().rpartition(") ")[2].split() for s in stats if s.exists()]
    return [f[0] for f in found if f[0] == "Z" and int(f[1]) == os.getpid()]


# -- submission ------------------------------------------------------------------------------------


def test_the_same_token_twice_is_one_submission(local: MakeBench) -> None:
    bench = local('echo x >> "$MTF_RUN_DIR/lives"')
    request = bench.request((0, 1))
    assert bench.submit(request) == bench.submit(request)
    assert len(bench.wait_ended(request)) == 2
    assert bench.submit(request).keys() == {0, 1}
    assert {v.state for v in bench.views(request).values()} == {JobState.COMPLETED}
    assert bench.wait_file(request, "lives") == "x\n"


def test_secrets_in_the_submitters_environment_do_not_reach_the_job(
    local: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_KEY", "hush")
    monkeypatch.delenv("PATH")
    bench = local('env > "$MTF_RUN_DIR/env"; pwd > "$MTF_RUN_DIR/pwd"')
    request = bench.request(variables={"LAB": "a b'c"})
    (job,) = bench.submit(request).values()
    assert bench.wait_ended(request)[0].state is JobState.COMPLETED
    env = bench.wait_file(request, "env")
    assert "hush" not in env
    for line in (
        "LAB=a b'c", f"MTF_TOKEN={request.token}", f"MTF_JOB_ID={job}", "MTF_RESTARTS=0",
        f"MTF_RUN_DIR={request.tasks[0].run_dir}", f"HOME={os.environ['HOME']}",
    ):  # fmt: skip
        assert f"{line}\n" in env
    for name in ("PATH", "USER", "LANG"):
        assert f"\n{name}=" in f"\n{env}"
    (worker,) = processes(bench.root, WORKER)
    assert b"hush" not in Path(f"/proc/{worker}/environ").read_bytes()


def test_each_start_of_a_job_appends_to_its_output(local: MakeBench) -> None:
    bench = local('echo "life $MTF_RESTARTS"; ' + LOGS_TERM)
    request = bench.request()
    (job,) = bench.submit(request).values()
    bench.wait_file(request, "lives")
    bench.preempt(job)
    bench.wait_ended(request)
    output = rundir.job_output(Path(request.job_dir), job)
    assert output.read_text() == "life 0\nlife 1\n"


def test_a_job_whose_folder_is_gone_reports_it(local: MakeBench) -> None:
    bench = local('while [ ! -e "$MTF_RUN_DIR/../go" ]; do sleep 0.02; done', max_parallel=1)
    first, lost = bench.request(), bench.request()
    bench.submit(first)
    bench.submit(lost)
    shutil.rmtree(lost.job_dir)
    (folder_of(first).parent / "go").touch()
    view = bench.wait_ended(lost)[0]
    assert view.state is JobState.NODE_FAILURE
    assert lost.job_dir in view.reason
    assert not folder_of(lost).exists()


def test_a_run_root_that_cannot_be_created_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    bench = Bench(LocalExecutor(tmp_path / "file" / "runs", 1), tmp_path / "elsewhere")
    request = bench.request()
    with pytest.raises(MtfError, match=r"file/runs.*runs_root"):
        bench.submit(request)


def test_the_error_of_a_worker_is_the_reason_of_waiting_jobs(
    local: MakeBench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no such module >&2\nexit 1\n")
    python.chmod(0o755)
    bench = local("exit 0")
    request = bench.request()
    script = bench.script(request)
    monkeypatch.setattr(sys, "executable", str(python))
    bench.executor.submit(request, script)
    bench.wait(request, lambda f: "no such module" in f[0].reason)
    monkeypatch.undo()
    assert bench.wait_ended(request)[0].state is JobState.COMPLETED


def test_a_job_has_the_times_of_its_start_and_end(local: MakeBench) -> None:
    bench = local("exit 0")
    for _ in range(2):  # the second finds a worker
        request = bench.request()
        began = time.time()
        bench.submit(request)
        view = bench.wait_ended(request)[0]
        assert view.started_at is not None
        assert view.ended_at is not None
        assert began - 1 <= view.started_at.timestamp() <= view.ended_at.timestamp() + 1


# -- whose queue it is -----------------------------------------------------------------------------


def test_a_queue_takes_jobs_of_its_owner_alone_as_whom_they_run(local: MakeBench) -> None:
    """Root stands for a second user of a shared run root."""
    if os.getuid() != 0:
        pytest.skip("only root can give a file away")
    bench = local("true")
    bench.wait_ended(_submitted(bench))
    queue = bench.root / ".local" / "queue.sqlite"
    os.chown(queue, pwd.getpwnam("nobody").pw_uid, -1)
    with pytest.raises(ExecutorUnavailableError, match="the local queue of nobody, as whom its"):
        bench.submit(bench.request())


def _submitted(bench: Bench) -> JobRequest:
    request = bench.request()
    bench.submit(request)
    return request
