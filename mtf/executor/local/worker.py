"""The local executor's worker: starts queued jobs, signals them, and writes down how they ended.

``python -m mtf.executor.local.worker <runs_root> [<fd>]``, the file descriptor being that of the
lock which it was handed. It may be killed at any time: what it knows is in the queue and in the
files of ``local_process``, and the next worker goes on from there.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import sys
import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtf import rundir
from mtf.core.vocabulary.causes import CONTINUE_EXIT_CODE, EXIT_TERMINATED
from mtf.core.vocabulary.states import JobState
from mtf.errors import ExecutorUnavailableError
from mtf.executor.local import job_process
from mtf.executor.local.job_process import Process, WorkerLock
from mtf.executor.local.queue import FOLDER, STARTS, LocalQueue, QueuedJob, Settings, WorkerQueue

if TYPE_CHECKING:
    from mtf.core.vocabulary.ids import Token

_POLL_S = (
    0.03  # between two looks for wishes, new jobs, and ends of jobs that an earlier worker began
)
_BIRTH_S = 1.0  # that a start of an earlier worker is given to claim itself
_PAUSE_S = 1.0  # before starts are tried again when the host was short of something
_ATTEMPTS = 10  # at a queue that cannot be read, before the worker gives up
_INTERRUPTED = "its start was interrupted"
_DEFAULTS = Settings(max_parallel=1, grace_s=10.0, kill_wait_s=5.0, idle_s=10.0)
_HOST = os.uname().nodename
# What a host may lack now and have later; other errors are of this job alone.
_SHORT = frozenset({
    errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.EIO,
    errno.ESTALE,
})  # fmt: skip


class Worker:
    """Looks at the queue when it has changed, and at each running job every time."""

    def __init__(self, runs_root: Path) -> None:
        self._queue = WorkerQueue(runs_root)
        self._starts = runs_root / FOLDER / STARTS
        self._starts.mkdir(parents=True, exist_ok=True)
        self._settings = _DEFAULTS
        self._running: list[QueuedJob] = []
        self._processes: dict[int, Process] = {}  # by row
        self._waiting = False
        self._stale = True  # we have changed the queue since we read it
        self._pause_until = 0.0

    def close(self) -> None:
        """Close the queue; jobs run on."""
        self._queue.close()

    @property
    def is_stale(self) -> bool:
        """Return whether there is something to do at once."""
        return self._stale

    @property
    def idle_s(self) -> float:
        """Return how long to wait for work."""
        return self._settings.idle_s

    @property
    def is_gone(self) -> bool:
        """Return whether the queue was removed."""
        return self._queue.is_gone()

    def look(self) -> bool:
        """Do what there is to do; return whether jobs wait or run here."""
        _reap()
        news = self._queue.has_news()
        if self._stale or news or 0 < self._pause_until <= time.monotonic():
            self._stale = False
            self._read()
        for job in self._running:
            self._watch(job)
        return self._waiting or any(job.host == _HOST for job in self._running)

    def _read(self) -> None:
        self._settings = self._queue.settings() or _DEFAULTS
        self._running = self._queue.running()
        known = {job.id for job in self._running}
        self._processes = {n: p for n, p in self._processes.items() if n in known}
        self._start_some()
        self._waiting = self._queue.next_waiting() is not None

    # -- starting ----------------------------------------------------------------------------------

    def _start_some(self) -> None:
        if time.monotonic() < self._pause_until:
            return
        self._pause_until = 0.0
        free = self._settings.max_parallel - sum(job.host == _HOST for job in self._running)
        alike = Counter(job.token for job in self._running)
        full = {job.token for job in self._running if _is_full(job, alike)}
        while free > 0 and not self._pause_until and (job := self._queue.next_waiting(full)):
            alike[job.token] += 1
            if _is_full(job, alike):
                full.add(job.token)
            free -= self._start(job)
        self._running = self._queue.running()

    def _start(self, job: QueuedJob) -> bool:
        """Start a job: the intent first, so that a crash in between is seen."""
        intent: dict[str, Any] = {
            "state": JobState.RUNNING, "host": _HOST, "started": time.time(),
            "began": time.monotonic(), "warned": False, "wish": None, "wished_at": None,
        }  # fmt: skip
        if not self._queue.update(job, **intent, reason=""):
            return False
        job = replace(job, **intent)
        try:
            self._processes[job.id] = self._launch(job)
        except OSError as e:
            return self._not_started(job, e)
        return True

    def _launch(self, job: QueuedJob) -> Process:
        job_dir = Path(job.script).parent
        return job_process.launch(
            self._base(job),
            job.script,
            cwd=job_dir,
            output=(
                rundir.job_output(job_dir, job.job_id),
                rundir.job_output(job_dir, job.job_id, err=True),
            ),
            env=json.loads(job.environment)
            | {
                "MTF_EXECUTOR": "local",
                "MTF_JOB_DIR": str(job_dir),
                "MTF_INDEX": str(job.task),
                "MTF_RUN_DIR": job.run_dir,
                "MTF_TOKEN": job.token,
                "MTF_JOB_ID": job.job_id,
                "MTF_RESTARTS": str(job.restarts),
            },
        )

    def _not_started(self, job: QueuedJob, error: OSError) -> bool:
        why = f"could not start: {error}"
        if error.errno in _SHORT:  # it waits on, and so do the others
            self._pause_until = time.monotonic() + _PAUSE_S
            self._queue.update(job, state=JobState.PENDING, reason=why)
        else:
            self._end(job, JobState.NODE_FAILURE, reason=why)
        return False

    def _base(self, job: QueuedJob) -> Path:
        return self._starts / f"{job.id}.{job.restarts}"

    # -- watching ----------------------------------------------------------------------------------

    def _watch(self, job: QueuedJob) -> None:
        if job.host != _HOST:
            self._watch_elsewhere(job)
            return
        process = self._processes.get(job.id) or self._adopt(job)
        if process is None:
            return
        if process.is_alive():
            self._signal(job, process)
            return
        ended = job_process.read_exit(self._base(job))
        if process.has_group():
            if ended and self._may_go_on(job):
                self._signal(job, process)  # its shell obeyed TERM; the rest uses its grace
                return
            process.signal(signal.SIGKILL)
            if not ended:
                return  # without its shell its end would not be known: ended first, then told
        if ended:
            self._ended(job, *ended)
        else:
            self._vanished(job)

    def _adopt(self, job: QueuedJob) -> Process | None:
        """Return the process that an earlier worker started; queue the job again if it did not."""
        base = self._base(job)
        try:
            process = job_process.read_start(base)
        except FileNotFoundError:
            young = 0 <= time.monotonic() - (job.began or 0) < _BIRTH_S
            if young or not job_process.shut_out(base):
                return None
            process = None
        if process is None:
            self._again(job, _INTERRUPTED)
        else:
            self._processes[job.id] = process
        return process

    def _watch_elsewhere(self, job: QueuedJob) -> None:
        """See a job of another host, which shares the run root, only through its files."""
        ended = job_process.read_exit(self._base(job))
        if ended:
            self._ended(job, *ended)
        elif job.wish == "cancel":
            self._end(job, JobState.CANCELLED, reason=f"on {job.host}, out of reach from {_HOST}")

    def _signal(self, job: QueuedJob, process: Process) -> None:
        """Send what is due; sent first, then written down: twice rather than never."""
        if job.wish is None:
            self._keep_time(job, process)
        elif job.wished_at is None:
            process.signal(signal.SIGTERM)
            self._update(job, wished_at=time.monotonic())
        elif not self._may_go_on(job):
            process.signal(signal.SIGKILL)

    def _keep_time(self, job: QueuedJob, process: Process) -> None:
        if job.limit_s is None or job.began is None:
            return
        left = job.began + job.limit_s - time.monotonic()
        lead = job.lead_s if job.lead_s < job.limit_s else job.limit_s / 2
        if left <= 0:
            self._update(job, wish="timeout")
        elif left <= lead and not job.warned:
            process.signal(signal.SIGUSR1)
            self._update(job, warned=True)

    def _may_go_on(self, job: QueuedJob) -> bool:
        """Return whether a job that is being ended is still within its grace."""
        if job.wish is None:
            return False
        wait = self._settings.grace_s if job.wish == "preempt" else self._settings.kill_wait_s
        return job.wished_at is None or time.monotonic() - job.wished_at <= wait

    # -- ending ------------------------------------------------------------------------------------

    def _ended(self, job: QueuedJob, code: int, at: float) -> None:
        """Write down the end of a job that left its exit code."""
        # obeyed; wished_at is missing where a worker was killed between the signal and its note
        obeyed = job.wished_at is not None or code == EXIT_TERMINATED
        told = job.wish if obeyed else None  # else it ended of itself
        values = {"exit_code": code, "ended": at}
        match told:
            case "cancel":
                self._end(job, JobState.CANCELLED, reason="cancelled", **values)
            case _ if code == CONTINUE_EXIT_CODE and job.requeue:
                self._again(job, "ahead of its time limit")
            case _ if code == 0:
                self._end(job, JobState.COMPLETED, **values)
            case "preempt":
                self._preempted(job, **values)
            case "timeout":
                self._end(job, JobState.TIMEOUT, reason="time limit", **values)
            case _ if code > 128:  # the shell's way to say: by a signal
                self._end(job, JobState.FAILED, signal=code - 128, **values)
            case _:
                self._end(job, JobState.FAILED, **values)

    def _vanished(self, job: QueuedJob) -> None:
        """Write down the end of a job that was killed, by us or by others."""
        match job.wish:
            case "cancel":
                self._end(job, JobState.CANCELLED, reason="cancelled", signal=signal.SIGKILL)
            case "timeout":
                self._end(job, JobState.TIMEOUT, reason="time limit", signal=signal.SIGKILL)
            case "preempt":
                self._preempted(job, signal=signal.SIGKILL)
            case _ if job_process.shut_out(self._base(job)):  # killed before it claimed its start
                self._pause_until = time.monotonic() + _PAUSE_S
                self._again(job, _INTERRUPTED)
            case _:
                self._end(job, JobState.NODE_FAILURE, reason="the process vanished")

    def _preempted(self, job: QueuedJob, **values: object) -> None:
        if job.requeue:
            self._again(job, "preempted")
        else:
            self._end(job, JobState.PREEMPTED, reason="preempted", **values)

    def _again(self, job: QueuedJob, reason: str) -> None:
        """Queue a job once more, behind those that wait."""
        if self._update(
            job, state=JobState.PENDING, restarts=job.restarts + 1, reason=reason, wish=None,
            wished_at=None, queued=time.time(),
        ):  # fmt: skip
            self._forget(job)

    def _end(self, job: QueuedJob, state: JobState, **values: object) -> None:
        if self._update(job, state=state, **{"ended": time.time(), **values}):
            self._forget(job)

    def _update(self, job: QueuedJob, **values: object) -> bool:
        self._stale = True  # also where a wish came first: it is read at the next look
        return self._queue.update(job, **values)

    def _forget(self, job: QueuedJob) -> None:
        self._processes.pop(job.id, None)
        job_process.forget(self._base(job))


def _is_full(job: QueuedJob, alike: Counter[Token]) -> bool:
    return job.throttle is not None and alike[job.token] >= job.throttle


def _reap() -> None:
    """Collect ended children; those of an earlier worker belong to init."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


