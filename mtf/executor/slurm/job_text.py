"""Parses jobs, job ids and errors from the output of SLURM's programs. Pure."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mtf.core.vocabulary.ids import JobId, Token, token_of
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
from mtf.executor.slurm.sbatch_answer import messages
from mtf.executor.slurm.waiting_reasons import explain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_NUMBER = re.compile(r"[0-9]{1,10}")
_TOKEN = re.compile(r"\+([0-9a-f]{16})(?![0-9A-Za-z])")
_TRUNCATED = re.compile(r"[0-9]+_\[[^\]\x1f]*\.\.\.")
SEPARATOR = "\x1f"  # never part of a name, reason or node list
SQUEUE_FIELDS = (
    "JobArrayID",
    "Name",
    "State",
    "exit_code",
    "RestartCnt",
    "NodeList",
    "StartTime",
    "EndTime",
    "Reason",
)
SACCT_FIELDS = ("JobID", "JobName", "State", "ExitCode", "NodeList", "Start", "End", "Reason")
# with all states listed, sacct also shows jobs that were never eligible, like cancelled held jobs
SACCT_STATES = "BF,CA,CD,DL,F,NF,OOM,PD,PR,R,RQ,RS,RV,S,TO"
TIME_FORMAT = {"SLURM_TIME_FORMAT": "%s"}  # seconds since the epoch, whatever the time zone

# Source: squeue(1) and sacct(1), JOB STATE CODES, of 22.05 and later versions.
# COMPLETING jobs still end their processes: they are not over yet.
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
    "DEADLINE": JobState.DEADLINE,
    "NODE_FAIL": JobState.NODE_FAILURE,
    "BOOT_FAIL": JobState.NOT_STARTED,
    "RECONFIG_FAIL": JobState.NOT_STARTED,
    "OUT_OF_MEMORY": JobState.OUT_OF_MEMORY,
}

_WAITING = (JobState.PENDING, JobState.HELD)
_NEVER_STARTED = frozenset({"JobLaunchFailure", "BootFailure"})  # reasons of a job that is over
_BY_SLURM = "DependencyNeverSatisfied"  # the reason of a job that SLURM has cancelled itself

# sbatch's messages without a job id, as of SLURM 22.05. Those that were provoked are in the tests.
_UNCERTAIN = (  # the controller may have accepted the job, and its answer was lost
    "Socket timed out",
    "Zero Bytes were transmitted",
    "Received zero length message",
    "Received message length < 0",
    "Message receive failure",
    "Unexpected message received",
    "Communication connection failure",
    "Communication shutdown failure",
    "controller (send failure)",
    "controller (receive failure)",
    "controller (shutdown failure)",
)
_UNAVAILABLE = (  # nothing was accepted; it may be later
    "Unable to contact slurm controller",
    "standby mode",
    "Connection refused",
    "temporarily unable to accept job",
    "Resource temporarily unavailable",  # MaxJobCount
    "Required partition not available",
    "Requested partition configuration not available now",
    "Unable to create job record",
    "configuration source",
    "authentication",  # munge is down
)
_FULL = ("SubmitJob",)  # limits of jobs in the queue, like AssocMaxSubmitJobLimit


def submission_error(text: str) -> MtfError | None:
    """Return the error for sbatch's message, None for an unknown message.

    The caller treats an unknown message as a final refusal, unless a job with the token exists.
    """
    message = " ".join(messages(text))
    if any(words in message for words in _UNCERTAIN):
        return SubmissionUncertainError(message)
    if any(words in message for words in _FULL):
        return QueueFullError(message)
    if any(words in message for words in _UNAVAILABLE):
        return ExecutorUnavailableError(message)
    return None


# `sbatch --test-only` says so of nodes that are busy or down as well; a submission waits for them.
_NOT_NOW = "Requested node configuration is not available"


def lasting_refusal(text: str) -> str | None:
    """Return the words of `sbatch --test-only` on what `sbatch` would refuse, None if not."""
    said = "; ".join(dict.fromkeys(m.removeprefix("allocation failure: ") for m in messages(text)))
    if not said or _NOT_NOW in said or submission_error(text) is not None:
        return None
    return said


def refusal(text: str) -> SubmissionRefusedError:
    """Return the final refusal for sbatch's message."""
    return SubmissionRefusedError(
        "; ".join(dict.fromkeys(messages(text))) or "sbatch gave no reason"
    )


NO_ACCOUNTING = "Slurm accounting storage is disabled"  # sacct's message


def has_no_accounting(text: str) -> bool:
    """Return True if sacct says that this cluster has no accounting (not that it is down)."""
    return NO_ACCOUNTING in text


# Messages of scancel and scontrol about jobs for which there is nothing to do.
_NOTHING_TO_DO = (
    "Invalid job id specified",
    "already completing or completed",
    "Job is pending execution",
    "Job has already finished",
    "No error",
)


