"""The states of runs and jobs. Which executor text means which is the executors' business."""

from __future__ import annotations

from enum import StrEnum


class RunState(StrEnum):
    """What a run is in; the words users see."""

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
    """What an executor says of one job, reduced to what decisions need."""

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
    OUT_OF_MEMORY = "out-of-memory"
    UNKNOWN = "unknown"  # a text this version does not know: no action


class Sync(StrEnum):
    """Whether what is committed, recorded and live agree."""

    SYNCED = "Synced"
    OUT_OF_SYNC = "OutOfSync"
    UNKNOWN = "Unknown"


ACTIVE = frozenset({RunState.CLAIMED, RunState.PENDING, RunState.RUNNING, RunState.PREEMPTED})
OVER = frozenset(RunState) - ACTIVE
