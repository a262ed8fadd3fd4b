"""Jobs that a record names and that are somebody else's: mtf never ends them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mtf.core.vocabulary.ids import JobId, Token, job_name
from mtf.core.vocabulary.jobs import Mark
from mtf.executor.slurm.slurm_executor import SlurmExecutor

if TYPE_CHECKING:
    from pathlib import Path

    from tests.slurm_cluster import Cluster

pytestmark = pytest.mark.slurm
TOKEN = Token("ab" * 8)
NAME = job_name("quick", TOKEN)
COMMENT = f"--comment=mtf:{TOKEN}"


def submit(cluster: Cluster, script: Path, *options: str) -> JobId:
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text("#!/bin/sh\nsleep 100\n")
    script.chmod(0o755)
    words = ("--parsable", "--hold", "--output=/dev/null", *options, str(script))
    return JobId(cluster.run("sbatch", *words).strip())


def states(cluster: Cluster, *jobs: JobId) -> set[str]:
    printed = cluster.run("squeue", "--states=all", "--noheader", "-o", "%i %T")
    found = dict(line.split() for line in printed.splitlines())
    return {found[job] for job in jobs}


def test_a_job_is_cancelled_only_with_all_its_marks(cluster: Cluster, tmp_path: Path) -> None:
    cluster.run("sacctmgr", "--immediate", "add", "user", "nobody", "account=root")
    ours = tmp_path / "runs" / ".jobs" / TOKEN
    marks = {TOKEN: Mark(NAME, str(ours))}
    right = f"--job-name={NAME}"
    strange = {
        submit(cluster, tmp_path / "x.sh"): "its name is x.sh",
        submit(cluster, tmp_path / "x.sh", "--job-name=other+" + "cd" * 8, COMMENT): "its name is",
        submit(cluster, tmp_path / "x.sh", f"--job-name=other+{TOKEN}", COMMENT): "its name is",
        submit(cluster, tmp_path / "x.sh", right, COMMENT): "its script is",
        submit(cluster, ours / "job.sbatch", right, "--comment=mine"): "its comment is mine",
        submit(cluster, ours / "job.sbatch", right, COMMENT, "--uid=65534"): "it is nobody's",
    }
    job = submit(cluster, ours / "job.sbatch", right, COMMENT)
    executor = SlurmExecutor()
    for end in (executor.preempt, executor.cancel):
        left = end([*strange, job, JobId("99999999")], marks)
        assert left.keys() == strange.keys()
        assert all(strange[other] in why for other, why in left.items()), left
    assert states(cluster, *strange) == {"PENDING"}
    assert states(cluster, job) == {"CANCELLED"}
    assert executor.cancel([JobId("99999999")], marks) == {}
    cluster.run("scancel", *strange)
