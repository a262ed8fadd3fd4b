"""Why an attempt ended: the causes that retry policies and people speak of, and their table."""

from __future__ import annotations

from enum import StrEnum

from mtf.core.states import JobState, RunState


class Cause(StrEnum):
    """How one attempt ended."""

    COMPLETED = "completed"
    PREEMPTED = "preempted"
    TIME_LIMIT = "time-limit"
    NODE_FAILURE = "node-failure"
    OUT_OF_MEMORY = "out-of-memory"
    CANCELLED = "cancelled"  # by `mtf cancel`
    CANCELLED_OUTSIDE = "cancelled-outside"  # by somebody, not through mtf
    CODE_ERROR = "code-error"
    CONFIGURATION = "configuration"  # refused before it trained
    SUBMISSION = "submission"  # refused by the executor
    LOST = "lost"  # the executor has forgotten the job, and it left no word


CONTINUE_EXIT_CODE = 85  # the job's own "time limit ahead, continue me"

# The run state when an attempt ends this way and no further attempt follows.
FINAL_STATE: dict[Cause, RunState] = {
    Cause.COMPLETED: RunState.COMPLETED,
    Cause.PREEMPTED: RunState.FAILED,  # the state `preempted` is for a run that comes back
    Cause.TIME_LIMIT: RunState.TIMEOUT,
    Cause.NODE_FAILURE: RunState.FAILED,
    Cause.OUT_OF_MEMORY: RunState.FAILED,
    Cause.CANCELLED: RunState.CANCELLED,
    Cause.CANCELLED_OUTSIDE: RunState.CANCELLED,
    Cause.CODE_ERROR: RunState.FAILED,
    Cause.CONFIGURATION: RunState.FAILED,
    Cause.SUBMISSION: RunState.FAILED,
    Cause.LOST: RunState.LOST,
}
# Ends that the executor's word alone decides; COMPLETED, FAILED and CANCELLED need a second look.
JOB_CAUSE: dict[JobState, Cause] = {
    JobState.PREEMPTED: Cause.PREEMPTED,
    JobState.TIMEOUT: Cause.TIME_LIMIT,
    JobState.NODE_FAILURE: Cause.NODE_FAILURE,
    JobState.OUT_OF_MEMORY: Cause.OUT_OF_MEMORY,
}
