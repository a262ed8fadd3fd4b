"""The SLURM executor on a real cluster: the contract, refusals, accounting, signals."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mtf import rundir
from mtf.core.vocabulary.ids import JobId, Token, job_name
from mtf.core.vocabulary.states import JobState
from mtf.errors import (
    ExecutorUnavailableError,
    MtfError,
    SubmissionRefusedError,
    SubmissionUncertainError,
)
from mtf.executor.slurm.programs import answers, available
from mtf.executor.slurm.slurm_executor import SlurmExecutor
from tests.executor.contract import ENDED, Bench, Contract

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.slurm_cluster import Cluster

pytestmark = pytest.mark.slurm
TRAINER = """\
import os, signal, sys, time
folder = sys.argv[1]
if "LATE" in os.environ:
    if os.fork() == 0:  # the training ignores signals: another process of the task logs them
        early = set()
        for s in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(s, lambda number, frame: early.add(number))
        open(os.path.join(folder, "starting"), "w").write("1")
        while len(early) < 2:
            time.sleep(0.05)
        open(os.path.join(folder, "missed"), "w").write("both")
        os._exit(0)
    while not os.path.exists(os.path.join(folder, "go")):
        time.sleep(0.05)
if "RANKS" in os.environ:
    names = ("SLURM_PROCID", "SLURM_NODEID", "MASTER_ADDR", "MASTER_PORT", "SLURM_CPUS_PER_TASK")
    with open(os.path.join(folder, "rank" + os.environ["SLURM_PROCID"]), "w") as f:
        f.write(" ".join(os.environ[n] for n in names))
    if os.environ["RANKS"] == "ok":
        sys.exit(0)
    if os.environ["SLURM_PROCID"] == "1":
        sys.exit(3)
def note(text):
    with open(os.path.join(folder, "heard"), "a") as f:
        f.write(text + "\\n")
def on(number, frame):
    note(signal.Signals(number).name)
    if number == signal.SIGUSR1:
        sys.exit(85)
for s in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(s, on)
note("life " + os.environ["MTF_RESTARTS"])
if os.environ["MTF_RESTARTS"] != "0":
    sys.exit(0)
end = time.time() + 300
while time.time() < end:
    time.sleep(0.1)
"""


@pytest.fixture
def make(cluster: Cluster, tmp_path: Path) -> Callable[[str], Bench]:
    tmp_path.chmod(0o755)

    def factory(snippet: str) -> Bench:
        shipped = Path(__file__).parents[2] / "templates" / "job.sbatch.j2"
        head = shipped.read_text().split("srun", 1)[0].rsplit("\n\n", 1)[0]
        never = "if false; then srun {{ command }}; fi"  # what every template must hold
        text = f"{head}\n{never}\n{snippet}\n"
        return Bench(SlurmExecutor({"job.sbatch.j2": text}), tmp_path / "runs")

    return factory


@pytest.fixture
def real(cluster: Cluster, tmp_path: Path) -> Bench:
    """The shipped template, with a small program instead of the trainer."""
    bench = Bench(SlurmExecutor(), tmp_path / "runs")
    package = bench.root / ".code" / "c" / "mtf"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "trainer.py").write_text(TRAINER)
    return bench


class TestContract(Contract):
    """The contract of all executors, kept by SLURM."""

    @pytest.fixture
    def make(self, make: Callable[[str], Bench]) -> Callable[[str], Bench]:
        return make


def test_this_cluster_is_available(cluster: Cluster) -> None:
    assert available()
    assert answers()


def test_no_configuration_means_no_cluster(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", "/nonexistent/slurm.conf")
    assert not available()


@pytest.mark.parametrize(
    ("needs", "text"),
    [
        ({"partition": "nope"}, "Invalid partition name"),
        ({"reservation": "nope"}, "reservation"),
        ({"constraint": "nope"}, "feature"),
        ({"extra": ["--nonsense=1"]}, "unrecognized option"),
    ],
)
def test_a_refusal_quotes_slurm_and_is_final(
    make: Callable[[str], Bench], needs: dict[str, Any], text: str
) -> None:
    bench = make("exit 0")
    request = bench.request(**needs)
    with pytest.raises(SubmissionRefusedError, match=text):
        bench.submit(request)
    assert bench.views(request) == {}


def test_the_array_limit_is_the_clusters(make: Callable[[str], Bench]) -> None:
    assert make("exit 0").executor.limits().max_array_size == 1001


def altered(tmp_path: Path, **values: str) -> str:
    """Return a copy of the cluster's configuration with these keys changed."""
    keys = tuple(f"{key}=" for key in values)
    lines = Path(os.environ["SLURM_CONF"]).read_text().splitlines()
    kept = [line for line in lines if not line.startswith(keys)]
    path = tmp_path / "slurm.conf"
    path.write_text("\n".join([*kept, *(f"{k}={v}" for k, v in values.items())]) + "\n")
    return str(path)


