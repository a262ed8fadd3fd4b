"""Checks of the executor: it answers, and its settings let runs survive preemption."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mtf.commands.doctor.finding import Checkup, Finding, Theme
from mtf.commands.sync import executors_of
from mtf.core.vocabulary.ids import Token, job_name
from mtf.errors import ExecutorUnavailableError
from mtf.executor.slurm.programs import configuration, unused_variables
from mtf.project.settings_file import SETTINGS
from mtf.reconcile.executors import placement_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_NO_JOB = Token("0" * 16)


def answers(checkup: Checkup) -> Iterator[Finding]:
    """Find an executor that cannot be asked for its jobs."""
    name = checkup.executor
    try:
        executor = executors_of(checkup.project).open(name)
        executor.jobs({_NO_JOB: job_name("doctor", _NO_JOB)}, datetime.now(UTC))
    except ExecutorUnavailableError as e:
        cure = "squeue; sacct; scontrol ping" if name == "slurm" else "mtf sync"
        yield Finding("error", f"{name} does not answer, so nothing is submitted: {e}", name, cure)


def automatic(checkup: Checkup) -> Iterator[Finding]:
    """Find a machine without SLURM that `executor: auto` makes the place of runs."""
    settings = checkup.project.settings
    if settings.executor != "auto" or checkup.executor != "local":
        return
    records = checkup.ledger.runs.values()
    if why := placement_of(settings, None, records).why_not:
        yield Finding(
            "warning",
            f"executor: auto means local here, since there is no SLURM. New runs wait: {why}",
            f"{SETTINGS}: executor",
            "mtf sync on a machine with SLURM; mtf sync --executor local runs them here",
        )
        return
    yield Finding(
        "warning",
        "executor: auto means local here, since there is no SLURM: runs that ask for nothing that"
        " only SLURM has (such as a partition) are trained on this machine",
        f"{SETTINGS}: executor",
        "write `executor: local` if that is meant, or `executor: slurm` to train on a cluster only",
    )


def slurm_configuration(checkup: Checkup) -> Iterator[Finding]:
    """Find settings of the cluster that forget how jobs ended, or do not requeue them."""
    if checkup.executor != "slurm":
        return
    try:
        config = configuration()
    except ExecutorUnavailableError as e:
        yield Finding("error", f"SLURM does not answer: {e}", "scontrol show config", "sinfo")
        return
    where = "slurm.conf"
    if config.get("AccountingStorageType", "").endswith("none"):
        age = config.get("MinJobAge", "300 sec")
        yield Finding(
            "warning",
            f"the cluster has no accounting: SLURM forgets how a job ended after {age}",
            f"{where}: AccountingStorageType",
            "sync more often than that: mtf controller unit, or mtf controller crontab",
        )
    if config.get("JobRequeue") == "0":
        yield Finding(
            "warning",
            "the cluster does not requeue jobs by default; mtf asks for it in each job",
            f"{where}: JobRequeue",
            "keep `slurm: {requeue: true}`, the default",
        )
    if "CANCEL" in config.get("PreemptMode", "").upper():
        yield Finding(
            "warning",
            "the cluster cancels preempted jobs; mtf continues their runs as new attempts",
            f"{where}: PreemptMode",
            "keep `preempted` in `retry: {on: [...]}` in mtf.yaml",
        )


def unused_environment(checkup: Checkup) -> Iterator[Finding]:
    """Find variables of SLURM's programs that are set here and not passed on to them."""
    if checkup.executor != "slurm":
        return
    given = checkup.project.settings.slurm_defaults()
    for name, key in unused_variables().items():
        if key and given.get(key) is None:
            yield Finding(
                "warning",
                f"{name} is set, and mtf passes no SBATCH_* on: jobs are submitted without it",
                "environment",
                f"set `slurm: {{{key}: ...}}` in mtf.yaml",
            )
        elif not key:
            yield Finding(
                "warning",
                f"{name} is set, and mtf runs SLURM's programs without it",
                "environment",
                "nothing, if it only formats tables; else set what it means in slurm.conf",
            )


THEME = Theme("executor", (answers, automatic, slurm_configuration, unused_environment))
