"""The embedded executor: a queue that outlives the shell, and the same states as SLURM's."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from mtf import proc, rundir
from mtf.core.jobs import JobView, Limits
from mtf.core.times import time_limit_s
from mtf.errors import MtfError
from mtf.executor.local_queue import LocalQueue, QueuedJob
from mtf.executor.script import render

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from mtf.core.ids import JobId, Token
    from mtf.core.jobs import JobRequest

_MOST = 1_000_000  # tasks in one request: rows of a table


class LocalExecutor:
    """Runs jobs on this host, ``max_parallel`` at a time, by a detached worker.

    ``grace_s`` is the time between TERM and KILL at a preemption, ``kill_wait_s`` at a
    cancellation and at the time limit (SLURM's GraceTime and KillWait).
    """

    name = "local"

    def __init__(
        self,
        runs_root: Path,
        max_parallel: int,
        templates: Mapping[str, str] | None = None,
        *,
        grace_s: float = 10.0,
        kill_wait_s: float = 5.0,
    ) -> None:
        """Name the run root; nothing is started before there is work."""
        self._root = runs_root
        self._templates = templates
        self._queue = LocalQueue(runs_root)
        self._worker = [
            str(runs_root), f"--max-parallel={max_parallel}",
            f"--grace={grace_s}", f"--kill-wait={kill_wait_s}",
        ]  # fmt: skip

    def script(self, request: JobRequest) -> str:
        """Return the script that ``submit`` queues."""
        return render(request, "local", self._templates)

    def submit(self, request: JobRequest, script: str) -> Mapping[int, JobId]:
        """Queue a request; the same token again gives the same jobs.

        Raises:
            MtfError: the run root cannot be written.
        """
        path = Path(request.job_dir) / "job.sh"
        limit = request.resources["time"]
        try:
            self._queue.make()
            rundir.put(path, script.encode())
            jobs = self._queue.add(request, str(path), time_limit_s(limit) if limit else None)
            for task in request.tasks:
                link = rundir.job_script(Path(task.run_dir), jobs[task.index])
                if not link.is_symlink():
                    link.symlink_to(path)
        except OSError as e:
            raise MtfError(f"{e.filename}: {e.strerror}. Set `runs_root:` in mtf.yaml") from e
        self._ensure_worker()
        return jobs

    def jobs(self, names: Mapping[Token, str], since: datetime) -> Collection[JobView]:  # noqa: ARG002
        """Return what became of these submissions: the queue forgets nothing."""
        found = self._queue.by_tokens(names)
        if any(j.ended is None for j in found):
            self._ensure_worker()
        return [_view(job) for job in found]

    def cancel(self, jobs: Collection[JobId]) -> None:
        """End jobs for good: TERM, then KILL."""
        self._queue.wish(jobs, "cancel")
        self._ensure_worker()

    def preempt(self, jobs: Collection[JobId]) -> None:
        """Interrupt jobs: TERM, grace, KILL, back into the queue."""
        self._queue.wish(jobs, "preempt")
        self._ensure_worker()

    def limits(self) -> Limits:
        """Return what one request may hold."""
        return Limits(max_array_size=_MOST)

    def _ensure_worker(self) -> None:
        """Start the worker when there is work and none is alive; its lock decides."""
        if not self._queue.unfinished():
            return
        lock = worker_lock(self._queue.folder)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return
        lock.release()
        command = [sys.executable, "-m", "mtf.executor.local_worker", *self._worker]
        env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
        proc.start_detached(command, log=self._queue.folder / "worker.log", env=env)


def worker_lock(folder: Path) -> FileLock:
    """Return the lock that the one worker of a run root holds; the system frees it at its death."""
    return FileLock(folder / "worker.lock", fallback_to_soft=False)


def _view(job: QueuedJob) -> JobView:
    return JobView(
        job_id=job.job_id,
        token=job.token,
        index=job.task,
        state=job.state,
        raw_state=job.state.upper(),
        reason=job.reason,
        exit_code=job.exit_code,
        signal=job.signal,
        node=os.uname().nodename if job.started else None,
        restarts=job.restarts,
        started_at=_time(job.started),
        ended_at=_time(job.ended),
    )


def _time(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None
