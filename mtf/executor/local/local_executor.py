"""The local executor: runs jobs on this host, from a queue that outlives the shell."""

from __future__ import annotations

import os
import pwd
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from mtf import proc, rundir
from mtf.core.sbatch.read_script import ScriptOptionError
from mtf.core.sbatch.section_options import job_options, section_demand
from mtf.core.vocabulary import json_text
from mtf.core.vocabulary.jobs import ArrayLimit, JobView, Limits, Submitted
from mtf.core.vocabulary.states import JobState
from mtf.errors import (
    ExecutorUnavailableError,
    MtfError,
    SubmissionRefusedError,
    storage_error,
)
from mtf.executor.local.job_process import WorkerLock
from mtf.executor.local.machine_query import LocalLimits, this_machine
from mtf.executor.local.queue import LocalQueue
from mtf.executor.local.queue_rows import DamagedJob, QueuedJob, Settings
from mtf.executor.local.shares import excess, needs_of
from mtf.executor.script import render_all

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from mtf.core.sbatch.read_script import JobOptions
    from mtf.core.vocabulary.ids import JobId, Token
    from mtf.core.vocabulary.jobs import JobRequest, Mark, Resources, TaskOf
    from mtf.executor.local.shares import Needs
    from mtf.executor.local.waiting import Occupation

GRACE_S = 10.0  # from TERM to KILL at a preemption (SLURM's GraceTime)
KILL_WAIT_S = 5.0  # from TERM to KILL at a cancellation and at the time limit (SLURM's KillWait)
IDLE_S = 10.0  # the worker exits after this time without work
MAX_ARRAY_SIZE = 1_000_000  # tasks are rows of a table
_RECENT_S = 60.0  # age of the worker's last log line that is still reported
# The variables that a job inherits from the submitter: none that could be a secret.
_USER = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR")
_LOCALE = ("LANG", "LC_ALL", "LC_CTYPE", "TZ")
INHERITED = (*_USER, *_LOCALE, "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")


