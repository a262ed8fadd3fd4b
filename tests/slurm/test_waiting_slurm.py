"""Why jobs wait, and what became of waiting jobs that people touched, on a real cluster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mtf.core.vocabulary.jobs import TaskOf
from mtf.core.vocabulary.states import JobState
from mtf.executor.slurm.slurm_executor import SlurmExecutor
from tests.cli.lab import QUICK, SETTINGS, make_lab, runs, spec
from tests.cli.mtf import mtf, mtf_json
from tests.executor.contract import Bench

if TYPE_CHECKING:
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


GRID = """\
kind: grid
name: later
base: quick.yaml
parameters: {training.seed: [1, 2, 3]}
"""


def test_a_waiting_member_cancelled_by_hand_is_retried_at_once_and_submitted_once(
    cluster: Cluster, tmp_path: Path
) -> None:
    late = QUICK.replace("slurm: {", f'slurm: {{extra: ["{LATER}"], ')
    specs = {"quick.yaml": late, "later.yaml": GRID}
    lab = make_lab(tmp_path, specs, settings=SETTINGS.replace("local", "slurm", 1))
    mtf(lab.path, "sync")
    found = runs(lab)
    assert {(r["state"], r["live"]) for r in found.values()} == {("pending", True)}
    assert all("expected" in r["reason"] for r in found.values())
    name, victim = next(iter(found.items()))
    cluster.run("scancel", victim["job_id"])
    now = runs(lab)
    assert (now[name]["state"], now[name]["sync"]) == ("cancelled", "OutOfSync")
    assert sum(r["state"] == "pending" for r in now.values()) == 2
    mtf(lab.path, "retry", victim["run"])  # without a sync
    again = runs(lab)[name]
    assert (again["state"], again["sync"], len(again["attempts"])) == ("pending", "Synced", 2)
    assert again["job_id"] != victim["job_id"]
    fence = Path(again["run_dir"], ".claims", victim["attempts"][0]["token"])
    assert fence.read_text() == "fenced"  # should its first job ever start, it ends at once
    assert len(cluster.run("squeue", "-rh", "-o", "%i").split()) == 3
    assert mtf_json(lab.path, "plan", "--format", "json")["actions"] == []

    # what somebody lets a job wait for is left alone
    job, other = (again["job_id"], victim["job_id"].partition("_")[0])
    cluster.run("scontrol", "update", f"jobid={job}", f"dependency=after:{other}")
    mtf(lab.path, "sync")
    assert f"after:{other}" in cluster.run("squeue", "-rh", "-j", job, "-o", "%E")
    mtf(lab.path, "cancel", "later")


def test_a_held_run_is_said_everywhere_and_no_longer_when_it_is_released(
    cluster: Cluster, tmp_path: Path
) -> None:
    held = spec("held").replace("slurm: {", f'slurm: {{extra: ["--hold", "{LATER}"], ')
    lab = make_lab(tmp_path, {"held.yaml": held}, settings=SETTINGS.replace("local", "slurm", 1))
    mtf(lab.path, "sync")
    job = runs(lab)["held"]["job_id"]
    told = f"held by its user (JobHeldUser): scontrol release {job}"
    assert runs(lab)["held"]["reason"] == told
    assert told in mtf(lab.path, "plan").stdout
    assert told in mtf(lab.path, "sync").stderr
    assert runs(lab, "--recorded")["held"]["reason"] == told
    cluster.run("scontrol", "release", job)
    assert "expected" in runs(lab)["held"]["reason"]
    assert "held" not in runs(lab)["held"]["reason"]
    mtf(lab.path, "sync")
    assert runs(lab, "--recorded")["held"]["reason"] == ""
    mtf(lab.path, "cancel", "held")
