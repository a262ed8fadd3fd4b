"""The rows of the local queue as values; a row that cannot be read is one damaged job, no more.

SQLite stores any type in any column, and the file may have been edited, or restored from a copy.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mtf.core.vocabulary.ids import JobId, Token
from mtf.core.vocabulary.states import JobState
from mtf.executor.local.machine_query import LocalLimits
from mtf.executor.local.shares import Needs

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Settings:
    """Settings of the worker; those of the newest client apply."""

    max_parallel: int  # jobs at a time
    grace_s: float  # from TERM to KILL at a preemption
    kill_wait_s: float  # from TERM to KILL at a cancellation and at the time limit
    idle_s: float  # time without work after which the worker exits
    gpus: str | None = None  # as JSON: how many, or a list of them; None: those of the machine
    cpus: int | None = None
    memory_mb: int | None = None

    @property
    def limits(self) -> LocalLimits:
        """Return the share of the machine that jobs may use."""
        gpus = json.loads(self.gpus) if self.gpus else None
        chosen = tuple(map(str, gpus)) if isinstance(gpus, list) else gpus
        return LocalLimits(self.max_parallel, chosen, self.cpus, self.memory_mb)


@dataclass(frozen=True)
class QueuedJob:
    """One job with its submission, a row of the queue.

    ``queued``, ``started`` and ``ended`` are seconds since the epoch; ``began`` and ``wished_at``
    are times of the host's monotonic clock, which is never set.
    """

    id: int
    token: Token
    task: int
    run_dir: str
    script: str
    environment: str  # of the job, as JSON
    throttle: int | None  # jobs of its grid that may run at a time
    limit_s: int | None
    lead_s: int  # the warning is sent this long before the limit
    warning: str  # the signal: "USR1" or "USR2"
    gpus: int  # that it needs
    cpus: int
    memory_mb: int
    devices: str  # the GPUs that it has: the value of CUDA_VISIBLE_DEVICES
    requeue: bool
    state: JobState
    reason: str
    restarts: int
    queued: float
    host: str | None  # the host that started it last
    started: float | None
    began: float | None
    warned: bool  # the warning was sent
    wish: str | None  # the requested end: "cancel", "preempt" or "timeout"
    wished_at: float | None  # when TERM was sent for it; None: not yet
    ended: float | None
    exit_code: int | None
    signal: int | None

    @property
    def job_id(self) -> JobId:
        """Return the job id that the ledger records."""
        return job_id(self.id)

    @property
    def needs(self) -> Needs:
        """Return the GPUs, CPUs and memory that it asks for."""
        return Needs(self.gpus, self.cpus, self.memory_mb)

    @property
    def share(self) -> tuple[Needs, tuple[str, ...]]:
        """Return its needs, and the names of the GPUs that it was given."""
        return self.needs, tuple(self.devices.split(",")) if self.devices else ()

    @property
    def grid(self) -> str:
        """Return the folder of its grid, whose jobs ``throttle`` counts."""
        return self.run_dir.rsplit("/", 3)[0]


def job_id(number: int) -> JobId:
    """Return the job id of a row."""
    return JobId(f"local-{number}")


@dataclass(frozen=True)
class DamagedJob:
    """A row that cannot be read. Nothing is known of its job but these."""

    id: int
    token: Token
    problem: str

    @property
    def job_id(self) -> JobId:
        """Return the job id that the ledger records."""
        return job_id(self.id)


_NUMBERS: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("task", "lead_s", "requeue", "restarts", "warned"), (int,)),
    **dict.fromkeys(("gpus", "cpus", "memory_mb"), (int,)),
    **dict.fromkeys(("throttle", "limit_s", "exit_code", "signal"), (int, type(None))),
    **dict.fromkeys(("started", "began", "wished_at", "ended"), (int, float, type(None))),
    "queued": (int, float),
}
_TEXTS: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("run_dir", "script", "environment", "reason"), (str,)),
    **dict.fromkeys(("warning", "devices"), (str,)),
    **dict.fromkeys(("host", "wish"), (str, type(None))),
}
_LATEST = 253_402_300_799  # the end of the year 9999, in seconds since the epoch
_COLUMNS = ("id", "token", "state", *_NUMBERS, *_TEXTS)


def job_of(row: Mapping[str, Any]) -> QueuedJob | DamagedJob:
    """Return the job of a row: columns of a later version are ignored."""
    number = row["id"]
    if problem := _problem(row):
        text = f"row {number} of the queue is damaged ({problem}). Correct it, or delete it"
        return DamagedJob(number, Token(str(row.get("token"))), text)
    values = {name: row[name] for name in _COLUMNS}
    values["state"] = JobState(values["state"])
    values["requeue"] = bool(values["requeue"])
    values["warned"] = bool(values["warned"])
    return QueuedJob(**values)


def _problem(row: Mapping[str, Any]) -> str | None:
    for name in _COLUMNS:
        if name not in row:
            return f"it has no column {name}"
    for name, types in (*_NUMBERS.items(), *_TEXTS.items()):
        value = row[name]
        is_far = isinstance(value, int | float) and not -_LATEST <= value <= _LATEST
        if not isinstance(value, types) or is_far:
            return f"{name} is {str(value)[:40]!r}"
        if isinstance(value, str) and "\0" in value:
            return f"{name} contains NUL"
    if row["state"] not in _STATES or not isinstance(row["token"], str):
        return f"state is {str(row['state'])[:40]!r}"
    return None


_STATES = frozenset(state.value for state in JobState)


def settings_of(row: Mapping[str, Any]) -> Settings | None:
    """Return the settings of a row, None if it cannot be read: those of the next client apply."""
    names = ("max_parallel", "grace_s", "kill_wait_s", "idle_s")
    values: dict[str, Any] = {name: row.get(name) for name in names}
    for value in values.values():
        if not isinstance(value, int | float) or not 0 <= value <= _LATEST:
            return None
    if not isinstance(values["max_parallel"], int):
        return None
    for name in ("cpus", "memory_mb"):
        values[name] = row.get(name)
        if not isinstance(values[name], int | None):
            return None
    values["gpus"] = row.get("gpus")
    return Settings(**values) if _is_choice(values["gpus"]) else None


def _is_choice(text: object) -> bool:
    """Return True for a choice of GPUs: None, or a number or a list of names as JSON."""
    if text is None:
        return True
    try:
        value = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return False
    names = value if isinstance(value, list) else []
    return type(value) is int or (
        isinstance(value, list) and all(isinstance(name, str) and name for name in names)
    )