class LocalExecutor:
    """Runs jobs on this host in a detached worker process, as many at a time as it has room for.

    Jobs start in the order in which they were queued; a requeued job goes to the end of the queue.
    A job that must wait for GPUs, CPUs or memory is overtaken only by jobs that need nothing of
    what it waits for. GPUs are assigned: no two jobs on this machine have the same. CPUs and memory
    are counted in each run root by what its runs ask for, and not enforced.
    """

    name = "local"

    def __init__(
        self,
        runs_root: Path,
        limits: LocalLimits | int,
        templates: Mapping[str, str] | None = None,
        cache: Path | None = None,
        *,
        grace_s: float = GRACE_S,
        kill_wait_s: float = KILL_WAIT_S,
        idle_s: float = IDLE_S,
    ) -> None:
        """Take the run root, and what jobs may use (a number: of jobs at a time).

        The worker is started when there is work.
        """
        self._limits = LocalLimits(limits) if isinstance(limits, int) else limits
        self._root = runs_root.absolute()
        self._templates = templates
        self._cache = cache
        self._queue = LocalQueue(self._root)
        gpus = self._limits.gpus
        self._settings = Settings(
            self._limits.max_parallel,
            grace_s,
            kill_wait_s,
            idle_s,
            gpus=None if gpus is None else json_text.dumps(gpus),
            cpus=self._limits.cpus,
            memory_mb=self._limits.memory_mb,
        )
        self._log = self._queue.folder / "worker.log"

    def scripts(self, requests: Sequence[JobRequest]) -> list[str | MtfError]:
        """Return the job scripts that ``submit`` queues."""
        return render_all(requests, "local", self._templates, self._cache)

    def options(self, request: JobRequest, script: str) -> JobOptions:  # noqa: ARG002
        """Return the options that the request's resources stand for: the script has none."""
        try:
            return job_options(request.resources)
        except ScriptOptionError as e:
            raise MtfError(f"slurm.extra: {e}") from e

    def refusal(self, request: JobRequest, script: str) -> str | None:  # noqa: ARG002 -- a protocol's
        """Return the reason to refuse a job here; see ``Executor.refusal``."""
        try:
            self._needs(request.resources)
        except SubmissionRefusedError as e:
            return str(e)
        return None

    def submit(self, request: JobRequest, script: str) -> Submitted:
        """Queue a request; if its token is queued already, return the existing jobs.

        Raises:
            ExecutorUnavailableError: the run root is full or not writable.
            SubmissionRefusedError: a job asks for more than this machine has.
        """
        needs = self._needs(request.resources)
        path = Path(request.job_dir) / rundir.SCRIPT
        hours = section_demand(request.resources).hours
        try:
            self._queue.make()
            rundir.write_atomically(path, script.encode())
        except OSError as e:
            cure = "Make it writable, or set runs_root in mtf.yaml"
            problem = storage_error(e) or f"{e.filename}: {e.strerror}. {cure}"
            raise ExecutorUnavailableError(str(problem)) from e
        if owner := self._queue.other_owner():
            raise ExecutorUnavailableError(
                f"{self._queue.folder} is the local queue of {owner}, as whom its jobs would run."
                " Set another `runs_root:` in mtf.yaml"
            )
        limit_s = round(hours * 3600) if hours else None
        jobs = self._queue.add(request, str(path), _environment(), limit_s, needs)
        self._ensure_worker()
        return Submitted(jobs)

    def _needs(self, resources: Resources) -> Needs:
        machine = this_machine(self._limits, os.environ, with_gpus=False)
        needs = needs_of(resources, machine.memory_mb)
        if needs.gpus:
            machine = this_machine(self._limits, os.environ)
        if problem := excess(needs, resources["nodes"], machine):
            raise SubmissionRefusedError(problem)
        return needs

    def jobs(
        self,
        names: Mapping[Token, str],
        since: datetime,  # noqa: ARG002
        tasks: Collection[TaskOf] | None = None,  # noqa: ARG002
    ) -> Collection[JobView]:
        """Return the jobs of these submissions; the queue never forgets a job."""
        return views(self._queue, names, self._ensure_worker())

    def used(
        self,
        jobs: Collection[JobId],  # noqa: ARG002
        since: datetime,  # noqa: ARG002
    ) -> Mapping[JobId, Mapping[str, float]]:
        """Return nothing: jobs report themselves what they use."""
        return {}

    def cancel(self, jobs: Collection[JobId], marks: Mapping[Token, Mark]) -> Mapping[JobId, str]:
        """Cancel jobs: TERM, then KILL; jobs that wait end at once."""
        ours, others = self._ours(jobs, marks)
        self._queue.cancel(ours)
        self._ensure_worker()
        return others

    def preempt(self, jobs: Collection[JobId], marks: Mapping[Token, Mark]) -> Mapping[JobId, str]:
        """Interrupt jobs: TERM, grace time, KILL, then back into the queue."""
        ours, others = self._ours(jobs, marks)
        self._queue.preempt(ours)
        self._ensure_worker()
        return others

    def _ours(
        self, jobs: Collection[JobId], marks: Mapping[Token, Mark]
    ) -> tuple[list[JobId], dict[JobId, str]]:
        """Return the jobs with these marks, and the others: a lost queue counts from 1 again."""
        scripts = {token: str(Path(mark.job_dir) / rundir.SCRIPT) for token, mark in marks.items()}
        queued = self._queue.by_tokens(marks)
        ours = {
            job.job_id
            for job in queued
            if isinstance(job, QueuedJob) and job.script == scripts[job.token]
        }
        others = {job: "the queue has no such job of this run" for job in jobs if job not in ours}
        return [job for job in jobs if job in ours], others

    def array_limits(self, numbers: Collection[str]) -> Mapping[str, ArrayLimit]:
        """Return the number of jobs of a grid that may run at a time, by token."""
        throttles = self._queue.throttles(numbers)
        return {number: ArrayLimit(number, throttle) for number, throttle in throttles.items()}

    def set_limits(self, limits: Iterable[ArrayLimit]) -> None:
        """Set the number of jobs of a grid that may run at a time."""
        self._queue.set_throttles({limit.number: limit.throttle for limit in limits})

    def limits(self) -> Limits:
        """Return the limits of one request."""
        return Limits(max_array_size=MAX_ARRAY_SIZE)

    def _ensure_worker(self) -> str:
        """Start the worker if there is work and none runs; return the last worker's error."""
        if not self._queue.has_work():
            return ""
        if owner := self._queue.other_owner():
            return f"its local queue is {owner}'s, whose next mtf command starts it"
        self._queue.configure(self._settings)
        lock = WorkerLock(self._queue.folder)
        try:
            if not lock.acquire():
                return ""
            problem = self._last_error()
            self._start_worker(lock)
        except OSError as e:  # the jobs stay queued
            return f"could not start the local worker: {e}"
        finally:
            lock.release()
        return problem

    def _start_worker(self, lock: WorkerLock) -> None:
        # -P and PYTHONPATH: run this mtf, whatever the current folder contains
        command = [sys.executable, "-P", "-m", "mtf.executor.local.worker"]
        env = _environment() | {"PYTHONPATH": str(Path(__file__).parents[3])}
        fds = () if lock.fd is None else (lock.fd,)
        command += [str(self._root), *map(str, fds)]
        proc.start_detached(command, log=self._log, env=env, cwd=Path("/"), pass_fds=fds)

    def _last_error(self) -> str:
        """Return the last worker's last error, if it is recent: the log has nothing but errors."""
        try:
            if time.time() - self._log.stat().st_mtime > _RECENT_S:
                return ""
            lines = self._log.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        return f"the local worker failed: {lines[-1]} ({self._log})" if lines else ""


def views(queue: LocalQueue, names: Mapping[Token, str], problem: str = "") -> list[JobView]:
    """Return the jobs of these submissions; ``problem`` is why jobs that wait do not start."""
    found = queue.by_tokens(names)
    waits = any(isinstance(j, QueuedJob) and j.state is JobState.PENDING for j in found)
    occupation = queue.occupation() if waits else None
    return [_view(job, problem, occupation) for job in found]


def _view(job: QueuedJob | DamagedJob, problem: str, occupation: Occupation | None) -> JobView:
    if isinstance(job, DamagedJob):
        return JobView(job.job_id, job.token, None, JobState.UNKNOWN, "", job.problem)
    is_waiting = job.state is JobState.PENDING
    return JobView(
        job_id=job.job_id,
        token=job.token,
        index=job.task,
        state=job.state,
        raw_state=job.state.upper(),
        reason=job.reason or (_waits(job, problem, occupation) if is_waiting else ""),
        exit_code=job.exit_code,
        signal=job.signal,
        node=job.host,
        restarts=job.restarts,
        started_at=_time(job.started),
        ended_at=_time(job.ended),
    )


def _waits(job: QueuedJob, problem: str, occupation: Occupation | None) -> str:
    return problem or (occupation.reason(job) if occupation else "")


def _environment() -> dict[str, str]:
    """Return the environment of a job: the inherited variables, with defaults for some."""
    user = pwd.getpwuid(os.getuid())
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    defaults = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": user.pw_dir,
        "USER": user.pw_name,
        "LANG": "C.UTF-8",
    }
    return defaults | inherited


def _time(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None
