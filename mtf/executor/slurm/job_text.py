"""What SLURM's programs print, as values: pure parsing, and the tables of its words."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mtf.core.vocabulary.ids import JobId, token_of
from mtf.core.vocabulary.jobs import JobView
from mtf.core.vocabulary.states import JobState
from mtf.errors import (
    ExecutorUnavailableError,
    MtfError,
    QueueFullError,
    SubmissionRefusedError,
    SubmissionUncertainError,
)
from mtf.executor.array_indices import parse_indices

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SEPARATOR = "\x1f"  # in no name, reason or node list
SQUEUE_FIELDS = (
    "JobArrayID", "Name", "State", "exit_code", "RestartCnt", "NodeList", "StartTime", "EndTime",
    "Reason",
)  # fmt: skip
SACCT_FIELDS = ("JobID", "JobName", "State", "ExitCode", "NodeList", "Start", "End", "Reason")
# named one by one, sacct shows those too that were never eligible, like cancelled held ones
SACCT_STATES = "BF,CA,CD,DL,F,NF,OOM,PD,PR,R,RQ,RS,RV,S,TO"
TIME_FORMAT = {"SLURM_TIME_FORMAT": "%s"}  # seconds since the epoch, whatever the time zone

# Source: squeue(1) and sacct(1), JOB STATE CODES, of 22.05 and what later versions have added.
# COMPLETING jobs are still dying: not over yet.
STATES: Mapping[str, JobState] = {
    "PENDING": JobState.PENDING,
    "CONFIGURING": JobState.PENDING,
    "POWER_UP_NODE": JobState.PENDING,
    "EXPEDITING": JobState.PENDING,
    "LAUNCH_FAILED": JobState.PENDING,
    "REQUEUED": JobState.PENDING,
    "REQUEUE_FED": JobState.PENDING,
    "REQUEUE_HOLD": JobState.HELD,
    "SPECIAL_EXIT": JobState.HELD,
    "RESV_DEL_HOLD": JobState.HELD,
    "RUNNING": JobState.RUNNING,
    "COMPLETING": JobState.RUNNING,
    "SIGNALING": JobState.RUNNING,
    "STAGE_OUT": JobState.RUNNING,
    "RESIZING": JobState.RUNNING,
    "UPDATE_DB": JobState.RUNNING,
    "SUSPENDED": JobState.SUSPENDED,
    "STOPPED": JobState.SUSPENDED,
    "COMPLETED": JobState.COMPLETED,
    "FAILED": JobState.FAILED,
    "CANCELLED": JobState.CANCELLED,
    "REVOKED": JobState.CANCELLED,
    "PREEMPTED": JobState.PREEMPTED,
    "TIMEOUT": JobState.TIMEOUT,
    "DEADLINE": JobState.TIMEOUT,
    "NODE_FAIL": JobState.NODE_FAILURE,
    "BOOT_FAIL": JobState.NODE_FAILURE,
    "RECONFIG_FAIL": JobState.NODE_FAILURE,
    "OUT_OF_MEMORY": JobState.OUT_OF_MEMORY,
}

# Reasons that need a word more. Source: squeue(1), JOB REASON CODES.
_REASONS: Mapping[str, str] = {
    "JobLaunchFailure": "it could not start: does the node see the run root, may it write there",
}

# What sbatch prints when it gives no job id (SLURM 22.05's texts; those tried are in the tests).
_UNCERTAIN = (  # the controller may have taken the job before its answer was lost
    "Socket timed out", "Zero Bytes were transmitted", "Received zero length message",
    "Received message length < 0", "Message receive failure", "Unexpected message received",
    "Communication connection failure", "Communication shutdown failure",
    "controller (send failure)", "controller (receive failure)", "controller (shutdown failure)",
)  # fmt: skip
_UNAVAILABLE = (  # nothing was taken; later it may be
    "Unable to contact slurm controller", "standby mode", "Connection refused",
    "temporarily unable to accept job", "Resource temporarily unavailable",  # MaxJobCount
    "Required partition not available", "Requested partition configuration not available now",
    "Unable to create job record", "configuration source", "authentication",  # munge is down
)  # fmt: skip
_FULL = ("SubmitJob",)  # limits of jobs in the queue, like AssocMaxSubmitJobLimit


def submission_error(text: str) -> MtfError | None:
    """Return the error that sbatch's text stands for; None for a refusal that is not known.

    An unknown text is final, but only after the token has been looked up.
    """
    said = " ".join(line.removeprefix("sbatch: error: ") for line in text.strip().splitlines())
    if any(words in text for words in _UNCERTAIN):
        return SubmissionUncertainError(said)
    if any(words in text for words in _FULL):
        return QueueFullError(said)
    if any(words in text for words in _UNAVAILABLE):
        return ExecutorUnavailableError(said)
    return None


def refusal(text: str) -> SubmissionRefusedError:
    """Return the final refusal that sbatch's text is."""
    lines = [line.removeprefix("sbatch: error: ") for line in text.strip().splitlines()]
    return SubmissionRefusedError("; ".join(dict.fromkeys(lines)) or "sbatch gave no reason")