# -- the process -----------------------------------------------------------------------------------


def _fresh_signals() -> int:
    """Undo what the caller did to signals: jobs inherit them. Return what rings at a job's end."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM,
                   signal.SIGUSR1, signal.SIGUSR2):  # fmt: skip
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    hears, rings = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # a job's shell has ended
    signal.set_wakeup_fd(rings, warn_on_full_buffer=False)
    return hears


def _work_until_idle(worker: Worker, bell: int) -> None:
    idle_since = time.monotonic()
    while not worker.is_gone and time.monotonic() - idle_since < worker.idle_s:
        if worker.look():
            idle_since = time.monotonic()
        if not worker.is_stale and select.select([bell], [], [], _POLL_S)[0]:
            os.read(bell, 4096)


def _work(runs_root: Path, bell: int) -> None:
    with closing(Worker(runs_root)) as worker:
        _work_until_idle(worker, bell)


def main() -> None:
    """Work until there has been nothing to do for a while; only one worker does."""
    runs_root = Path(sys.argv[1]).absolute()
    bell = _fresh_signals()
    queue = LocalQueue(runs_root)
    lock = WorkerLock(queue.folder, *map(int, sys.argv[2:]))
    for _ in range(_ATTEMPTS):
        try:
            if not lock.acquire():
                return
            _work(runs_root, bell)
            lock.release()
            if not queue.has_work():
                return  # else: submitted after our last look, by somebody who saw our lock
        except (ExecutorUnavailableError, OSError) as e:
            sys.stderr.write(f"{e}\n")
            time.sleep(_PAUSE_S)
        finally:
            lock.release()


if __name__ == "__main__":
    main()
