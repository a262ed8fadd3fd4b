"""The local executor's worker: starts queued jobs, signals them, and writes down how they ended.

It may be killed at any time. Jobs run in sessions of their own and leave their exit code in a file,
and each start is claimed by an exclusive file, so that the next worker finds out what happened and
no job is started twice.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import time
from pathlib import Path

from filelock import Timeout

from mtf import proc, rundir
from mtf.core.causes import CONTINUE_EXIT_CODE
from mtf.core.states import JobState
from mtf.executor.local import worker_lock
from mtf.executor.local_queue import LocalQueue, QueuedJob

_POLL_S = 0.05
_IDLE_S = 10.0  # without work, until the worker ends
_BIRTH_S = 5.0  # in which a process that was started must have claimed its start

# Claims the start exclusively, runs the script, leaves its exit code. The traps keep this shell
# alive through signals to the group; the script's own processes get them with their defaults.
_WRAPPER = """
set -C
read -r stat < /proc/$$/stat
set -- "$1" "$2" ${stat##*) }
echo "$$ $(cat /proc/sys/kernel/random/boot_id) ${22}" 2>/dev/null > "$1.start" || exit 0
trap : TERM USR1 INT
bash "$2"
echo $? > "$1.exit.part" && sync "$1.exit.part" && mv "$1.exit.part" "$1.exit"
"""
_KEPT = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TMPDIR", "TZ", "LD_LIBRARY_PATH",
         "CUDA_VISIBLE_DEVICES", "SHELL")  # fmt: skip  # of the environment; no secrets


class Worker:
    """One pass after another over the queue; all its memory is in the queue and in files."""

    def __init__(
        self, runs_root: Path, max_parallel: int, grace_s: float, kill_wait_s: float
    ) -> None:
        self._queue = LocalQueue(runs_root)
        self._starts = self._queue.folder / "starts"
        self._starts.mkdir(parents=True, exist_ok=True)
        self._max_parallel = max_parallel
        self._wait_s = {"preempt": grace_s, "cancel": kill_wait_s, "timeout": kill_wait_s}

    def pass_once(self) -> bool:
        """Look at every unfinished job once; return whether there is any."""
        _reap()
        for job in self._queue.unfinished():
            if job.state is JobState.RUNNING:
                self._watch(job)
            elif job.wish == "cancel":
                self._end(job, JobState.CANCELLED, reason="before it started")
            elif job.wish is not None:
                self._queue.update(job.id, wish=None)
        jobs = self._queue.unfinished()
        self._start_some(jobs)
        return bool(jobs)

    # -- starting ----------------------------------------------------------------------------------

    def _start_some(self, jobs: list[QueuedJob]) -> None:
        running = [j for j in jobs if j.state is JobState.RUNNING]
        for job in jobs:
            if len(running) >= self._max_parallel:
                return
            alike = sum(r.token == job.token for r in running)
            if job.state is JobState.PENDING and (job.throttle is None or alike < job.throttle):
                self._start(job)
                running.append(job)

    def _base(self, job: QueuedJob) -> Path:
        return self._starts / f"{job.id}.{job.restarts}"

    def _start(self, job: QueuedJob) -> None:
        """Start a job: the intent first, so that a crash in between is seen."""
        self._queue.update(
            job.id, state=JobState.RUNNING, started=time.time(), pid=None, started_with=None,
            warned=0, reason="", exit_code=None, signal=None,
        )  # fmt: skip
        folder = Path(job.run_dir)
        env = {k: os.environ[k] for k in _KEPT if k in os.environ} | {
            "MTF_RUN_DIR": job.run_dir,
            "MTF_JOB_ID": job.job_id,
            "MTF_RESTARTS": str(job.restarts),
        }
        with contextlib.suppress(OSError):  # the vanished folder is seen as a vanished process
            proc.start_detached(
                ("bash", "-c", _WRAPPER, "mtf-job", str(self._base(job)), job.script),
                log=rundir.job_output(folder, job.job_id),
                errors=rundir.job_output(folder, job.job_id, err=True),
                env=env,
            )

    # -- watching ----------------------------------------------------------------------------------

    def _watch(self, job: QueuedJob) -> None:
        code = self._exit_code(job)
        if code is not None:
            self._finished(job, code)
        elif job.pid is None:
            self._find_process(job)
        elif not _is_alive(job):
            # the exit file may have come between our two looks
            code = self._exit_code(job)
            self._finished(job, code) if code is not None else self._vanished(job)
        else:
            self._signal(job)

    def _exit_code(self, job: QueuedJob) -> int | None:
        try:
            return int(self._base(job).with_name(self._base(job).name + ".exit").read_text())
        except (FileNotFoundError, ValueError):
            return None

    def _find_process(self, job: QueuedJob) -> None:
        """Learn the process of a start; shut out one that did not happen, and queue it again."""
        start = self._base(job).with_name(self._base(job).name + ".start")
        try:
            pid, identity = start.read_text().split(maxsplit=1)
        except FileNotFoundError:
            if time.time() - (job.started or 0) < _BIRTH_S:
                return
            with contextlib.suppress(FileExistsError):
                start.open("x").close()
                self._queue.update(job.id, state=JobState.PENDING, restarts=job.restarts + 1)
        except ValueError:  # being written, or shut out by a worker that died then
            if time.time() - (job.started or 0) > _BIRTH_S:
                self._queue.update(job.id, state=JobState.PENDING, restarts=job.restarts + 1)
        else:
            self._queue.update(job.id, pid=int(pid), started_with=identity.strip())

    def _signal(self, job: QueuedJob) -> None:
        now = time.time()
        if job.limit_s is not None and job.started is not None and job.wish is None:
            left = job.started + job.limit_s - now
            if left <= 0:
                self._queue.wish([job.job_id], "timeout")
            elif left <= job.lead_s and not job.warned:
                self._queue.update(job.id, warned=1)
                _kill(job, signal.SIGUSR1)
        elif job.wish is not None and job.wished_at is None:
            self._queue.update(job.id, wished_at=now)
            _kill(job, signal.SIGTERM)
        elif job.wish and job.wished_at and now - job.wished_at > self._wait_s[job.wish]:
            _kill(job, signal.SIGKILL)

    # -- ending ------------------------------------------------------------------------------------

    def _finished(self, job: QueuedJob, code: int) -> None:
        """Write down the end of a job that left its exit code; what is left of its group goes."""
        _kill(job, signal.SIGKILL)
        if code == CONTINUE_EXIT_CODE and job.requeue and job.wish != "cancel":
            self._again(job, "requeued ahead of its time limit")
        elif code == 0:
            self._end(job, JobState.COMPLETED, exit_code=0)
        elif job.wish == "preempt" and code == 128 + signal.SIGTERM:
            self._again(job, "preempted")
        elif job.wish == "cancel":
            self._end(job, JobState.CANCELLED, reason="cancelled", exit_code=code)
        elif job.wish == "timeout":
            self._end(job, JobState.TIMEOUT, reason="time limit", exit_code=code)
        elif code > 128:  # the shell's way to say: by a signal
            self._end(job, JobState.FAILED, exit_code=code, signal=code - 128)
        else:
            self._end(job, JobState.FAILED, exit_code=code)

    def _vanished(self, job: QueuedJob) -> None:
        """Write down the end of a job that was killed, by us or by others."""
        match job.wish:
            case "cancel":
                self._end(job, JobState.CANCELLED, reason="cancelled", signal=signal.SIGKILL)
            case "timeout":
                self._end(job, JobState.TIMEOUT, reason="time limit", signal=signal.SIGKILL)
            case "preempt":
                self._again(job, "preempted")
            case _:
                self._end(job, JobState.NODE_FAILURE, reason="the process vanished")

    def _again(self, job: QueuedJob, reason: str) -> None:
        self._queue.update(
            job.id, state=JobState.PENDING, restarts=job.restarts + 1, reason=reason, wish=None,
            wished_at=None, pid=None, started_with=None,
        )  # fmt: skip

    def _end(self, job: QueuedJob, state: JobState, **values: object) -> None:
        self._queue.update(job.id, state=state, ended=time.time(), **values)


def _reap() -> None:
    """Collect ended children; those of an earlier worker belong to init."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _identity(pid: int) -> str | None:
    """Return what tells this process from another with its pid: boot and start time.

    Source: proc(5), ``/proc/pid/stat``, field 22.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(") ")[2].split()
    return None if fields[0] == "Z" else f"{boot} {fields[19]}"


def _is_alive(job: QueuedJob) -> bool:
    return job.pid is not None and _identity(job.pid) == job.started_with


def _kill(job: QueuedJob, what: signal.Signals) -> None:
    """Signal the job's process group, as SLURM signals a step's processes.

    The group may outlive its leader; a process of another identity means that the pid was reused.
    """
    if job.pid is not None and _identity(job.pid) in (None, job.started_with):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(job.pid, what)


def main() -> None:
    """Work until there has been nothing to do for a while."""
    parser = argparse.ArgumentParser(prog="mtf.executor.local_worker")
    parser.add_argument("runs_root", type=Path)
    parser.add_argument("--max-parallel", type=int, required=True)
    parser.add_argument("--grace", type=float, required=True)
    parser.add_argument("--kill-wait", type=float, required=True)
    args = parser.parse_args()
    worker = Worker(args.runs_root, args.max_parallel, args.grace, args.kill_wait)
    lock = worker_lock(LocalQueue(args.runs_root).folder)
    while True:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return  # there is one already
        _work_until_idle(worker)
        lock.release()
        if not LocalQueue(args.runs_root).unfinished():
            return  # else: submitted after our last look, by somebody who saw our lock


def _work_until_idle(worker: Worker) -> None:
    idle_since = time.monotonic()
    while time.monotonic() - idle_since < _IDLE_S:
        if worker.pass_once():
            idle_since = time.monotonic()
        time.sleep(_POLL_S)


if __name__ == "__main__":
    main()
