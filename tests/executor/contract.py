"""The contract of executors: tests that each executor runs with its own factory and real jobs."""

from __future__ import annotations

import itertools
import secrets
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

from mtf import rundir
from mtf.core.vocabulary.ids import JobId, RunId, Token, job_name
from mtf.core.vocabulary.jobs import JobRequest, JobView, Mark, Resources, Task
from mtf.core.vocabulary.states import JobState

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtf.executor.protocol import Executor

ENDED = {JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED, JobState.TIMEOUT,
         JobState.NODE_FAILURE, JobState.OUT_OF_MEMORY, JobState.PREEMPTED,
         JobState.NOT_STARTED, JobState.DEADLINE}  # fmt: skip


def resources(**changes: object) -> Resources:
    values: dict[str, object] = {
        "partition": None, "account": None, "qos": None, "nodes": 1, "ntasks_per_node": 1,
        "gpus_per_node": 0, "cpus_per_task": 1, "mem": None, "time": "00:05:00", "constraint": None,
        "reservation": None, "signal_lead": 60, "signal": "USR1", "requeue": True, "modules": [], "venv": None,
        "conda": None, "container": None, "variables": {}, "extra": [],
    }  # fmt: skip
    return Resources(**{**values, **changes})  # type: ignore[typeddict-item]


class MakeExecutor(Protocol):
    """Returns an executor whose jobs run a shell snippet instead of the trainer."""

    def __call__(self, snippet: str) -> Executor: ...


class Bench:
    """One executor with the folders its jobs need."""

    def __init__(self, executor: Executor, root: Path) -> None:
        self.executor = executor
        self.root = root
        self.marks: dict[Token, Mark] = {}  # of all requests
        self.since = datetime.now(UTC) - timedelta(minutes=1)
        (root / ".code" / "c").mkdir(parents=True, exist_ok=True)

    @property
    def names(self) -> dict[Token, str]:
        return {token: mark.name for token, mark in self.marks.items()}

    def request(
        self,
        indices: tuple[int, ...] = (0,),
        *,
        array: bool = True,
        throttle: int | None = None,
        **needs: object,
    ) -> JobRequest:
        token = Token(secrets.token_hex(8))
        job_dir = self.root / "sub" / ".jobs" / token
        self.marks[token] = Mark(job_name("contract", token), str(job_dir))
        job_dir.mkdir(parents=True)
        tasks = []
        for index in indices:
            folder = self.root / "sub" / f"{token}-{index}"
            tasks.append(Task(RunId(f"r/t/c/{index}"), index, str(folder)))
        return JobRequest(
            token=token, name="contract", tasks=tuple(tasks), resources=resources(**needs),
            code_dir=str(self.root / ".code" / "c"), job_dir=str(job_dir), array=array,
            max_parallel=throttle, python="python3",
        )  # fmt: skip

    def submit(self, request: JobRequest) -> dict[int, JobId]:
        return dict(self.executor.submit(request, self.script(request)).jobs)

    def script(self, request: JobRequest) -> str:
        (script,) = self.executor.scripts([request])
        assert isinstance(script, str)
        return script

    def cancel(self, *jobs: JobId) -> None:
        self.executor.cancel(jobs, self.marks)

    def preempt(self, *jobs: JobId) -> None:
        self.executor.preempt(jobs, self.marks)

    def views(self, request: JobRequest) -> dict[int, JobView]:
        names = {request.token: job_name(request.name, request.token)}
        found = {v.index: v for v in self.executor.jobs(names, self.since)}
        each = {t.index: found.get(t.index) or found.get(None) for t in request.tasks}
        return {index: view for index, view in each.items() if view is not None}

    def wait(
        self, request: JobRequest, until: Callable[[dict[int, JobView]], bool], seconds: float = 60
    ) -> dict[int, JobView]:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = self.views(request)
            if found and until(found):
                return found
            time.sleep(0.05)
        raise AssertionError(f"waited {seconds} s: {self.views(request)}")

    def wait_ended(self, request: JobRequest) -> dict[int, JobView]:
        return self.wait(
            request,
            lambda f: len(f) == len(request.tasks) and all(v.state in ENDED for v in f.values()),
        )

    def wait_for(self, request: JobRequest, state: JobState) -> dict[int, JobView]:
        return self.wait(request, lambda f: any(v.state is state for v in f.values()))

    def wait_file(self, request: JobRequest, name: str, index: int = 0, seconds: float = 60) -> str:
        path = Path(next(t.run_dir for t in request.tasks if t.index == index)) / name
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if path.exists() and path.read_text():
                return path.read_text()
            time.sleep(0.05)
        raise AssertionError(f"{path}: not written within {seconds} s: {self.views(request)}")


LOGS_TERM = """
trap 'echo TERM >> "$MTF_RUN_DIR/heard"' TERM
echo "$MTF_RESTARTS" >> "$MTF_RUN_DIR/lives"
[ "$MTF_RESTARTS" = 0 ] || exit 0
while :; do sleep 0.1; done
"""


