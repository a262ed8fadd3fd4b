"""The reasons of waiting jobs of the local queue. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtf.executor.local.shares import Machine, free_of, waits_for

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from mtf.executor.local.queue_rows import QueuedJob


@dataclass(frozen=True)
class Occupation:
    """A worker's machine, the jobs that run on it, and the job that has waited longest."""

    machine: Machine
    max_parallel: int
    running: Sequence[QueuedJob]
    first: QueuedJob | None

    def reason(self, job: QueuedJob) -> str:
        """Return the reason for which a job waits, an empty text if it is about to start."""
        free = free_of(self.machine, (other.share for other in self.running))
        if lacks := waits_for(job.needs, free):
            return lacks
        if len(self.running) >= self.max_parallel:
            return f"{self.max_parallel} at a time (local.max_parallel)"
        siblings = sum(other.token == job.token for other in self.running)
        if job.throttle is not None and siblings >= job.throttle:
            return f"{job.throttle} of its grid at a time (max_parallel)"
        if self.first is not None and self.first.id != job.id:
            lacks = waits_for(self.first.needs, free)
            return f"queued behind {self.first.job_id}, which {lacks}" if lacks else ""
        return ""


def machine_of(row: Mapping[str, Any]) -> Machine | None:
    """Return the machine in a row of the queue, None if it cannot be read."""
    gpus, cpus, memory_mb = row.get("gpus"), row.get("cpus"), row.get("memory_mb")
    if not isinstance(gpus, str) or not isinstance(cpus, int) or not isinstance(memory_mb, int):
        return None
    return Machine(tuple(gpus.split(",")) if gpus else (), cpus, memory_mb)
