"""The states of runs and jobs. Each executor maps its own words to them."""

from __future__ import annotations

from enum import StrEnum


class RunState(StrEnum):
    """The state of a run, in the words that users see."""

    CLAIMED = "claimed"
    PENDING = "pending"
    RUNNING = "running"
    PREEMPTED = "preempted"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    LOST = "lost"


class JobState(StrEnum):
    """The state of a job, reduced to what decisions depend on."""

    PENDING = "pending"
    HELD = "held"
    RUNNING = "running"
    SUSPENDED = "suspended"
    COMPLETED = "completed"  # exit 0
    FAILED = "failed"  # another exit code
    CANCELLED = "cancelled"
    PREEMPTED = "preempted"  # ended by preemption and not requeued
    TIMEOUT = "timeout"
    NODE_FAILURE = "node-failure"
    NOT_STARTED = "not-started"  # its nodes did not boot, or could not start it
    DEADLINE = "deadline"  # it was over before it could start, or end
    ABSENT = "absent"  # not listed beside other tasks of its array: cancelled while it waited
    OUT_OF_MEMORY = "out-of-memory"
    UNKNOWN = "unknown"  # a word that this version does not know: no action


class Sync(StrEnum):
    """Says if the committed, the recorded and the live state of a run agree."""

    SYNCED = "Synced"
    OUT_OF_SYNC = "OutOfSync"
    UNKNOWN = "Unknown"


ACTIVE = frozenset({RunState.CLAIMED, RunState.PENDING, RunState.RUNNING, RunState.PREEMPTED})
OVER = frozenset(RunState) - ACTIVE
