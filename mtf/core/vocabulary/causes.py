"""Why an attempt ended: the causes that retry policies and people speak of, and their tables.

What is left of the tables after a word of SLURM's is in ``mtf.executor.slurm.job_text.STATES``;
``docs/states.md`` shows all of them.
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
    """How one attempt ended."""

    COMPLETED = "completed"
    PREEMPTED = "preempted"
    TIME_LIMIT = "time-limit"
    NODE_FAILURE = "node-failure"
    HOST_OOM = "host-oom"
    CUDA_OOM = "cuda-oom"
    CANCELLED = "cancelled"
    CODE_ERROR = "code-error"
    CONFIGURATION = "configuration"
    SUBMISSION = "submission"
    LOST = "lost"


@dataclass(frozen=True)
class End:
    """What follows from one cause."""

    state: RunState  # of the run, when no further attempt follows
    meaning: str
    advice: str = ""  # what a person may do when mtf does no more


ENDS: Mapping[Cause, End] = {
    Cause.COMPLETED: End(RunState.COMPLETED, "the journal says that the training is complete"),
    Cause.PREEMPTED: End(
        RunState.FAILED,  # the state `preempted` is for a run that comes back
        "the cluster took its place for something else",
        "mtf retry goes on from the checkpoint",
    ),
    Cause.TIME_LIMIT: End(
        RunState.TIMEOUT,
        "it reached its time limit",
        "mtf retry --set slurm.time=... gives it more at a time",
    ),
    Cause.NODE_FAILURE: End(
        RunState.FAILED,
        "its node failed, was taken down, or could not start it",
        "mtf retry; --set slurm.extra='[--exclude=NODE]' keeps it off a bad node",
    ),
    Cause.HOST_OOM: End(
        RunState.FAILED,
        "the memory of its host ran out, or what the job may have of it",
        "mtf retry --where cause=host-oom --set slurm.mem=... gives more",
    ),
    Cause.CUDA_OOM: End(
        RunState.FAILED,
        "the memory of its GPU ran out",
        "mtf retry --where cause=cuda-oom --set slurm.constraint=... on larger GPUs, or a new spec"
        " with a smaller training.batch_size",
    ),
    Cause.CANCELLED: End(
        RunState.CANCELLED, "mtf cancel, or somebody by hand: it is said who", "mtf retry"
    ),
    Cause.CODE_ERROR: End(
        RunState.FAILED, "the program ended with an error: its last line is said", "mtf logs --err"
    ),
    Cause.CONFIGURATION: End(
        RunState.FAILED,
        "it was refused before it trained: what its spec names is not there or does not fit, its"
        " environment, or a checkout that is not the commit",
        "a changed spec, or mtf retry once its environment is as it should be",
    ),
    Cause.SUBMISSION: End(
        RunState.FAILED,
        "the executor refused it for good",
        "mtf retry --set slurm.... with what it may ask for",
    ),
    Cause.LOST: End(
        RunState.LOST,
        "the executor has forgotten the job, which left no word",
        "look whether it still runs, then mtf retry",
    ),
}


@dataclass(frozen=True)
class Standing:
    """What it means for a run that its job is in one state."""

    run: RunState | None  # its state meanwhile; None: the job is over, or nothing is known
    cause: Cause | None  # None: it goes on
    action: str  # what mtf does, or a person may


STANDINGS: Mapping[JobState, Standing] = {
    JobState.PENDING: Standing(RunState.PENDING, None, "waits"),
    JobState.HELD: Standing(RunState.PENDING, None, "scontrol release lets it go"),
    JobState.RUNNING: Standing(RunState.RUNNING, None, "follows its journal"),
    JobState.SUSPENDED: Standing(RunState.RUNNING, None, "scontrol resume lets it go on"),
    JobState.COMPLETED: Standing(
        None, Cause.COMPLETED, "believes it only with the journal's word; else a code-error"
    ),
    JobState.FAILED: Standing(
        None, Cause.CODE_ERROR, "looks for the cause in the journal, exit code and signal"
    ),
    JobState.CANCELLED: Standing(None, Cause.CANCELLED, "leaves it; drift when done by hand"),
    JobState.PREEMPTED: Standing(None, Cause.PREEMPTED, "another attempt"),
    JobState.TIMEOUT: Standing(None, Cause.TIME_LIMIT, "another attempt"),
    JobState.NODE_FAILURE: Standing(None, Cause.NODE_FAILURE, "another attempt"),
    JobState.OUT_OF_MEMORY: Standing(None, Cause.HOST_OOM, "stops"),
    JobState.UNKNOWN: Standing(None, None, "nothing, until it is known"),
}

CONTINUE_EXIT_CODE = 85  # the job's own "time limit ahead, continue me"
EXIT_TERMINATED = 143  # as a shell says it of what has obeyed SIGTERM
CONFIGURATION_EXIT_CODE = 78  # of the job script, when its environment cannot be set up
_KILLED, _BUS_ERROR = 9, 7
# What the exit code or the signal of a FAILED job tells, where its journal has no word of an error.
# A shell adds 128 to a signal's number; srun may give the number itself where SLURM has killed the
# step (JobAcctGatherParams=OverMemoryKill). 53 stands for "the output files cannot be opened".
EXIT_CODES: Mapping[int, Cause] = {
    CONTINUE_EXIT_CODE: Cause.TIME_LIMIT,
    CONFIGURATION_EXIT_CODE: Cause.CONFIGURATION,
    _KILLED: Cause.HOST_OOM,
    128 + _KILLED: Cause.HOST_OOM,
    128 + _BUS_ERROR: Cause.HOST_OOM,
}
SIGNALS: Mapping[int, Cause] = {
    _KILLED: Cause.HOST_OOM,
    _BUS_ERROR: Cause.HOST_OOM,
    53: Cause.NODE_FAILURE,
}
# What a FAILED job was told last, where it has stopped as asked.
STOPS: Mapping[str, Cause] = {
    "SIGTERM": Cause.PREEMPTED,
    "SIGUSR1": Cause.TIME_LIMIT,
    "SIGINT": Cause.CANCELLED,
}
# What errors say of memory. Source: torch's and CUDA's texts, CPython's, the DataLoader's.
_CUDA_OOM = re.compile(
    r"torch(\.cuda)?\.OutOfMemoryError|(CUDA|HIP|XPU|MPS backend) out of memory"
    r"|CUDA error: out of memory|Cuda failure (\d+ )?'out of memory'"
    r"|(CUBLAS|CUDNN|CUSOLVER|CUFFT)_STATUS_ALLOC_FAILED"
)
_HOST_OOM = re.compile(
    r"(?<!OutOf)MemoryError\b|[Cc]annot allocate memory|can't allocate memory|not enough memory"
    r"|killed by signal: (Killed|Bus error)|workers are out of shared memory"
)


def cause_of_error(text: str) -> Cause:
    """Return the cause that the last line of an error stands for."""
    if _CUDA_OOM.search(text):
        return Cause.CUDA_OOM
    return Cause.HOST_OOM if _HOST_OOM.search(text) else Cause.CODE_ERROR
