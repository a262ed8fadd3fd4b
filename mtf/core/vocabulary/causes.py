"""The causes of an attempt's end, and tables from job states, exit codes and signals to causes.

``mtf.executor.slurm.job_text.STATES`` maps SLURM's words to job states; ``docs/states.md`` shows
all of these tables.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from mtf.core.vocabulary.states import JobState, RunState

if TYPE_CHECKING:
    from collections.abc import Mapping


class Cause(StrEnum):
    """Why one attempt ended."""

    COMPLETED = "completed"
    PREEMPTED = "preempted"
    TIME_LIMIT = "time-limit"
    NODE_FAILURE = "node-failure"
    NOT_STARTED = "not-started"
    DEADLINE = "deadline"
    HOST_OOM = "host-oom"
    CUDA_OOM = "cuda-oom"
    CANCELLED = "cancelled"
    CODE_ERROR = "code-error"
    CONFIGURATION = "configuration"
    STORAGE = "storage"
    SUBMISSION = "submission"
    LOST = "lost"


@dataclass(frozen=True)
class End:
    """The consequences of one cause."""

    state: RunState  # of the run, when no further attempt follows
    meaning: str
    advice: str = ""  # what a person can do when mtf stops retrying


ENDS: Mapping[Cause, End] = {
    Cause.COMPLETED: End(RunState.COMPLETED, "the journal says that the training is complete"),
    Cause.PREEMPTED: End(
        RunState.FAILED,  # `preempted` is the state of a run that will continue
        "the cluster needed its place for another job",
        "mtf retry continues from the checkpoint",
    ),
    Cause.TIME_LIMIT: End(
        RunState.TIMEOUT,
        "it reached its time limit",
        "mtf retry --set slurm.time=... allows more time",
    ),
    Cause.NODE_FAILURE: End(
        RunState.FAILED,
        "its node failed or was taken down",
        "mtf retry; --set slurm.extra='[--exclude=NODE]' avoids a bad node",
    ),
    Cause.NOT_STARTED: End(
        RunState.FAILED,
        "it never began: its nodes did not boot, or could not start its script or open its output",
        "check that the nodes can write to the run root, then mtf retry;"
        " --set slurm.extra='[--exclude=NODE]' avoids a bad node",
    ),
    Cause.DEADLINE: End(
        RunState.TIMEOUT,
        "its deadline (--deadline) passed before it could end, or even begin",
        "mtf retry --set slurm.extra=... with a later deadline",
    ),
    Cause.HOST_OOM: End(
        RunState.FAILED,
        "the host ran out of memory, or the job exceeded its share",
        "mtf retry --where cause=host-oom --set slurm.mem=... allows more",
    ),
    Cause.CUDA_OOM: End(
        RunState.FAILED,
        "the GPU ran out of memory",
        "mtf retry --where cause=cuda-oom --set slurm.constraint=... for larger GPUs, or a new spec"
        " with a smaller training.batch_size",
    ),
    Cause.CANCELLED: End(
        RunState.CANCELLED, "mtf cancel, or a person by hand: the reason names who", "mtf retry"
    ),
    Cause.CODE_ERROR: End(
        RunState.FAILED, "the program failed: the reason is its last line", "mtf logs --err"
    ),
    Cause.CONFIGURATION: End(
        RunState.FAILED,
        "it was refused: the spec names something missing or unfit, the environment is broken, the"
        " checkout is not the commit, or no resume could load what it saved",
        "change the spec, or fix the environment and run mtf retry",
    ),
    Cause.STORAGE: End(
        RunState.FAILED,
        "a disk is full, a quota used up, or the run folder cannot be written",
        "free space or make the folder writable; mtf retry continues from the checkpoint",
    ),
    Cause.SUBMISSION: End(
        RunState.FAILED,
        "the executor refused it for good",
        "commit what corrects it, which is submitted by itself; mtf retry asks again as it is, and"
        " with --set slurm.... for other resources",
    ),
    Cause.LOST: End(
        RunState.LOST,
        "the job disappeared without a trace: the executor no longer knows it",
        "check that it no longer runs, then mtf retry",
    ),
}


@dataclass(frozen=True)
class Standing:
    """The consequences of one job state for its run."""

    run: RunState | None  # the run's state; None: the job is over, or nothing is known
    cause: Cause | None  # None: the job goes on
    action: str  # what mtf does, or a person may


STANDINGS: Mapping[JobState, Standing] = {
    JobState.PENDING: Standing(RunState.PENDING, None, "waits"),
    JobState.HELD: Standing(RunState.PENDING, None, "scontrol release starts it"),
    JobState.RUNNING: Standing(RunState.RUNNING, None, "follows its journal"),
    JobState.SUSPENDED: Standing(RunState.RUNNING, None, "scontrol resume continues it"),
    JobState.COMPLETED: Standing(
        None, Cause.COMPLETED, "believes it only if the journal agrees; otherwise code-error"
    ),
    JobState.FAILED: Standing(
        None, Cause.CODE_ERROR, "looks for the cause in the journal, exit code and signal"
    ),
    JobState.CANCELLED: Standing(None, Cause.CANCELLED, "does not retry it; drift if done by hand"),
    JobState.PREEMPTED: Standing(None, Cause.PREEMPTED, "another attempt"),
    JobState.TIMEOUT: Standing(None, Cause.TIME_LIMIT, "another attempt"),
    JobState.NODE_FAILURE: Standing(None, Cause.NODE_FAILURE, "another attempt"),
    JobState.NOT_STARTED: Standing(None, Cause.NOT_STARTED, "stops"),
    JobState.DEADLINE: Standing(None, Cause.DEADLINE, "stops"),
    JobState.ABSENT: Standing(None, Cause.CANCELLED, "does not retry it; drift"),
    JobState.OUT_OF_MEMORY: Standing(None, Cause.HOST_OOM, "stops"),
    JobState.UNKNOWN: Standing(None, None, "nothing, until the state is known"),
}

CONTINUE_EXIT_CODE = 85  # of a job that asks to be continued before its time limit
EXIT_TERMINATED = 143  # what a shell reports for a program that SIGTERM ended
CONFIGURATION_EXIT_CODE = 78  # of the job script, if its environment cannot be set up
STORAGE_EXIT_CODE = 74  # of a job whose run folder cannot be written, not even its journal
_KILLED, _BUS_ERROR = 9, 7
# The causes of a FAILED job's exit codes and signals, if its journal has no error.
# A shell adds 128 to a signal's number; srun may give the number itself where SLURM has killed the
# step (JobAcctGatherParams=OverMemoryKill). 53 stands for "the output files cannot be opened".
EXIT_CODES: Mapping[int, Cause] = {
    CONTINUE_EXIT_CODE: Cause.TIME_LIMIT,
    CONFIGURATION_EXIT_CODE: Cause.CONFIGURATION,
    STORAGE_EXIT_CODE: Cause.STORAGE,
    _KILLED: Cause.HOST_OOM,
    128 + _KILLED: Cause.HOST_OOM,
    128 + _BUS_ERROR: Cause.HOST_OOM,
}
SIGNALS: Mapping[int, Cause] = {
    _KILLED: Cause.HOST_OOM,
    _BUS_ERROR: Cause.HOST_OOM,
    53: Cause.NOT_STARTED,
}
# The causes of a FAILED job that stopped at a signal.
STOPS: Mapping[str, Cause] = {
    "SIGTERM": Cause.PREEMPTED,
    "SIGUSR1": Cause.TIME_LIMIT,
    "SIGUSR2": Cause.TIME_LIMIT,
    "SIGINT": Cause.CANCELLED,
}
# Error messages about memory. Source: torch's and CUDA's texts, CPython's, the DataLoader's.
_CUDA_OOM = re.compile(
    r"torch(\.cuda)?\.OutOfMemoryError|(CUDA|HIP|XPU|MPS backend) out of memory"
    r"|CUDA error: out of memory|Cuda failure (\d+ )?'out of memory'"
    r"|(CUBLAS|CUDNN|CUSOLVER|CUFFT)_STATUS_ALLOC_FAILED"
)
_HOST_OOM = re.compile(
    r"(?<!OutOf)MemoryError\b|[Cc]annot allocate memory|can't allocate memory|not enough memory"
    r"|killed by signal: (Killed|Bus error)|workers are out of shared memory"
)

_STORAGE = re.compile("No space left on device|Disk quota exceeded|Read-only file system")


def cause_of_error(text: str) -> Cause:
    """Return the cause of an error, by its last line."""
    if _CUDA_OOM.search(text):
        return Cause.CUDA_OOM
    if _HOST_OOM.search(text):
        return Cause.HOST_OOM
    return Cause.STORAGE if _STORAGE.search(text) else Cause.CODE_ERROR