def is_unknown_job(text: str) -> bool:
    """Return True if squeue says that it knows none of the jobs it was asked about."""
    return _NOTHING_TO_DO[0] in text


def command_error(text: str) -> MtfError | None:
    """Return the error for scancel's or scontrol's messages, None if there is none."""
    no_answer = submission_error(text)
    if no_answer is not None:
        return ExecutorUnavailableError(str(no_answer))
    lines = [line.removeprefix("scancel: error: ") for line in text.strip().splitlines()]
    errors = [line for line in lines if not any(words in line for words in _NOTHING_TO_DO)]
    return MtfError("; ".join(dict.fromkeys(errors))) if errors else None


def parse_squeue(printed: str) -> list[JobView]:
    """Return mtf's jobs from the output of ``squeue`` with ``SQUEUE_FIELDS``, one per task.

    A line that cannot be read, such as a truncated list of tasks, gives a view without a job id
    whose state is unknown: it says something of all tasks of its token without a line of their own.
    """
    return list(_views(printed, len(SQUEUE_FIELDS), _from_squeue))


def merged_arrays(printed: str) -> list[str]:
    """Return the numbers of the arrays of which squeue prints several reasons on one line."""
    numbers: dict[str, None] = {}
    for line in printed.split("\n"):
        fields = line.split(SEPARATOR)[: len(SQUEUE_FIELDS)]
        if len(fields) == len(SQUEUE_FIELDS) and token_of(fields[1]):
            number, _, tasks = fields[0].partition("_")
            if tasks.startswith("[") and "," in fields[-1] and number_in(number) is not None:
                numbers[number] = None
    return list(numbers)


def _views(printed: str, width: int, parse: Callable[[list[str]], JobView]) -> Iterator[JobView]:
    """Yield the views of each line about a job of mtf."""
    for line in printed.split("\n"):
        fields = line.split(SEPARATOR)[:width]
        if len(fields) < width or not token_of(fields[1]):
            if len(fields) < width:
                yield from _unreadable(line)
            continue
        try:
            yield from _each_task(fields[0], parse(fields))
        except ValueError as e:
            yield from _unreadable(line, str(e))


def _unreadable(line: str, why: str = "fields are missing") -> Iterator[JobView]:
    """Yield a view of the unknown state of each token in a line."""
    for token in dict.fromkeys(_TOKEN.findall(line)):
        shown = " ".join(line.replace(SEPARATOR, " ").split())[:80]
        reason = f"SLURM's line about it cannot be read ({why}): {shown!r}"
        yield JobView(JobId(""), Token(token), None, JobState.UNKNOWN, "", reason)


def _from_squeue(fields: list[str]) -> JobView:
    job, name, state, status, restarts, nodes, start, end, reason = fields
    code = number_in(status) or 0
    parsed = STATES.get(state, JobState.UNKNOWN)
    is_over = parsed not in (*_WAITING, JobState.RUNNING, JobState.SUSPENDED)
    view = JobView(
        job_id=JobId(job),
        token=token_of(name),
        index=None,
        state=parsed,
        raw_state=state,
        reason=reason,
        exit_code=code >> 8 if is_over else None,  # a wait(2) status
        signal=(code & 0x7F or None) if is_over else None,
        node=nodes or None,
        restarts=number_in(restarts) or 0,
        started_at=_time(start) if parsed not in _WAITING else None,
        expected_at=_time(start) if parsed in _WAITING else None,
        ended_at=_time(end) if is_over else None,
    )
    return view if parsed in _WAITING else _ended(view)


def _explained(view: JobView) -> JobView:
    """Return a view with its reason for waiting in words, HELD if it is held.

    ``{job}`` stands for the job id in its cure: the tasks on a line have the same reason.
    """
    if view.state not in _WAITING:
        return view
    why = explain(view.reason, "{job}")
    if view.state is JobState.HELD and not why.words.startswith("held"):
        why = explain(f"held: {view.raw_state}", "{job}")
    state = JobState.HELD if why.words.startswith("held") else view.state
    return replace(view, state=state, reason=why.words, cure=why.cure)


def _ended(view: JobView) -> JobView:
    """Return the view of a job that does not wait, with what its reason says about its end."""
    if view.reason in _NEVER_STARTED and view.state in (JobState.FAILED, JobState.NODE_FAILURE):
        why = explain(view.reason, view.job_id)
        return replace(view, state=JobState.NOT_STARTED, reason=f"{why.words}: {why.cure}")
    if view.state is JobState.NODE_FAILURE and view.started_at is None:
        return replace(view, state=JobState.NOT_STARTED)
    if view.state is JobState.CANCELLED and view.reason == _BY_SLURM:
        return replace(view, cancelled_by=f"SLURM ({_BY_SLURM})")
    return view