NO_ACCOUNTING = "Slurm accounting storage is disabled"  # sacct's own words


def has_no_accounting(text: str) -> bool:
    """Return whether sacct says that this cluster keeps no accounts (not: that it is down)."""
    return NO_ACCOUNTING in text


# What scancel and scontrol print of jobs for which there is nothing to do.
_PASSED_OVER = (
    "Invalid job id specified", "already completing or completed", "Job is pending execution",
    "Job has already finished", "No error",
)  # fmt: skip


def command_error(text: str) -> MtfError | None:
    """Return the error that scancel's or scontrol's text stands for, None where all is well."""
    unheard = submission_error(text)
    if unheard is not None:
        return ExecutorUnavailableError(str(unheard))
    lines = [line.removeprefix("scancel: error: ") for line in text.strip().splitlines()]
    bad = [line for line in lines if not any(words in line for words in _PASSED_OVER)]
    return MtfError("; ".join(dict.fromkeys(bad))) if bad else None


def parse_job_id(printed: str) -> str | None:
    """Return the job id that ``sbatch --parsable`` printed, as ``<id>[;<cluster>]``."""
    found = re.search(r"^(\d+)(;\S+)?$", printed.strip(), re.MULTILINE)
    return found[1] if found else None


def parse_squeue(printed: str) -> list[JobView]:
    """Return our jobs from ``squeue`` with ``SQUEUE_FIELDS``, one view a task.

    Raises:
        ValueError: tasks are listed in a way that is not known, or in part only.
    """
    rows = _rows(printed, len(SQUEUE_FIELDS))
    return [view for row in rows for view in _each_task(row[0], _from_squeue(row))]


def _from_squeue(fields: list[str]) -> JobView:
    job, name, state, status, restarts, nodes, start, end, reason = fields
    code = int(status) if status.isdigit() else 0
    known = STATES.get(state, JobState.UNKNOWN)
    over = known not in (JobState.PENDING, JobState.HELD, JobState.RUNNING, JobState.SUSPENDED)
    held = known is JobState.PENDING and re.search("held|hold", reason.lower())  # JobHeldUser ...
    return JobView(
        job_id=JobId(job),
        token=token_of(name),
        index=None,
        state=JobState.HELD if held else known,
        raw_state=state,
        reason=_REASONS.get(reason, reason),
        exit_code=code >> 8 if over else None,  # a wait(2) status
        signal=(code & 0x7F or None) if over else None,
        node=nodes or None,
        restarts=int(restarts) if restarts.isdigit() else 0,
        # a start in the future is the scheduler's guess
        started_at=_time(start) if known not in (JobState.PENDING, JobState.HELD) else None,
        ended_at=_time(end) if over else None,
    )


