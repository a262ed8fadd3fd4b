"""Asks SLURM for the facts of the cluster, and whether it would accept a job."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING

from mtf.core.vocabulary.ids import RunId, Token
from mtf.core.vocabulary.jobs import JobRequest, Task
from mtf.executor.script import slurm_options
from mtf.executor.slurm import cluster_text
from mtf.executor.slurm.job_text import refusal, submission_error
from mtf.executor.slurm.programs import ask, configuration, query, unused_options

if TYPE_CHECKING:
    from mtf.core.vocabulary.cluster import ClusterFacts
    from mtf.core.vocabulary.jobs import Resources


def read_facts() -> ClusterFacts:
    """Return the facts of the cluster and the limits of this user.

    Raises:
        ExecutorUnavailableError: SLURM does not answer.
    """
    config = configuration()
    associations = qos = ""
    if "associations" in config.get("AccountingStorageEnforce", ""):
        fields = f"format={','.join(cluster_text.ASSOCIATION_FIELDS)}"
        who = f"user={getpass.getuser()}"
        associations = query("sacctmgr", "-nP", "show", "assoc", who, fields)
        fields = f"format={','.join(cluster_text.QOS_FIELDS)}"
        qos = query("sacctmgr", "-nP", "show", "qos", fields)
    return cluster_text.parse_facts(
        config,
        query("scontrol", "--oneliner", "show", "partition"),
        query("sinfo", "--all", "--noheader", "--exact", f"--format={cluster_text.SINFO_FORMAT}"),
        associations,
        qos,
    )


def refusal_of(resources: Resources) -> str | None:
    """Return SLURM's reason to refuse a job with these resources, None if it would accept it.

    Nothing is submitted. A job that SLURM would accept only later counts as accepted.
    """
    folder = "/"
    request = JobRequest(
        token=Token("0" * 16),
        name="mtf-test",
        tasks=(Task(RunId("test"), 0, folder),),
        resources=resources,
        code_dir="/code/test",
        job_dir=folder,
        array=False,
        max_parallel=None,
        python="python3",
    )
    answer = ask("sbatch", "--test-only", "--wrap=true", *slurm_options(request))
    if answer.code == 0 or submission_error(answer.stderr) is not None:
        return None
    why = str(refusal(answer.stderr)).replace("allocation failure: ", "")
    return f"{why}. {unused}" if (unused := unused_options()) else why