def parse_sacct(printed: str) -> list[JobView]:
    """Return mtf's jobs from the output of ``sacct -X --parsable2`` with ``SACCT_FIELDS``.

    Lines that cannot be read are as for ``parse_squeue``. A truncated list of tasks is left out:
    each of them is read once it starts. Lines of single tasks come first: the line of those that
    waited together may be older.
    """
    lines = [line for line in printed.split("\n") if not _TRUNCATED.match(line)]
    lines.sort(key=lambda line: "[" in line.partition(SEPARATOR)[0])
    whole = "\n".join(lines)
    return list(_views(whole, len(SACCT_FIELDS), _from_sacct))


def _from_sacct(fields: list[str]) -> JobView:
    job, name, state, status, nodes, start, end, reason = fields
    word, _, by = state.partition(" ")  # "CANCELLED by 1000"
    code, _, number = status.partition(":")
    view = JobView(
        job_id=JobId(job),
        token=token_of(name),
        index=None,
        state=STATES.get(word, JobState.UNKNOWN),
        raw_state=state,
        reason=reason,
        exit_code=number_in(code),
        signal=number_in(number) or None,
        node=None if nodes in ("", "None assigned") else nodes,
        started_at=_time(start),
        ended_at=_time(end),
        cancelled_by=by.removeprefix("by ") or None,
    )
    return view if view.state in _WAITING else _ended(view)


_NO_TASK = "4294967294"  # SLURM's NO_VAL
_VALUE = re.compile(r"(\w+)=(\S*)")


def scontrol_job(line: str) -> tuple[str, dict[str, str]]:
    """Return the id, with the tasks of an array as in ``8_[0-3]``, and the values of a job.

    Args:
        line: of ``scontrol -o show jobs``. An array without tasks shows the number for none.
    """
    values = dict(_VALUE.findall(line))
    number = values.get("ArrayJobId") or values.get("JobId", "")
    tasks = values.get("ArrayTaskId", _NO_TASK)
    return number if tasks == _NO_TASK else f"{number}_{tasks}", values


def parse_scontrol(printed: str) -> list[JobView]:
    """Return mtf's jobs from ``scontrol -o show jobs``, for a squeue without ``SQUEUE_FIELDS``.

    Lines that cannot be read are as for ``parse_squeue``.
    """
    rows = []
    for line in printed.split("\n"):
        job, values = scontrol_job(line)
        code, _, number = values.get("ExitCode", "0:0").partition(":")
        status = str((number_in(code) or 0) * 256 + (number_in(number) or 0))
        rows.append(
            [
                job,
                values.get("JobName", ""),
                values.get("JobState", ""),
                status,
                values.get("Restarts", "0"),
                values.get("NodeList", "").replace("(null)", ""),
                values.get("StartTime", ""),
                values.get("EndTime", ""),
                values.get("Reason", ""),
            ]
        )
    lines = "\n".join(SEPARATOR.join(row) for row in rows)
    return list(_views(lines, len(SQUEUE_FIELDS), _from_squeue))


def _each_task(job: str, view: JobView) -> list[JobView]:
    """Return a view for each task in a job id like ``8_[0-9:3,12%4]``.

    A bare number is a plain job, or an array whose last tasks were cancelled one by one before they
    started: SLURM then keeps no record of each.
    """
    number, _, tasks = job.partition("_")
    if number_in(number) is None:
        raise ValueError(f"{job[:40]!r} is not a job id")
    view = _explained(view)
    if not tasks:
        return [replace(view, cure=view.cure.replace("{job}", number)) if view.cure else view]
    indices = parse_indices(tasks.strip("[]").partition("%")[0])
    return [view.of_task(JobId(f"{number}_{i}"), i) for i in indices]


def _time(text: str) -> datetime | None:
    seconds = number_in(text)
    return datetime.fromtimestamp(seconds, UTC) if seconds is not None else None


def number_in(text: str) -> int | None:
    """Return a number of SLURM, which has at most ten digits, None for any other text."""
    return int(text) if _NUMBER.fullmatch(text) else None


def max_array_size(printed: str) -> int | None:
    """Return the greatest size of an array, from the output of ``scontrol show config``.

    Source: slurm.conf(5), MaxArraySize, and max_array_tasks in SchedulerParameters.
    """
    size = parse_config(printed, "MaxArraySize")
    tasks = re.search(r"max_array_tasks=(\d+)", parse_config(printed, "SchedulerParameters") or "")
    greatest = number_in(size or "")
    most = number_in(tasks[1]) if tasks else None
    return greatest if greatest is None or most is None else min(greatest, most)


def parse_config(printed: str, key: str) -> str | None:
    """Return a value from the output of ``scontrol show config``, None if it is missing."""
    found = re.search(rf"^{re.escape(key)}\s*= (.*)$", printed, re.MULTILINE)
    return found[1].strip() if found else None
