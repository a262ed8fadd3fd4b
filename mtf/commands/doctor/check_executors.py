"""Does the executor answer, and is it set up so that runs survive preemption."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mtf.commands.doctor.finding import Checkup, Finding, Theme
from mtf.commands.sync import executors_of
from mtf.core.vocabulary.ids import Token, job_name
from mtf.errors import ExecutorUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

_NOBODY = Token("0" * 16)


def answers(checkup: Checkup) -> Iterator[Finding]:
    """Find an executor that cannot be asked about jobs."""
    name = checkup.executor
    try:
        executor = executors_of(checkup.project).open(name)
        executor.jobs({_NOBODY: job_name("doctor", _NOBODY)}, datetime.now(UTC))
    except ExecutorUnavailableError as e:
        cure = "squeue; sacct; scontrol ping" if name == "slurm" else "mtf sync"
        yield Finding("error", f"{name} does not answer: {e}", name, cure)


def slurm_configuration(checkup: Checkup) -> Iterator[Finding]:
    """Find settings of the cluster under which runs are forgotten or not put back."""
    if checkup.executor != "slurm":
        return
    from mtf.executor.slurm.programs import configuration

    try:
        config = configuration()
    except ExecutorUnavailableError as e:
        yield Finding("error", f"SLURM does not answer: {e}", "scontrol show config", "sinfo")
        return
    where = "slurm.conf"
    if config.get("AccountingStorageType", "").endswith("none"):
        age = config.get("MinJobAge", "300 sec")
        yield Finding(
            "warning", f"the cluster keeps no accounts: how a job ended is known for {age} only",
            f"{where}: AccountingStorageType", "mtf sync more often than that (from cron)",
        )  # fmt: skip
    if config.get("JobRequeue") == "0":
        yield Finding(
            "warning", "jobs are not requeued by default; mtf asks for it job by job",
            f"{where}: JobRequeue", "leave slurm.requeue at true",
        )  # fmt: skip
    if "CANCEL" in config.get("PreemptMode", "").upper():
        yield Finding(
            "warning", "preemption cancels jobs here: mtf continues them as new attempts",
            f"{where}: PreemptMode", "keep `preempted` in `retry: {on: [...]}` of mtf.yaml",
        )  # fmt: skip


THEME = Theme("executor", (answers, slurm_configuration))
