"""SLURM as an executor: one `sbatch` a request, one `squeue` and at most one `sacct` a look."""

from __future__ import annotations

import pwd
from collections import defaultdict
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mtf import proc, rundir
from mtf.core.vocabulary.ids import JobId, job_name
from mtf.core.vocabulary.jobs import JobView, Limits, Submitted
from mtf.core.vocabulary.states import JobState
from mtf.errors import (
    ExecutorUnavailableError,
    QueueFullError,
    SubmissionRefusedError,
    SubmissionUncertainError,
)
from mtf.executor.array_indices import render_indices
from mtf.executor.script import FOLDERS, render
from mtf.executor.slurm import job_text
from mtf.executor.slurm.programs import ASK_S, environment

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from mtf.core.vocabulary.ids import Token
    from mtf.core.vocabulary.jobs import JobRequest

_SUBMIT_S = 60.0
# squeue forgets MinJobAge (300 s by default) after its end each task on its own, while others of
# the same array go on: what was submitted longer ago than this may have lost some.
_LONG_AGO = timedelta(minutes=2)
_MOST_BYTES = 100_000  # of names: Linux takes 128 KiB in one argument; with more, all jobs are read


class SlurmExecutor:
    """The cluster whose `sbatch` is on PATH."""

    name = "slurm"

    def __init__(
        self, templates: Mapping[str, str] | None = None, cache: Path | None = None
    ) -> None:
        """Take the user's templates, by name, and a folder for them once they are compiled."""
        self._templates = templates
        self._cache = cache

    def script(self, request: JobRequest) -> str:
        """Return the script that ``submit`` hands over."""
        return render(request, "slurm", self._templates, self._cache)

    def submit(self, request: JobRequest, script: str) -> Submitted:
        """Submit a request with one `sbatch`; see ``Executor.submit``.

        Where a limit of jobs in the queue does not let all of an array in, a half is tried, then a
        half of that: they fill what room there is in as many calls as the array's size has digits.
        """
        path = Path(request.job_dir) / rundir.SCRIPT
        folders = "".join(f"{task.index} {task.run_dir}\n" for task in request.tasks)
        rundir.write_atomically(path.with_name(FOLDERS), folders.encode())
        rundir.write_atomically(path, script.encode())
        left = [task.index for task in request.tasks]
        size, jobs, put_off = len(left), dict[int, JobId](), ""
        while left and size:
            try:
                jobs |= self._sbatch(request, path, left[:size])
                left = left[size:]
            except QueueFullError as e:
                put_off = str(e)
            except (ExecutorUnavailableError, SubmissionRefusedError) as e:
                if not jobs:
                    raise
                put_off = str(e)
                break
            size = (size + 1) // 2 if size > 1 else 0
        return Submitted(jobs, put_off)

    def _sbatch(self, request: JobRequest, path: Path, indices: list[int]) -> dict[int, JobId]:
        """Submit these tasks of a request; the script itself names all of them."""
        part: tuple[str, ...] = ()
        if len(indices) < len(request.tasks):
            throttle = f"%{request.max_parallel}" if request.max_parallel else ""
            part = (f"--array={render_indices(indices)}{throttle}",)
        try:
            answer = proc.run(
                ("sbatch", "--parsable", *part, str(path)), timeout_s=_SUBMIT_S, env=environment()
            )
        except proc.ProgramMissingError as e:
            raise ExecutorUnavailableError(str(e)) from e
        except proc.ProgramTimeoutError as e:
            raise SubmissionUncertainError(str(e)) from e
        number = job_text.parse_job_id(answer.stdout)
        if number is None:
            return self._not_submitted(request, indices, answer)
        if not request.array:
            return {indices[0]: JobId(number)}
        return {index: JobId(f"{number}_{index}") for index in indices}

    def _not_submitted(
        self, request: JobRequest, indices: list[int], answer: proc.Output
    ) -> dict[int, JobId]:
        """Raise what sbatch's text means; an unknown text only when no job bears the token."""
        error = job_text.submission_error(answer.stderr)
        if error is not None:
            raise error
        names = {request.token: job_name(request.name, request.token)}
        try:
            views = [v for v in self._squeue(names) if v.token in names]
        except ExecutorUnavailableError as e:
            raise SubmissionUncertainError(f"{answer.stderr.strip()}; {e}") from e
        if not request.array and views:
            return {indices[0]: views[0].job_id}
        if found := [v.job_id.partition("_")[0] for v in views if v.index in indices]:
            return {index: JobId(f"{found[0]}_{index}") for index in indices}
        if answer.code == 0:
            raise SubmissionUncertainError(f"sbatch gave no job id: {answer.stderr.strip()}")
        raise job_text.refusal(answer.stderr)

    def jobs(self, names: Mapping[Token, str], since: datetime) -> Collection[JobView]:
        """Return what is known of these submissions; see ``Executor.jobs``.

        squeue goes first: it knows a job within milliseconds, sacct after seconds; for what squeue
        may have forgotten sacct is asked too. squeue's word wins.
        """
        views = {(v.token, v.job_id): v for v in self._squeue(names) if v.token in names}
        missing = names.keys() - {token for token, _ in views}
        vague = any(v.state is JobState.CANCELLED for v in views.values())  # by whom?
        forgets = missing or datetime.now(UTC) - since > _LONG_AGO
        if not forgets and not vague:
            return list(views.values())
        try:
            accounted = self._sacct(names, since)
        except ExecutorUnavailableError as e:
            accounted = [_unknown(token, str(e)) for token in names] if forgets else []
        for view in accounted:
            key = view.token, view.job_id
            if view.token in names and (key not in views or _says_more(view, views[key])):
                views[key] = view
        return list(views.values())

    def _squeue(self, names: Mapping[Token, str]) -> list[JobView]:
        fields = ",".join(f"{f}:{job_text.SEPARATOR}" for f in job_text.SQUEUE_FIELDS)
        command = ("squeue", "--noheader", "--states=all", f"--Format={fields}")
        parse = job_text.parse_squeue
        answer = self._ask((*command, *_selection(names)))
        if answer.code:
            parse = job_text.parse_scontrol
            answer = self._ask(("scontrol", "--oneliner", "show", "jobs"))
        if answer.code:
            raise ExecutorUnavailableError(answer.stderr.strip())
        try:
            return parse(answer.stdout)
        except ValueError as e:
            raise ExecutorUnavailableError(f"the queue lists array tasks oddly: {e}") from e

    def _sacct(self, names: Mapping[Token, str], since: datetime) -> list[JobView]:
        """Ask the accounting; a cluster without it has only squeue's word.

        Raises:
            ExecutorUnavailableError: it is there but out of order.
        """
        start = (since - timedelta(minutes=5)).astimezone().strftime("%Y-%m-%dT%H:%M:%S")
        answer = self._ask((
            "sacct", "--allocations", "--allusers", "--noheader", "--parsable2",
            f"--delimiter={job_text.SEPARATOR}",
            f"--format={','.join(job_text.SACCT_FIELDS)}",
            f"--starttime={start}", "--endtime=now", f"--state={job_text.SACCT_STATES}",
            *_selection(names),
        ))  # fmt: skip
        if answer.code == 0:
            return [_with_user(view) for view in job_text.parse_sacct(answer.stdout)]
        if job_text.has_no_accounting(answer.stderr):
            return []
        raise ExecutorUnavailableError(answer.stderr.strip() or "sacct failed")

    def cancel(self, jobs: Collection[JobId], names: Mapping[Token, str]) -> None:
        """End jobs for good; see ``Executor.cancel``."""
        if ours := self._ours(jobs, names):
            self._command(("scancel", "--quiet", *_by_array(ours)))

    def preempt(self, jobs: Collection[JobId], names: Mapping[Token, str]) -> None:
        """Put running jobs back into the queue; they hear TERM, and have KillWait to checkpoint.

        Those that wait, are over or unknown are passed over.
        """
        if ours := self._ours(jobs, names):
            self._command(("scontrol", "requeue", *_by_array(ours)))

    def _ours(self, jobs: Collection[JobId], names: Mapping[Token, str]) -> list[JobId]:
        """Return those of the jobs that the queue knows by these names."""
        if not jobs or not names:
            return []
        known = {view.job_id for view in self._squeue(names) if view.token in names}
        return [job for job in jobs if job in known]

    def _command(self, command: tuple[str, ...]) -> None:
        """Run a command on jobs. SLURM does it to all that it can, whatever it says of the rest."""
        answer = self._ask(command)
        error = job_text.command_error(answer.stderr)
        if error is not None:
            raise error

    def limits(self) -> Limits:
        """Return what one array may hold; see ``Executor.limits``."""
        return self._limits

    @cached_property
    def _limits(self) -> Limits:
        answer = self._ask(("scontrol", "show", "config"))
        size = job_text.max_array_size(answer.stdout)
        if answer.code or size is None:
            raise ExecutorUnavailableError(answer.stderr.strip() or "scontrol show config failed")
        return Limits(max_array_size=size)

    def _ask(self, command: tuple[str, ...]) -> proc.Output:
        env = {**environment(), **job_text.TIME_FORMAT, "SLURM_BITSTR_LEN": "0"}
        try:
            return proc.run(command, timeout_s=ASK_S, env=env)
        except proc.ProgramTimeoutError as e:
            raise ExecutorUnavailableError(str(e)) from e
        except proc.ProgramMissingError as e:
            if command[0] == "sacct":
                return proc.Output(1, "", job_text.NO_ACCOUNTING)
            raise ExecutorUnavailableError(str(e)) from e


