"""The embedded executor: a queue that outlives the shell, and the same states as SLURM's."""

from __future__ import annotations

import os
import pwd
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from mtf import proc, rundir
from mtf.core.vocabulary.jobs import JobView, Limits, Submitted
from mtf.core.vocabulary.states import JobState
from mtf.core.vocabulary.times import time_limit_s
from mtf.errors import MtfError
from mtf.executor.local.job_process import WorkerLock
from mtf.executor.local.queue import LocalQueue, QueuedJob, Settings
from mtf.executor.script import render

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from mtf.core.vocabulary.ids import JobId, Token
    from mtf.core.vocabulary.jobs import JobRequest

GRACE_S = 10.0  # from TERM to KILL at a preemption (SLURM's GraceTime)
KILL_WAIT_S = 5.0  # from TERM to KILL at a cancellation and at the time limit (SLURM's KillWait)
IDLE_S = 10.0  # without work, until the worker ends
MAX_ARRAY_SIZE = 1_000_000  # tasks are rows of a table
_RECENT_S = 60.0  # what the worker's log says of trouble that is still there
# What a job gets of the submitter's environment: nothing that could be a secret.
KEPT = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR",
        "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")  # fmt: skip


class LocalExecutor:
    """Runs jobs on this host, ``max_parallel`` at a time, by a detached worker.

    Jobs start in the order in which they were queued; a job that comes back queues behind those
    that wait. Cores, memory and GPUs are not shared out: ``max_parallel`` is the only bound.
    """

    name = "local"

    def __init__(
        self,
        runs_root: Path,
        max_parallel: int,
        templates: Mapping[str, str] | None = None,
        cache: Path | None = None,
        *,
        grace_s: float = GRACE_S,
        kill_wait_s: float = KILL_WAIT_S,
        idle_s: float = IDLE_S,
    ) -> None:
        """Name the run root; nothing is started before there is work."""
        self._root = runs_root.absolute()
        self._templates = templates
        self._cache = cache
        self._queue = LocalQueue(self._root)
        self._settings = Settings(max_parallel, grace_s, kill_wait_s, idle_s)
        self._log = self._queue.folder / "worker.log"

    def script(self, request: JobRequest) -> str:
        """Return the script that ``submit`` queues."""
        return render(request, "local", self._templates, self._cache)

    def submit(self, request: JobRequest, script: str) -> Submitted:
        """Queue a request; the same token again gives the same jobs.

        Raises:
            MtfError: the run root cannot be written.
        """
        path = Path(request.job_dir) / rundir.SCRIPT
        limit = request.resources["time"] or "0"  # no limit
        try:
            self._queue.make()
            rundir.write_atomically(path, script.encode())
        except OSError as e:
            raise MtfError(
                f"{e.filename}: {e.strerror}. Make it writable, or set `runs_root:` in mtf.yaml"
            ) from e
        jobs = self._queue.add(request, str(path), _environment(), time_limit_s(limit) or None)
        self._ensure_worker()
        return Submitted(jobs)

    def jobs(self, names: Mapping[Token, str], since: datetime) -> Collection[JobView]:  # noqa: ARG002
        """Return what became of these submissions: the queue forgets nothing."""
        trouble = self._ensure_worker()
        return [_view(job, trouble) for job in self._queue.by_tokens(names)]

    def cancel(self, jobs: Collection[JobId], names: Mapping[Token, str]) -> None:
        """End jobs for good: TERM, then KILL; those that wait end at once."""
        self._queue.cancel(self._ours(jobs, names))
        self._ensure_worker()

    def preempt(self, jobs: Collection[JobId], names: Mapping[Token, str]) -> None:
        """Interrupt jobs: TERM, grace, KILL, back into the queue."""
        self._queue.preempt(self._ours(jobs, names))
        self._ensure_worker()

    def _ours(self, jobs: Collection[JobId], names: Mapping[Token, str]) -> list[JobId]:
        """Return those that bear the names: a queue that was lost begins again at 1."""
        ours = {job.job_id for job in self._queue.by_tokens(names)}
        return [job for job in jobs if job in ours]

    def limits(self) -> Limits:
        """Return what one request may hold."""
        return Limits(max_array_size=MAX_ARRAY_SIZE)

    def _ensure_worker(self) -> str:
        """Start the worker when there is work and none is alive; return why there was none."""
        if not self._queue.has_work():
            return ""
        self._queue.configure(self._settings)
        lock = WorkerLock(self._queue.folder)
        try:
            if not lock.acquire():
                return ""
            trouble = self._last_words()
            self._start_worker(lock)
        except OSError as e:  # the jobs are queued all the same
            return f"no local worker: {e}"
        finally:
            lock.release()
        return trouble

    def _start_worker(self, lock: WorkerLock) -> None:
        # -P and PYTHONPATH: this mtf, whatever lies in the folder we happen to be in
        command = [sys.executable, "-P", "-m", "mtf.executor.local.worker"]
        env = _environment() | {"PYTHONPATH": str(Path(__file__).parents[3])}
        fds = () if lock.fd is None else (lock.fd,)
        command += [str(self._root), *map(str, fds)]
        proc.start_detached(command, log=self._log, env=env, cwd=Path("/"), pass_fds=fds)

    def _last_words(self) -> str:
        """Return what the last worker said at its end; it writes only of trouble."""
        try:
            if time.time() - self._log.stat().st_mtime > _RECENT_S:
                return ""
            lines = self._log.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        return f"the local worker failed: {lines[-1]} ({self._log})" if lines else ""


def _view(job: QueuedJob, trouble: str) -> JobView:
    return JobView(
        job_id=job.job_id,
        token=job.token,
        index=job.task,
        state=job.state,
        raw_state=job.state.upper(),
        reason=job.reason or (trouble if job.state is JobState.PENDING else ""),
        exit_code=job.exit_code,
        signal=job.signal,
        node=job.host,
        restarts=job.restarts,
        started_at=_time(job.started),
        ended_at=_time(job.ended),
    )


def _environment() -> dict[str, str]:
    """Return the environment of a job: known names alone, the needed ones in any case."""
    me = pwd.getpwuid(os.getuid())
    given = {name: os.environ[name] for name in KEPT if name in os.environ}
    needed = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": me.pw_dir,
        "USER": me.pw_name,
        "LANG": "C.UTF-8",
    }
    return needed | given


def _time(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None