def parse_sacct(printed: str) -> list[JobView]:
    """Return our jobs from ``sacct -X --parsable2`` with ``SACCT_FIELDS``, one view a task."""
    views: list[JobView] = []
    for row in _rows(printed, len(SACCT_FIELDS)):
        with suppress(ValueError):  # tasks that the accounts list in part are read when they start
            views += _each_task(row[0], _from_sacct(row))
    return views


def _from_sacct(fields: list[str]) -> JobView:
    job, name, state, status, nodes, start, end, reason = fields
    word, _, by = state.partition(" ")  # "CANCELLED by 1000"
    code, _, number = status.partition(":")
    return JobView(
        job_id=JobId(job),
        token=token_of(name),
        index=None,
        state=STATES.get(word, JobState.UNKNOWN),
        raw_state=state,
        reason=_REASONS.get(reason, reason),
        exit_code=int(code) if code.isdigit() else None,
        signal=int(number) if number.isdigit() and number != "0" else None,
        node=None if nodes in ("", "None assigned") else nodes,
        started_at=_time(start),
        ended_at=_time(end),
        cancelled_by=by.removeprefix("by ") or None,
    )


_NO_TASK = "4294967294"  # SLURM's NO_VAL


def parse_scontrol(printed: str) -> list[JobView]:
    """Return our jobs from ``scontrol -o show jobs``, for clusters without squeue's fields.

    Raises:
        ValueError: as ``parse_squeue``.
    """
    rows = []
    for line in printed.splitlines():
        values = dict(re.findall(r"(\w+)=(\S*)", line))
        tasks = values.get("ArrayTaskId", _NO_TASK)
        job = values.get("ArrayJobId") or values.get("JobId", "")
        code, _, number = values.get("ExitCode", "0:0").partition(":")
        status = str(int(code) * 256 + int(number or 0))
        rows.append([
            job if tasks == _NO_TASK else f"{job}_{tasks}",
            values.get("JobName", ""), values.get("JobState", ""), status,
            values.get("Restarts", "0"), values.get("NodeList", "").replace("(null)", ""),
            values.get("StartTime", ""), values.get("EndTime", ""), values.get("Reason", ""),
        ])  # fmt: skip
    ours = [row for row in rows if token_of(row[1])]
    return [view for row in ours for view in _each_task(row[0], _from_squeue(row))]


def _rows(printed: str, width: int) -> Iterator[list[str]]:
    """Yield the fields of each line that is about a job of ours."""
    for line in printed.splitlines():
        fields = line.split(SEPARATOR)[:width]
        if len(fields) == width and token_of(fields[1]):
            yield fields


def _each_task(job: str, view: JobView) -> list[JobView]:
    """Return the view of each task that a job id like ``8_[0-9:3,12%4]`` stands for.

    A bare number is a plain job, or what is left of an array when its last tasks were cancelled
    one by one before they started: SLURM then keeps no word about each.
    """
    number, _, tasks = job.partition("_")
    if not tasks:
        return [view]
    indices = parse_indices(tasks.strip("[]").partition("%")[0])
    return [replace(view, job_id=JobId(f"{number}_{i}"), index=i) for i in indices]


def _time(text: str) -> datetime | None:
    return datetime.fromtimestamp(int(text), UTC) if text.isdigit() else None


def max_array_size(printed: str) -> int | None:
    """Return how many tasks an array may have, by ``scontrol show config``.

    Source: slurm.conf(5): MaxArraySize, and max_array_tasks of SchedulerParameters.
    """
    size = parse_config(printed, "MaxArraySize")
    tasks = re.search(r"max_array_tasks=(\d+)", parse_config(printed, "SchedulerParameters") or "")
    if size is None:
        return None
    return min(int(size), int(tasks[1])) if tasks else int(size)


def parse_config(printed: str, key: str) -> str | None:
    """Return a value from ``scontrol show config``."""
    found = re.search(rf"^{re.escape(key)}\s*= (.*)$", printed, re.MULTILINE)
    return found[1].strip() if found else None