def test_a_controller_that_is_down_means_unavailable(
    make: Callable[[str], Bench], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bench = make("exit 0")
    request = bench.request()
    monkeypatch.setenv("SLURM_CONF", altered(tmp_path, SlurmctldPort="9", MessageTimeout="2"))
    assert available()  # its jobs are this cluster's, and no other executor's
    assert not answers()
    with pytest.raises(ExecutorUnavailableError, match="controller"):
        bench.submit(request)
    with pytest.raises(ExecutorUnavailableError):
        bench.views(request)
    with pytest.raises(ExecutorUnavailableError):
        bench.cancel(JobId("1"))


def test_without_accounting_squeue_alone_decides(
    make: Callable[[str], Bench], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bench = make("exit 0")
    request = bench.request()
    monkeypatch.setenv(
        "SLURM_CONF", altered(tmp_path, AccountingStorageType="accounting_storage/none")
    )
    assert bench.views(request) == {}
    bench.submit(request)
    assert bench.wait_ended(request)[0].state is JobState.COMPLETED


def test_a_job_is_unknown_not_missing_while_accounting_cannot_be_read(
    make: Callable[[str], Bench], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bench = make("exit 0")
    request = bench.request()
    monkeypatch.setenv("SLURM_CONF", altered(tmp_path, AccountingStoragePort="9"))
    bench.submit(request)
    assert bench.wait_ended(request)[0].state is JobState.COMPLETED
    view = bench.views(bench.request())[0]  # it may have been submitted and forgotten
    assert view.state is JobState.UNKNOWN
    assert "database" in view.reason


def test_the_end_of_a_job_that_squeue_forgot_is_read_from_accounting(
    make: Callable[[str], Bench], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bench = make('[ "$SLURM_ARRAY_TASK_ID" = 2 ] && exit 7; exit 0')
    request = bench.request((2, 5))
    jobs = bench.submit(request)
    bench.wait_ended(request)
    forgetful = tmp_path / "squeue"
    forgetful.write_text("#!/bin/sh\nexit 0\n")
    forgetful.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = bench.wait(request, lambda f: len(f) == 2 and all(v.state in ENDED for v in f.values()))
    assert {i: v.job_id for i, v in found.items()} == jobs
    assert (found[2].state, found[2].exit_code) == (JobState.FAILED, 7)
    assert (found[5].state, found[5].exit_code) == (JobState.COMPLETED, 0)
    assert found[5].ended_at is not None


def test_environment_variables_for_slurm_programs_change_no_answer(
    make: Callable[[str], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "SBATCH_PARTITION": "nowhere",
        "SBATCH_TIMELIMIT": "1",
        "SQUEUE_FORMAT": "%i",
        "SQUEUE_USERS": "nobody",
        "SQUEUE_STATES": "SUSPENDED",
        "SACCT_FORMAT": "jobid",
        "SCANCEL_STATE": "SUSPENDED",
        "SLURM_CLUSTERS": "another",
        "SLURM_JOB_ID": "1",
        "SLURM_ARRAY_TASK_ID": "9",
    }.items():
        monkeypatch.setenv(name, value)
    bench = make("sleep 60")
    request = bench.request()
    jobs = bench.submit(request)
    assert bench.views(request)[0].job_id == jobs[0]
    bench.cancel(*jobs.values())
    assert bench.wait_ended(request)[0].state is JobState.CANCELLED


def test_a_node_that_cannot_write_the_output_is_named_as_the_reason(
    make: Callable[[str], Bench],
) -> None:
    bench = make("exit 0")
    request = bench.request(extra=["--hold"])
    (job,) = bench.submit(request).values()
    shutil.rmtree(request.job_dir)
    subprocess.run(["scontrol", "release", job], check=True)
    view = bench.wait_ended(request)[0]
    assert (view.state, view.signal) == (JobState.NOT_STARTED, 53)
    assert "can write to the run root" in view.reason


def test_an_array_is_submitted_up_to_the_job_limit(make: Callable[[str], Bench]) -> None:
    bench = make("exit 0")
    request = bench.request(tuple(range(10)), qos="few", extra=["--hold"], throttle=2)
    done = bench.executor.submit(request, bench.script(request))
    assert set(done.jobs) == {0, 1, 2}
    assert "QOSMaxSubmitJobPerUserLimit" in done.put_off
    found = bench.views(request)
    assert {i: v.job_id for i, v in found.items()} == done.jobs
    more = bench.request((0,), array=False, qos="few")
    assert bench.executor.submit(more, bench.script(more)).jobs == {}
    bench.cancel(*done.jobs.values())
    bench.wait(request, lambda f: {v.state for v in f.values()} == {JobState.CANCELLED})
    assert set(bench.submit(more)) == {0}


def test_changes_that_an_administrator_makes_to_a_job_are_seen(
    cluster: Cluster, make: Callable[[str], Bench]
) -> None:
    bench = make('echo up >> "$MTF_RUN_DIR/up"; sleep 300')
    stays, comes = bench.request(requeue=False), bench.request(requeue=True)
    job, other = bench.submit(stays)[0], bench.submit(comes)[0]
    for request in (stays, comes):
        bench.wait_file(request, "up")
    cluster.run("scontrol", "suspend", job)
    bench.wait_for(stays, JobState.SUSPENDED)
    cluster.run("scontrol", "resume", job)
    bench.wait_for(stays, JobState.RUNNING)
    cluster.run("scontrol", "requeuehold", other)
    held = bench.wait_for(comes, JobState.HELD)[0]
    assert held.restarts == 1
    node = bench.views(stays)[0].node
    assert node is not None
    with cluster.failed(node):
        view = bench.wait_ended(stays)[0]
    assert (view.state, view.node, view.restarts) == (JobState.NODE_FAILURE, node, 0)


def test_a_training_killed_for_its_memory_is_recognised(
    make: Callable[[str], Bench],
) -> None:
    bench = make("srun sh -c 'kill -9 $$'; exit $?")
    request = bench.request()
    bench.submit(request)
    view = bench.wait_ended(request)[0]
    assert (view.state, view.exit_code) == (JobState.FAILED, 137)


def test_a_submission_to_a_hanging_controller_is_unclear_and_its_job_is_found(
    cluster: Cluster, make: Callable[[str], Bench], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bench = make("exit 0")
    request = bench.request()
    pid = int((cluster.folder / "slurmctld.pid").read_text())
    with monkeypatch.context() as patch:
        patch.setenv("SLURM_CONF", altered(tmp_path, MessageTimeout="2"))
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(SubmissionUncertainError, match="timed out"):
                bench.submit(request)
        finally:
            os.kill(pid, signal.SIGCONT)
    assert bench.wait_ended(request)[0].state is JobState.COMPLETED  # it was accepted all the same


def test_a_cancelled_job_names_the_user_who_cancelled_it(
    cluster: Cluster, make: Callable[[str], Bench]
) -> None:
    bench = make("exit 0")
    request = bench.request(extra=["--hold"])
    cluster.run("scancel", bench.submit(request)[0])
    view = bench.wait(request, lambda f: f[0].cancelled_by is not None)[0]
    assert view.cancelled_by == pwd.getpwuid(os.getuid()).pw_name


def test_a_long_irregular_array_is_read_completely(make: Callable[[str], Bench]) -> None:
    bench = make("exit 0")
    request = bench.request(tuple(range(0, 1000, 3)), extra=["--hold"])
    jobs = bench.submit(request)
    found = bench.views(request)
    assert {i: v.job_id for i, v in found.items()} == jobs
    assert {v.state for v in found.values()} == {JobState.HELD}
    bench.cancel(*jobs.values())
    assert {v.state for v in bench.wait_ended(request).values()} == {JobState.CANCELLED}


def test_tasks_cancelled_before_their_start_are_reported_as_cancelled(
    cluster: Cluster, make: Callable[[str], Bench]
) -> None:
    bench = make('echo up > "$MTF_RUN_DIR/up"; sleep 60')
    request = bench.request((0, 1, 2, 3, 4, 5, 6), throttle=1)
    jobs = bench.submit(request)
    bench.wait_file(request, "up")
    bench.cancel(jobs[2], jobs[4], jobs[6])  # what is left of it is a range with a step
    assert set(bench.views(request)) == {0, 1, 3, 5}
    for index in (1, 3, 5):
        cluster.run("scancel", jobs[index])
    found = bench.views(request)
    assert found.pop(0).state is JobState.RUNNING
    assert {v.state for v in found.values()} == {JobState.CANCELLED}
    bench.cancel(*jobs.values())
    assert {v.state for v in bench.wait_ended(request).values()} == {JobState.CANCELLED}


def test_a_waiting_array_that_is_cancelled_as_a_whole_is_cancelled(
    cluster: Cluster, make: Callable[[str], Bench]
) -> None:
    bench = make("exit 0")
    request = bench.request((0, 1, 3), extra=["--hold"])
    cluster.run("scancel", bench.submit(request)[0].partition("_")[0])
    found = bench.wait_ended(request)
    assert {v.state for v in found.values()} == {JobState.CANCELLED}
    assert set(found) == {0, 1, 3}


def test_more_job_names_than_fit_on_a_command_line_can_be_asked_for(
    make: Callable[[str], Bench],
) -> None:
    bench = make("exit 0")
    request = bench.request()
    bench.submit(request)
    others = {Token(f"{n:016x}"): job_name("x" * 100, Token(f"{n:016x}")) for n in range(2000)}
    names = {**others, request.token: job_name(request.name, request.token)}
    assert {v.token for v in bench.executor.jobs(names, bench.since)} == {request.token}


def test_the_run_root_may_have_any_name(cluster: Cluster, tmp_path: Path) -> None:
    bench = Bench(SlurmExecutor(), tmp_path / "it's 100%j, a #1 $HOME; ü & so on")
    package = bench.root / ".code" / "c" / "mtf"
    package.mkdir()
    (package / "trainer.py").write_text("import sys; print(sys.argv[1])")
    requests = [bench.request(array=array) for array in (True, False)]
    for request, job in [(r, bench.submit(r)[0]) for r in requests]:
        assert bench.wait_ended(request)[0].state is JobState.COMPLETED
        output = rundir.job_output(Path(request.job_dir), job)
        assert output.read_text().strip() == request.tasks[0].run_dir


def test_preempting_a_job_that_cannot_be_requeued_is_an_error(
    make: Callable[[str], Bench],
) -> None:
    bench = make('echo up > "$MTF_RUN_DIR/up"; sleep 60')
    stays, waits = bench.request(requeue=False), bench.request(extra=["--hold"])
    job = bench.submit(stays)[0]
    bench.wait_file(stays, "up")
    bench.preempt(bench.submit(waits)[0], JobId("99999999"))  # nothing to interrupt
    with pytest.raises(MtfError, match=f"{job}: Requested operation is presently disabled"):
        bench.preempt(job)
    assert bench.views(stays)[0].state is JobState.RUNNING


def test_secrets_in_the_submitters_environment_do_not_reach_the_job(
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


def test_signals_before_the_trainer_listens_do_not_end_its_job(
    cluster: Cluster, real: Bench
) -> None:
    request = real.request(variables={"LATE": "1"}, requeue=False)
    job = real.submit(request)[0]
    real.wait_file(request, "starting")
    cluster.run("scancel", "--signal=TERM", job)
    cluster.run("scancel", "--signal=USR1", job)
    real.wait_file(request, "missed")
    (Path(request.tasks[0].run_dir) / "go").touch()
    assert real.wait_file(request, "heard") == "life 0\n"
    cluster.run("scancel", "--signal=USR1", "--full", job)  # to the batch shell as well
    view = real.wait_ended(request)[0]
    assert (view.state, view.exit_code) == (JobState.FAILED, 85)


def test_ranks_on_several_nodes_find_each_other(real: Bench) -> None:
    request = real.request(
        nodes=2, ntasks_per_node=2, cpus_per_task=2, variables={"RANKS": "ok", "MASTER_ADDR": "h"}
    )
    real.submit(request)
    assert real.wait_ended(request)[0].state is JobState.COMPLETED
    ranks = [real.wait_file(request, f"rank{n}").split() for n in range(4)]
    assert [r[1] for r in ranks] == ["0", "0", "1", "1"]
    assert {tuple(r[2:]) for r in ranks} == {("h", ranks[0][3], "2")}
    assert int(ranks[0][3]) >= 20_000


def test_a_rank_that_dies_ends_the_others(real: Bench) -> None:
    request = real.request(ntasks_per_node=2, variables={"RANKS": "one dies"})
    real.submit(request)
    view = real.wait_ended(request)[0]
    assert view.state is JobState.FAILED


def test_preemption_reaches_the_trainer_as_term_and_the_job_comes_back(real: Bench) -> None:
    request = real.request(partition="low", cpus_per_task=4)
    real.submit(request)
    real.wait_file(request, "heard")
    rivals = real.request((0, 1, 2, 3), partition="high", cpus_per_task=4)
    real.submit(rivals)
    view = real.wait(request, lambda f: f[0].state is JobState.COMPLETED or f[0].restarts > 0, 60)[
        0
    ]
    assert view.restarts == 1
    assert real.wait_file(request, "heard").splitlines()[:2] == ["life 0", "SIGTERM"]
    real.cancel(*(v.job_id for v in real.views(rivals).values()))
    assert real.wait(request, lambda f: f[0].state is JobState.COMPLETED, 150)[0].restarts == 1


def test_ahead_of_the_time_limit_the_trainer_is_warned_and_its_job_requeued(real: Bench) -> None:
    request = real.request(time="00:01:00", signal_lead=55)
    real.submit(request)
    view = real.wait(request, lambda f: f[0].state is JobState.COMPLETED, 200)[0]
    assert view.restarts == 1
    assert real.wait_file(request, "heard").splitlines() == ["life 0", "SIGUSR1", "life 1"]


def test_a_cancelled_trainer_gets_term_and_is_not_requeued(real: Bench) -> None:
    request = real.request()
    jobs = real.submit(request)
    real.wait_file(request, "heard")
    real.cancel(*jobs.values())
    view = real.wait_ended(request)[0]
    assert (view.state, view.restarts) == (JobState.CANCELLED, 0)
    assert real.wait_file(request, "heard").splitlines() == ["life 0", "SIGTERM"]