def _unknown(token: Token, why: str) -> JobView:
    """Return the view of tasks that squeue may have forgotten while sacct cannot be asked."""
    return JobView(JobId(""), token, None, JobState.UNKNOWN, "", f"accounts cannot be read: {why}")


def _with_user(view: JobView) -> JobView:
    """Return the view with the name of who cancelled the job in place of the number."""
    if view.cancelled_by is None:
        return view
    with suppress(KeyError, ValueError):
        return replace(view, cancelled_by=pwd.getpwuid(int(view.cancelled_by)).pw_name)
    return replace(view, cancelled_by=f"user {view.cancelled_by}")


def _says_more(accounted: JobView, queued: JobView) -> bool:
    """Return whether sacct adds to a cancellation who did it; else squeue's word stands."""
    return queued.state is JobState.CANCELLED and accounted.state is JobState.CANCELLED


def _selection(names: Mapping[Token, str]) -> tuple[str, ...]:
    """Return the option that selects jobs by name; nobody's jobs but ours bear a token."""
    listed = ",".join(names.values())
    return (f"--name={listed}",) if len(listed) <= _MOST_BYTES else ()


def _by_array(jobs: Collection[JobId]) -> list[str]:
    """Return job ids as SLURM's programs take them, one word an array: ``8_[0-9,12]``."""
    tasks: dict[str, list[int]] = defaultdict(list)
    for job in jobs:
        number, _, index = job.partition("_")
        tasks[number] += [int(index)] if index else []
    return [f"{n}_[{render_indices(i)}]" if i else n for n, i in tasks.items()]
