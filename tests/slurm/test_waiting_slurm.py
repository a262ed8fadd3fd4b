"""Why jobs wait, and what became of waiting jobs that people touched, on a real cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mtf.core.vocabulary.jobs import TaskOf
from mtf.core.vocabulary.states import JobState
from mtf.executor.slurm.slurm_executor import SlurmExecutor
from tests.executor.contract import Bench

if TYPE_CHECKING:
    from pathlib import Path

    from mtf.core.vocabulary.ids import JobId
    from mtf.core.vocabulary.jobs import JobRequest, JobView
    from tests.slurm_cluster import Cluster

pytestmark = pytest.mark.slurm
LATER = "--begin=now+1hour"


@pytest.fixture
def bench(cluster: Cluster, tmp_path: Path) -> Bench:
    return Bench(SlurmExecutor(), tmp_path / "runs")


def asked(bench: Bench, request: JobRequest, jobs: dict[int, JobId]) -> dict[int | None, JobView]:
    """Return the views of the tasks of a request, as a sync asks for them."""
    tasks = [TaskOf(request.token, index, job) for index, job in jobs.items()]
    return {v.index: v for v in bench.executor.jobs(bench.names, bench.since, tasks)}


def test_a_waiting_task_that_somebody_cancelled_is_absent_and_its_siblings_wait(
    cluster: Cluster, bench: Bench
) -> None:
    request = bench.request((0, 1, 2, 3), extra=[LATER])
    jobs = bench.submit(request)
    cluster.run("scancel", jobs[2])
    states = {index: view.state for index, view in asked(bench, request, jobs).items()}
    waiting = dict.fromkeys((0, 1, 3), JobState.PENDING)
    assert states == {**waiting, 2: JobState.ABSENT}


def test_a_task_that_got_another_name_is_not_taken_for_cancelled(
    cluster: Cluster, bench: Bench
) -> None:
    request = bench.request((0, 1), extra=[LATER])
    jobs = bench.submit(request)
    cluster.run("scontrol", "update", f"jobid={jobs[1]}", "name=mine")
    view = asked(bench, request, jobs)[1]
    assert view.state is JobState.UNKNOWN
    assert "has got the name 'mine'" in view.reason
    single = bench.request(array=False, extra=[LATER])
    job = bench.submit(single)
    cluster.run("scontrol", "update", f"jobid={job[0]}", "name=mine")
    assert asked(bench, single, job)[0].state is JobState.UNKNOWN


def test_tasks_that_squeue_lists_on_one_line_have_their_own_reasons(
    cluster: Cluster, bench: Bench
) -> None:
    request = bench.request((0, 1, 2, 5), extra=[LATER])
    jobs = bench.submit(request)
    cluster.run("scontrol", "uhold", jobs[1])
    views = asked(bench, request, jobs)
    assert views[1].state is JobState.HELD
    assert views[1].cure == f"scontrol release {jobs[1]}"
    assert {views[i].state for i in (0, 2, 5)} == {JobState.PENDING}
    assert all("Held" not in views[i].reason for i in (0, 2, 5))
    assert views[0].expected_at is not None
    cluster.run("scontrol", "release", jobs[1])
    assert asked(bench, request, jobs)[1].state is JobState.PENDING


def test_a_dependency_that_can_never_be_satisfied_says_what_to_do(
    cluster: Cluster, bench: Bench
) -> None:
    first = bench.request(array=False, extra=["--hold"])
    job = bench.submit(first)[0]
    request = bench.request(array=False, extra=[f"--dependency=afterok:{job}"])
    bench.submit(request)
    bench.cancel(job)
    view = bench.wait(request, lambda f: "DependencyNeverSatisfied" in f[0].reason)[0]
    assert view.state is JobState.PENDING
    assert "mtf cancel" in view.cure
