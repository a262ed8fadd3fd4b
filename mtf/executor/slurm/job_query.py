"""Asks SLURM about jobs: one `squeue`, and `sacct` for what squeue no longer lists."""

from __future__ import annotations

import pwd
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from mtf import proc
from mtf.core.vocabulary.ids import JobId
from mtf.core.vocabulary.jobs import JobView
from mtf.core.vocabulary.states import JobState
from mtf.errors import ExecutorUnavailableError
from mtf.executor.slurm import job_owner, job_text
from mtf.executor.slurm.programs import ASK_S, environment, run
from mtf.executor.slurm.usage_text import USAGE_FIELDS, parse_usage

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from mtf.core.vocabulary.ids import Token
    from mtf.core.vocabulary.jobs import TaskOf

# squeue forgets each task MinJobAge (300 s by default) after its end, while other tasks of the
# array still run: it may have forgotten tasks of submissions that are older than this.
_MAY_BE_FORGOTTEN = timedelta(minutes=2)
_MAX_NAMES_BYTES = 100_000  # Linux allows 128 KiB in one argument; beyond it, all jobs are read
_OVER = frozenset(JobState) - {
    JobState.PENDING,
    JobState.HELD,
    JobState.RUNNING,
    JobState.SUSPENDED,
    JobState.UNKNOWN,
}
_Views = dict[tuple["Token | None", JobId], JobView]  # by token and job


@dataclass(frozen=True)
class JobQuery:
    """Questions to SLURM, each of which may take ``timeout_s`` seconds."""

    timeout_s: float = ASK_S

    def jobs(
        self, names: Mapping[Token, str], since: datetime, tasks: Collection[TaskOf] | None = None
    ) -> Collection[JobView]:
        """Return the jobs of these submissions; see ``Executor.jobs``.

        squeue is asked first: it knows a job within milliseconds, sacct only after seconds. Then
        sacct is asked for jobs that squeue may have forgotten. If both know a job, squeue's view is
        returned.
        """
        queued = [v for v in self.squeue(names) if v.token in names]
        unlisted = _unlisted(tasks or (), queued)
        may_lack_jobs = bool(unlisted)
        if tasks is None:
            missing = names.keys() - {v.token for v in queued}
            may_lack_jobs = bool(missing) or datetime.now(UTC) - since > _MAY_BE_FORGOTTEN
        asked = None if tasks is None else {t.job_id for t in tasks}
        lacks_user = any(
            v.state is JobState.CANCELLED
            and v.cancelled_by is None
            and (asked is None or v.job_id in asked)
            for v in queued
        )
        if not may_lack_jobs and not lacks_user:
            return queued
        views: _Views = {(v.token, v.job_id): v for v in queued}
        try:
            accounted = self._sacct(names, since)
        except ExecutorUnavailableError as e:
            accounted = [_unknown(token, str(e)) for token in names] if may_lack_jobs else []
        for view in accounted:
            key = view.token, view.job_id
            if view.token in names and (key not in views or _adds_user(view, views[key])):
                views[key] = view
        return [*views.values(), *self._gone(unlisted, views, queued)]

    def _gone(
        self, unlisted: Iterable[TaskOf], views: _Views, queued: Iterable[JobView]
    ) -> list[JobView]:
        """Return views of the tasks that squeue does not list by name, and sacct not as over.

        SLURM keeps no record of a task that is cancelled while it waits with others of its array:
        that is ABSENT, if others are listed. A job may also have got another name.
        """
        unclear = {v.token for v in views.values() if not v.job_id}
        gone = {}
        for task in unlisted:
            known = views.get((task.token, task.job_id or JobId("")))
            if task.job_id and task.token not in unclear and not (known and known.state in _OVER):
                gone[task.job_id] = task
        if not gone:
            return []
        try:
            listed = self._by_number({job.partition("_")[0] for job in gone})
        except ExecutorUnavailableError as e:
            return [_view(task, JobState.UNKNOWN, str(e)) for task in gone.values()]
        arrays = {(v.token, v.job_id.partition("_")[0]) for v in queued if v.index is not None}
        found = []
        for job, task in gone.items():
            if job in listed and task.token in listed[job].comment:
                name = listed[job].name
                found.append(_view(task, JobState.UNKNOWN, f"its job has got the name {name!r}"))
            elif "_" in job and (task.token, job.partition("_")[0]) in arrays:
                found.append(_view(task, JobState.ABSENT, ""))
        return found

    def squeue(self, names: Mapping[Token, str]) -> list[JobView]:
        """Return the jobs in the queue of these names, perhaps with others.

        squeue lists waiting tasks of an array on one line, with the reasons of all: where these
        differ, it is asked for each task.

        Raises:
            ExecutorUnavailableError: SLURM does not answer.
        """
        parse = job_text.parse_squeue
        answer = self._queue(*_selection(names))
        if answer.code:
            parse = job_text.parse_scontrol
            answer = self.ask(("scontrol", "--oneliner", "show", "jobs"))
        if answer.code:
            raise ExecutorUnavailableError(answer.stderr.strip())
        views = parse(answer.stdout)
        merged = job_text.merged_arrays(answer.stdout) if parse is job_text.parse_squeue else ()
        if merged:
            each = self._queue("--array", f"--jobs={','.join(merged)}")
            own = {(v.token, v.job_id): v for v in parse(each.stdout)} if not each.code else {}
            views = [own.get((v.token, v.job_id), v) for v in views]
        return views

    def _by_number(self, numbers: Collection[str]) -> dict[str, job_owner.Owned]:
        """Return the jobs in the queue with these numbers, and their tasks, whatever their names.

        Raises:
            ExecutorUnavailableError: SLURM does not answer, or its answer cannot be read.
        """
        fields = ",".join(f"{f}:{job_text.SEPARATOR}" for f in job_owner.FIELDS)
        command = ("squeue", "--noheader", "--states=all", f"--Format={fields}")
        answer = self.ask((*command, f"--jobs={','.join(sorted(numbers))}"))
        if answer.code and not job_text.is_unknown_job(answer.stderr):
            raise ExecutorUnavailableError(answer.stderr.strip())
        try:
            return job_owner.parse(answer.stdout)
        except ValueError as e:
            raise ExecutorUnavailableError(
                f"the queue lists array tasks in an unknown form: {e}"
            ) from e

    def _queue(self, *options: str) -> proc.Output:
        fields = ",".join(f"{f}:{job_text.SEPARATOR}" for f in job_text.SQUEUE_FIELDS)
        command = ("squeue", "--noheader", "--states=all", f"--Format={fields}")
        return self.ask((*command, *options))

    def _sacct(self, names: Mapping[Token, str], since: datetime) -> list[JobView]:
        """Return the jobs in the accounting, none if the cluster has no accounting.

        Raises:
            ExecutorUnavailableError: the accounting does not answer.
        """
        start = (since - timedelta(minutes=5)).astimezone().strftime("%Y-%m-%dT%H:%M:%S")
        command = ("sacct", "--allocations", "--allusers", "--noheader", "--parsable2")
        options = (
            f"--delimiter={job_text.SEPARATOR}",
            f"--format={','.join(job_text.SACCT_FIELDS)}",
            f"--starttime={start}",
            "--endtime=now",
            f"--state={job_text.SACCT_STATES}",
        )
        answer = self.ask((*command, *options, *_selection(names)))
        if answer.code == 0:
            return [_with_user(view) for view in job_text.parse_sacct(answer.stdout)]
        if job_text.has_no_accounting(answer.stderr):
            return []
        raise ExecutorUnavailableError(answer.stderr.strip() or "sacct failed")

    def used(self, jobs: Collection[JobId], since: datetime) -> Mapping[JobId, Mapping[str, float]]:
        """Return the resources that jobs have used, as far as the accounting knows them now."""
        arrays = {job.partition("_")[0] for job in jobs}
        numbers = sorted(number for number in arrays if number.isdecimal())
        if not numbers:
            return {}
        start = (since - timedelta(minutes=5)).astimezone().strftime("%Y-%m-%dT%H:%M:%S")
        command = ("sacct", "--allusers", "--noheader", "--parsable2")
        options = (
            f"--delimiter={job_text.SEPARATOR}",
            f"--format={','.join(USAGE_FIELDS)}",
            f"--starttime={start}",
            "--endtime=now",
            f"--jobs={','.join(numbers)}",
        )
        try:
            answer = self.ask((*command, *options))
        except ExecutorUnavailableError:
            return {}  # they are a help, no more
        return parse_usage(answer.stdout) if answer.code == 0 else {}

    def ask(self, command: tuple[str, ...]) -> proc.Output:
        """Run one of SLURM's programs; a missing sacct answers that there is no accounting.

        Raises:
            ExecutorUnavailableError: the program does not exist or takes too long.
        """
        env = {**environment(), **job_text.TIME_FORMAT, "SLURM_BITSTR_LEN": "0"}
        try:
            return run(command, env, timeout_s=self.timeout_s)
        except proc.ProgramTimeoutError as e:
            raise ExecutorUnavailableError(str(e)) from e
        except proc.ProgramMissingError as e:
            if command[0] == "sacct":
                return proc.Output(1, "", job_text.NO_ACCOUNTING)
            raise ExecutorUnavailableError(str(e)) from e


