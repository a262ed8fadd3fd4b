"""Deals out the GPUs, CPUs and memory of this machine to the jobs that the worker starts."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from mtf.executor.local.gpu_lease import GpuLeases, lease_gpus
from mtf.executor.local.machine_query import this_machine, uuids_of
from mtf.executor.local.shares import Machine, Needs, free_of, waits_for, without_gpus

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mtf.executor.local.machine_query import LocalLimits
    from mtf.executor.local.queue import WorkerQueue
    from mtf.executor.local.queue_rows import QueuedJob

_HOST = os.uname().nodename
_AGAIN_S = 1.0  # until the GPUs that other queues use are tried again


class Dealer:
    """Knows what is free on this machine, and which waiting jobs do not fit.

    Attributes:
        unmet: the needs that cannot be met now.
        look_again: the monotonic time from which GPUs that other queues use may be free; 0: none
            is waited for.
    """

    def __init__(self, queue: WorkerQueue) -> None:
        """Take the queue, which tells clients what the machine has."""
        self.unmet: set[Needs] = set()
        self.look_again = 0.0
        self._queue = queue
        self._limits: LocalLimits | None = None  # that the machine was asked for
        self._machine = self._free = Machine((), 0, 0)
        self._uuids: Mapping[str, str] = {}

    def ask_machine(self, limits: LocalLimits) -> None:
        """Learn what jobs may use of this machine, once for the same settings."""
        if limits != self._limits:
            self._limits = limits
            self._machine = this_machine(limits, os.environ)
            self._uuids = uuids_of(self._machine.gpus)
            self._queue.set_machine(_HOST, self._machine)

    def count(self, running: Iterable[QueuedJob]) -> None:
        """Begin anew with what these jobs leave."""
        self._free = free_of(self._machine, (job.share for job in running))
        self.unmet, self.look_again = set(), 0.0

    def lease(self, job: QueuedJob) -> GpuLeases | None:
        """Take the share of a job, and leases of its GPUs; None if it does not fit.

        A job that does not fit keeps its place: others get only what it does not wait for.
        """
        if self._free.has(job.needs):
            leases, taken = lease_gpus(job.gpus, self._free.gpus, self._uuids)
            if len(leases.gpus) == job.gpus:
                self._free = self._free.without(job.needs, leases.gpus)
                return leases
            leases.close()
            self._wait_for_others(job, taken)
        self.unmet.add(job.needs)
        self._free = self._free.reserved_for(job.needs)
        return None

    def _wait_for_others(self, job: QueuedJob, taken: set[str]) -> None:
        self.look_again = time.monotonic() + _AGAIN_S
        self._free = without_gpus(self._free, taken)
        reason = f"{waits_for(job.needs, self._free)}: other queues of this machine use"
        reason += f" {len(taken)}"
        if job.reason != reason:
            self._queue.update(job, reason=reason)

    def environment(self, job: QueuedJob) -> dict[str, str]:
        """Return the variables with which a job sees its GPUs and no others."""
        if not self._machine.gpus:
            return {}
        # in the order in which nvidia-smi counts
        return {"CUDA_VISIBLE_DEVICES": job.devices, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
