"""The local executor's worker: starts queued jobs, signals them, and records how they ended.

Run as ``python -m mtf.executor.local.worker <runs_root> [<fd>]``, with the file descriptor of the
lock that it takes over. It may be killed at any time: its state is in the queue and in the files of
``job_process``, and the next worker continues from there.
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
from mtf.executor.local.dealer import Dealer
from mtf.executor.local.job_process import Process, WorkerLock
from mtf.executor.local.queue import STARTS, LocalQueue, WorkerQueue
from mtf.executor.local.queue_file import FOLDER
from mtf.executor.local.queue_rows import QueuedJob, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mtf.core.vocabulary.ids import Token
    from mtf.executor.local.gpu_lease import GpuLeases

_POLL_S = 0.03  # between two checks of the queue, and of jobs that an earlier worker started
_CLAIM_S = 1.0  # how long a start by an earlier worker may take to claim itself
_PAUSE_S = 1.0  # pause before the next start when the host lacked a resource
_ATTEMPTS = 10  # to read the queue before the worker gives up
_INTERRUPTED = "its start was interrupted"
_DEFAULTS = Settings(max_parallel=1, grace_s=10.0, kill_wait_s=5.0, idle_s=10.0)
_HOST = os.uname().nodename
# Errors of the host, which may pass; other errors concern the job alone.
_PROCESS_ERRORS = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE)
_TEMPORARY = frozenset((*_PROCESS_ERRORS, *_DISK_ERRORS))


class Worker:
    """Reads the queue when it has changed, and checks each running job every time."""

    def __init__(self, runs_root: Path) -> None:
        self._queue = WorkerQueue(runs_root, _note)
        self._starts = runs_root / FOLDER / STARTS
        self._starts.mkdir(parents=True, exist_ok=True)
        self._settings = _DEFAULTS
        self._running: list[QueuedJob] = []
        self._processes: dict[int, Process] = {}  # by row
        self._waiting = False
        self._stale = True  # this worker has changed the queue since it read it
        self._pause_until = 0.0
        self._dealer = Dealer(self._queue)

    def close(self) -> None:
        """Close the queue; jobs keep running."""
        self._queue.close()

    @property
    def is_stale(self) -> bool:
        """Return True if there is something to do at once."""
        return self._stale

    @property
    def idle_s(self) -> float:
        """Return the time without work after which the worker exits."""
        return self._settings.idle_s

    @property
    def is_gone(self) -> bool:
        """Return True if the queue's file was removed."""
        return self._queue.is_gone()

    def step(self) -> bool:
        """Do everything that is due; return True if jobs wait or run on this host."""
        _reap()
        changed = self._queue.has_changed()
        due = any(0 < at <= time.monotonic() for at in (self._pause_until, self._dealer.look_again))
        if self._stale or changed or due:
            self._stale = False
            self._read()
        for job in self._running:
            self._watch(job)
        return self._waiting or any(job.host == _HOST for job in self._running)

    def _read(self) -> None:
        self._settings = self._queue.settings() or _DEFAULTS
        self._dealer.ask_machine(self._settings.limits)
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
        here = [job for job in self._running if job.host == _HOST]
        slots = self._settings.max_parallel - len(here)
        running = Counter(job.grid for job in self._running)
        full: set[Token] = set()  # submissions of grids with no more room
        self._dealer.count(here)
        while slots > 0 and not self._pause_until:
            job = self._queue.next_waiting(full, self._dealer.unmet)
            if job is None:
                break
            if job.throttle is not None and running[job.grid] >= job.throttle:
                full.add(job.token)
            elif leases := self._dealer.lease(job):
                running[job.grid] += 1
                with closing(leases):
                    slots -= self._start(job, leases)
        self._running = self._queue.running()

    def _start(self, job: QueuedJob, leases: GpuLeases) -> bool:
        """Start a job; the queue is changed first, so that a crash in between is noticed."""
        intent: dict[str, Any] = {
            "state": JobState.RUNNING,
            "host": _HOST,
            "started": time.time(),
            "began": time.monotonic(),
            "warned": False,
            "wish": None,
            "wished_at": None,
            "devices": ",".join(leases.gpus),
        }
        if not self._queue.update(job, **intent, reason=""):
            return False
        job = replace(job, **intent)
        try:
            self._processes[job.id] = self._launch(job, leases.fds)
        except OSError as e:
            return self._not_started(job, e)
        except (TypeError, ValueError) as e:  # the environment in its row is not one
            self._end(job, JobState.NODE_FAILURE, reason=f"could not start: its environment: {e}")
            return False
        return True

    def _launch(self, job: QueuedJob, leases: Sequence[int]) -> Process:
        job_dir = Path(job.script).parent
        return job_process.launch(
            self._base(job),
            job.script,
            cwd=job_dir,
            output=(
                rundir.job_output(job_dir, job.job_id),
                rundir.job_output(job_dir, job.job_id, err=True),
            ),
            pass_fds=leases,
            env=json.loads(job.environment)
            | self._dealer.environment(job)
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
        reason = f"could not start: {error}"
        if error.errno in _TEMPORARY:  # it keeps waiting, and so do the others
            self._pause_until = time.monotonic() + _PAUSE_S
            self._queue.update(job, state=JobState.PENDING, reason=reason)
        else:
            self._end(job, JobState.NODE_FAILURE, reason=reason)
        return False

    def _base(self, job: QueuedJob) -> Path:
        return self._starts / f"{job.id}.{job.restarts}"

    # -- watching ----------------------------------------------------------------------------------

    def _watch(self, job: QueuedJob) -> None:
        if job.host != _HOST:
            self._watch_remote(job)
            return
        process = self._processes.get(job.id) or self._adopt(job)
        if process is None:
            return
        if process.is_alive():
            self._signal(job, process)
            return
        ended = job_process.read_exit(self._base(job))
        if process.has_group():
            if ended and self._has_grace(job):
                self._signal(job, process)  # the shell has ended; its children use their grace time
                return
            process.signal(signal.SIGKILL)
            if not ended:
                return  # without the shell, the end shows only once the whole group is gone
        if ended:
            self._ended(job, *ended)
        else:
            self._vanished(job)

    def _adopt(self, job: QueuedJob) -> Process | None:
        """Return the process that an earlier worker started; requeue the job if it started none."""
        base = self._base(job)
        try:
            process = job_process.read_start(base)
        except FileNotFoundError:
            is_recent = 0 <= time.monotonic() - (job.began or 0) < _CLAIM_S
            if is_recent or not job_process.prevent_start(base):
                return None
            process = None
        if process is None:
            self._requeue(job, _INTERRUPTED)
        else:
            self._processes[job.id] = process
        return process

    def _watch_remote(self, job: QueuedJob) -> None:
        """Check a job of another host that shares the run root: only its files are visible here."""
        ended = job_process.read_exit(self._base(job))
        if ended:
            self._ended(job, *ended)
        elif job.wish == "cancel":
            self._end(
                job, JobState.CANCELLED, reason=f"it ran on {job.host}, which {_HOST} cannot signal"
            )

    def _signal(self, job: QueuedJob, process: Process) -> None:
        """Send the signal that is due, then record it: a crash in between repeats the signal."""
        if job.wish is None:
            self._enforce_time_limit(job, process)
        elif job.wished_at is None:
            process.signal(signal.SIGTERM)
            self._update(job, wished_at=time.monotonic())
        elif not self._has_grace(job):
            process.signal(signal.SIGKILL)

    def _enforce_time_limit(self, job: QueuedJob, process: Process) -> None:
        if job.limit_s is None or job.began is None:
            return
        left = job.began + job.limit_s - time.monotonic()
        lead = job.lead_s if job.lead_s < job.limit_s else job.limit_s / 2
        if left <= 0:
            self._update(job, wish="timeout")
        elif left <= lead and not job.warned:
            process.signal(signal.SIGUSR2 if job.warning == "USR2" else signal.SIGUSR1)
            self._update(job, warned=True)

    def _has_grace(self, job: QueuedJob) -> bool:
        """Return True if a job that is being ended still has grace time."""
        if job.wish is None:
            return False
        wait = self._settings.grace_s if job.wish == "preempt" else self._settings.kill_wait_s
        return job.wished_at is None or time.monotonic() - job.wished_at <= wait

    # -- ending ------------------------------------------------------------------------------------

    def _ended(self, job: QueuedJob, code: int, at: float) -> None:
        """Record the end of a job that left its exit code."""
        # wished_at is missing if a worker was killed after the signal, before recording it
        was_signalled = job.wished_at is not None or code == EXIT_TERMINATED
        request = job.wish if was_signalled else None  # None: the job ended by itself
        values = {"exit_code": code, "ended": at}
        match request:
            case "cancel":
                self._end(job, JobState.CANCELLED, reason="cancelled", **values)
            case _ if code == CONTINUE_EXIT_CODE and job.requeue:
                self._requeue(job, "before its time limit")
            case _ if code == 0:
                self._end(job, JobState.COMPLETED, **values)
            case "preempt":
                self._preempted(job, **values)
            case "timeout":
                self._end(job, JobState.TIMEOUT, reason="time limit", **values)
            case _ if code > 128:  # the shell's exit code for a signal
                self._end(job, JobState.FAILED, signal=code - 128, **values)
            case _:
                self._end(job, JobState.FAILED, **values)

    def _vanished(self, job: QueuedJob) -> None:
        """Record the end of a job that was killed, by this worker or by others."""
        match job.wish:
            case "cancel":
                self._end(job, JobState.CANCELLED, reason="cancelled", signal=signal.SIGKILL)
            case "timeout":
                self._end(job, JobState.TIMEOUT, reason="time limit", signal=signal.SIGKILL)
            case "preempt":
                self._preempted(job, signal=signal.SIGKILL)
            case _ if job_process.prevent_start(self._base(job)):  # killed before it claimed
                self._pause_until = time.monotonic() + _PAUSE_S
                self._requeue(job, _INTERRUPTED)
            case _:
                self._end(job, JobState.NODE_FAILURE, reason="the process disappeared")

    def _preempted(self, job: QueuedJob, **values: object) -> None:
        if job.requeue:
            self._requeue(job, "preempted")
        else:
            self._end(job, JobState.PREEMPTED, reason="preempted", **values)

    def _requeue(self, job: QueuedJob, reason: str) -> None:
        """Put a job at the end of the queue."""
        queued = {"state": JobState.PENDING, "queued": time.time(), "reason": reason}
        cleared = {"wish": None, "wished_at": None}
        if self._update(job, restarts=job.restarts + 1, **queued, **cleared):
            self._forget(job)

    def _end(self, job: QueuedJob, state: JobState, **values: object) -> None:
        if self._update(job, state=state, **{"ended": time.time(), **values}):
            self._forget(job)

    def _update(self, job: QueuedJob, **values: object) -> bool:
        self._stale = True  # also if a request came first: it is read in the next step
        return self._queue.update(job, **values)

    def _forget(self, job: QueuedJob) -> None:
        self._processes.pop(job.id, None)
        job_process.forget(self._base(job))


def _note(text: str) -> None:
    sys.stderr.write(f"{text}\n")  # the worker's log
    sys.stderr.flush()


def _reap() -> None:
    """Wait for children that have ended; those of an earlier worker belong to init."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


# -- the process -----------------------------------------------------------------------------------


def _reset_signals() -> int:
    """Reset the signal handlers, which jobs inherit; return a pipe that is written at job ends."""
    for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2"):
        signal.signal(signal.Signals[name], signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    wakeup, written = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # a job's shell has ended
    signal.set_wakeup_fd(written, warn_on_full_buffer=False)
    return wakeup


def _work_until_idle(worker: Worker, wakeup: int) -> None:
    idle_since = time.monotonic()
    while not worker.is_gone and time.monotonic() - idle_since < worker.idle_s:
        if worker.step():
            idle_since = time.monotonic()
        if not worker.is_stale and select.select([wakeup], [], [], _POLL_S)[0]:
            os.read(wakeup, 4096)


def _work(runs_root: Path, wakeup: int) -> None:
    with closing(Worker(runs_root)) as worker:
        _work_until_idle(worker, wakeup)


def main() -> None:
    """Work until there has been nothing to do for a while; only one worker runs at a time."""
    runs_root = Path(sys.argv[1]).absolute()
    wakeup = _reset_signals()
    queue = LocalQueue(runs_root)
    lock = WorkerLock(queue.folder, *map(int, sys.argv[2:]))
    for _ in range(_ATTEMPTS):
        try:
            if not lock.acquire():
                return
            _work(runs_root, wakeup)
            lock.release()
            if not queue.has_work():
                return  # else: submitted after the last step, by a client that saw the lock
        except (ExecutorUnavailableError, OSError) as e:
            sys.stderr.write(f"{e}\n")
            time.sleep(_PAUSE_S)
        finally:
            lock.release()


if __name__ == "__main__":
    main()