def _unlisted(tasks: Iterable[TaskOf], queued: Iterable[JobView]) -> list[TaskOf]:
    """Return the tasks that no view is about; a view of a whole array is about all of its tasks."""
    jobs = {(v.token, v.job_id) for v in queued}
    indices = {(v.token, v.index) for v in queued if v.job_id}
    return [
        task
        for task in tasks
        if not (
            {(task.token, task.job_id), (task.token, JobId(task.job_id.partition("_")[0]))} & jobs
            if task.job_id
            else {(task.token, task.index), (task.token, None)} & indices
        )
    ]


def _view(task: TaskOf, state: JobState, reason: str) -> JobView:
    return JobView(task.job_id or JobId(""), task.token, task.index, state, "", reason)


def _unknown(token: Token, why: str) -> JobView:
    """Return the view of jobs that squeue may have forgotten while sacct does not answer."""
    return JobView(
        JobId(""), token, None, JobState.UNKNOWN, "", f"the accounting does not answer: {why}"
    )


def _with_user(view: JobView) -> JobView:
    """Return the view with the name, instead of the number, of the user who cancelled the job."""
    if view.cancelled_by is None or not view.cancelled_by.isdecimal():
        return view
    with suppress(KeyError, ValueError):
        return replace(view, cancelled_by=pwd.getpwuid(int(view.cancelled_by)).pw_name)
    return replace(view, cancelled_by=f"user {view.cancelled_by}")


def _adds_user(accounted: JobView, queued: JobView) -> bool:
    """Return True if both report a cancellation: only sacct names the user who cancelled it."""
    return (
        queued.state is JobState.CANCELLED
        and accounted.state is JobState.CANCELLED
        and queued.cancelled_by is None
    )


def _selection(names: Mapping[Token, str]) -> tuple[str, ...]:
    """Return the option that selects jobs by their names; none if they are too long together."""
    listed = ",".join(names.values())
    return (f"--name={listed}",) if len(listed) <= _MAX_NAMES_BYTES else ()
