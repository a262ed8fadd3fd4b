"""Whose job it is, as scontrol shows it."""

from __future__ import annotations

from mtf.executor.slurm.job_owner import Owned, parse_scontrol


def test_an_array_without_tasks_hides_no_other_job() -> None:
    printed = (  # SLURM 22.05: the second is an array whose waiting tasks were all cancelled
        "JobId=9 JobName=a+1 UserId=ann(1) Command=/r/job.sbatch WorkDir=/r Comment=mtf:1\n"
        "JobId=3 ArrayJobId=3 ArrayTaskId=4294967294 JobName=b+2 UserId=ann(1) JobState=CANCELLED\n"
        "JobId=5 ArrayJobId=4 ArrayTaskId=0-1 JobName=c+3 UserId=bob(2) JobState=PENDING\n"
    )
    found = parse_scontrol(printed)
    assert found["9"] == Owned("ann", "a+1", "mtf:1", "/r/job.sbatch")
    assert found["3"].name == "b+2"
    assert {job for job, owned in found.items() if owned.user == "bob"} == {"4_0", "4_1"}