class Contract:
    """Subclass it and give a fixture ``make`` that returns a ``Bench`` for a snippet."""

    @pytest.fixture
    def make(self) -> Callable[[str], Bench]:
        raise NotImplementedError

    def test_a_submitted_job_is_visible_at_once_and_until_its_end(
        self, make: Callable[[str], Bench]
    ) -> None:
        bench = make("echo out; echo err >&2")
        request = bench.request()
        jobs = bench.submit(request)
        assert bench.views(request)[0].job_id == jobs[0]
        view = bench.wait_ended(request)[0]
        assert (view.state, view.exit_code, view.token) == (JobState.COMPLETED, 0, request.token)
        assert view.started_at is not None
        assert view.ended_at is not None
        job_dir = Path(request.job_dir)
        assert rundir.job_output(job_dir, jobs[0]).read_text() == "out\n"
        assert rundir.job_output(job_dir, jobs[0], err=True).read_text().endswith("err\n")
        assert (job_dir / rundir.SCRIPT).read_text().startswith("#!")

    def test_a_single_task_is_submitted_as_a_plain_job(self, make: Callable[[str], Bench]) -> None:
        bench = make('[ "$MTF_JOB_ID" ] && echo "$MTF_JOB_ID" > "$MTF_RUN_DIR/id"')
        request = bench.request(array=False)
        jobs = bench.submit(request)
        assert bench.wait_ended(request)[0].state is JobState.COMPLETED
        assert bench.wait_file(request, "id").strip() == jobs[0]

    def test_a_nonzero_exit_code_is_a_failure(self, make: Callable[[str], Bench]) -> None:
        bench = make("exit 7")
        request = bench.request()
        bench.submit(request)
        view = bench.wait_ended(request)[0]
        assert (view.state, view.exit_code) == (JobState.FAILED, 7)

    def test_each_index_of_an_irregular_array_finds_its_run_folder(
        self, make: Callable[[str], Bench]
    ) -> None:
        bench = make('echo "$MTF_JOB_ID" > "$MTF_RUN_DIR/id"')
        request = bench.request((0, 2, 3, 17))
        jobs = bench.submit(request)
        found = bench.wait_ended(request)
        assert set(found) == {0, 2, 3, 17}
        assert len(set(jobs.values())) == 4
        for index, job in jobs.items():
            assert bench.wait_file(request, "id", index).strip() == job == found[index].job_id

    def test_an_array_runs_at_most_its_throttle_at_a_time(
        self, make: Callable[[str], Bench]
    ) -> None:
        bench = make(
            'date +%s.%N > "$MTF_RUN_DIR/start"; sleep 0.5; date +%s.%N > "$MTF_RUN_DIR/end"'
        )
        request = bench.request((0, 1, 2), throttle=1)
        bench.submit(request)
        bench.wait_ended(request)
        spans = sorted(
            (float(bench.wait_file(request, "start", i)), float(bench.wait_file(request, "end", i)))
            for i in range(3)
        )
        assert all(first[1] <= second[0] for first, second in itertools.pairwise(spans))

    def test_cancelling_twice_is_the_same_as_cancelling_once(
        self, make: Callable[[str], Bench]
    ) -> None:
        bench = make('trap "exit 3" TERM; echo up > "$MTF_RUN_DIR/up"; while :; do sleep 0.1; done')
        request = bench.request()
        jobs = bench.submit(request)
        bench.wait_file(request, "up")
        bench.cancel(*jobs.values())
        bench.cancel(*jobs.values())
        assert bench.wait_ended(request)[0].state is JobState.CANCELLED
        bench.cancel(*jobs.values())
        assert bench.wait_ended(request)[0].state is JobState.CANCELLED

    def test_a_preempted_job_gets_term_and_is_requeued_under_its_id(
        self, make: Callable[[str], Bench]
    ) -> None:
        bench = make(LOGS_TERM)
        request = bench.request()
        jobs = bench.submit(request)
        bench.wait_file(request, "lives")
        bench.preempt(*jobs.values())
        view = bench.wait(request, lambda f: f[0].state is JobState.COMPLETED, 150)[0]
        assert view.job_id == jobs[0]
        assert view.restarts >= 1
        assert "TERM" in bench.wait_file(request, "heard")
        assert bench.wait_file(request, "lives").split()[0] == "0"

    def test_a_request_that_was_never_submitted_has_no_jobs(
        self, make: Callable[[str], Bench]
    ) -> None:
        bench = make("exit 0")
        assert bench.views(bench.request()) == {}

    def test_cancelling_an_unknown_job_has_no_effect(self, make: Callable[[str], Bench]) -> None:
        bench = make("exit 0")
        bench.submit(bench.request())
        bench.cancel(JobId("99999999"))

    def test_a_reused_job_id_of_another_request_is_not_cancelled(
        self, make: Callable[[str], Bench]
    ) -> None:
        bench = make('echo up > "$MTF_RUN_DIR/up"; sleep 60')
        ours, theirs = bench.request(), bench.request()
        job = bench.submit(theirs)[0]
        bench.wait_file(theirs, "up")
        name = job_name(theirs.name, theirs.token)
        for marks in (
            {ours.token: bench.marks[ours.token]},
            {theirs.token: Mark(name, ours.job_dir)},  # a record that was copied or made up
        ):
            assert list(bench.executor.cancel([job], marks)) == [job]
            assert list(bench.executor.preempt([job], marks)) == [job]
        assert bench.views(ours) == {}
        assert bench.views(theirs)[0].state is JobState.RUNNING
        bench.cancel(job)
        assert bench.wait_ended(theirs)[0].state is JobState.CANCELLED
