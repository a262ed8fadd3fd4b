"""The SLURM executor: one `sbatch` per request; `job_query` asks about the jobs."""

from __future__ import annotations

import os
import pwd
from collections import defaultdict
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mtf import proc, rundir
from mtf.core.sbatch.section_options import EXPEDITE, knows_expedite, no_expedite
from mtf.core.vocabulary.ids import JobId, job_name
from mtf.core.vocabulary.jobs import Limits, Submitted
from mtf.errors import (
    ExecutorUnavailableError,
    MtfError,
    QueueFullError,
    SubmissionRefusedError,
    SubmissionUncertainError,
)
from mtf.executor.array_indices import render_indices
from mtf.executor.script import FOLDERS, render_all
from mtf.executor.slurm import job_owner, job_text, sbatch_answer
from mtf.executor.slurm.array_limits import array_limits, dependency, set_limits
from mtf.executor.slurm.job_query import JobQuery
from mtf.executor.slurm.programs import environment, unused_options
from mtf.executor.slurm.script_options import script_options

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from datetime import datetime

    from mtf.core.sbatch.read_script import JobOptions
    from mtf.core.vocabulary.ids import Token
    from mtf.core.vocabulary.jobs import ArrayLimit, JobRequest, JobView, Mark, TaskOf

_SUBMIT_S = 60.0
_HELP_S = 10.0  # for facts that nothing depends on


class SlurmExecutor:
    """Runs jobs on the cluster whose `sbatch` is on PATH."""

    name = "slurm"

    def __init__(
        self, templates: Mapping[str, str] | None = None, cache: Path | None = None
    ) -> None:
        """Take the user's templates by name, and the folder for compiled templates."""
        self._templates = templates
        self._cache = cache
        self._query = JobQuery()

    def scripts(self, requests: Sequence[JobRequest]) -> list[str | MtfError]:
        """Return the scripts that ``submit`` passes to sbatch."""
        return render_all(requests, "slurm", self._templates, self._cache)

    def options(self, request: JobRequest, script: str) -> JobOptions:
        """Return the options that sbatch reads in a script; see ``Executor.options``."""
        return script_options(request, script)

    def refusal(self, request: JobRequest, script: str) -> str | None:  # noqa: ARG002 -- a protocol's
        """Return the objection of `sbatch --test-only` to a script; see ``Executor.refusal``."""
        command = ("sbatch", "--test-only")
        try:
            answer = proc.run(command, timeout_s=_SUBMIT_S, stdin=script, env=environment())
        except (proc.ProgramMissingError, proc.ProgramTimeoutError):
            return None
        return job_text.lasting_refusal(answer.stderr) if answer.code else None

    def submit(self, request: JobRequest, script: str) -> Submitted:
        """Submit a request with one `sbatch`; see ``Executor.submit``.

        If a limit on jobs in the queue refuses an array, half of it is tried, half of that, and so
        on. This fills the queue in as many calls as the array's size has binary digits.
        """
        if request.resources["requeue"] == EXPEDITE:
            self._require_expedite()
        path = Path(request.job_dir) / rundir.SCRIPT
        folders = "".join(f"{task.index} {task.run_dir}\n" for task in request.tasks)
        rundir.write_atomically(path.with_name(FOLDERS), folders.encode())
        rundir.write_atomically(path, script.encode())
        waiting = [task.index for task in request.tasks]
        size, jobs, put_off = len(waiting), dict[int, JobId](), ""
        while waiting and size:
            try:
                accepted = self._sbatch(request, path, waiting[:size])
                jobs |= accepted
                waiting = waiting[size:]
                if request.max_parallel:  # which holds for one array
                    number = accepted[min(accepted)].partition("_")[0]
                    request = replace(request, after=(number,))
            except QueueFullError as e:
                put_off = str(e)
            except (ExecutorUnavailableError, SubmissionRefusedError) as e:
                if not jobs:
                    raise
                put_off = str(e)
                break
            size = (size + 1) // 2 if size > 1 else 0
        return Submitted(jobs, put_off)

    def _require_expedite(self) -> None:
        """Refuse ``--requeue=expedite`` where SLURM is too old for it."""
        version = job_text.parse_config(self._config, "SLURM_VERSION") or ""
        if not knows_expedite(version):
            raise SubmissionRefusedError(no_expedite(version))

    def _sbatch(self, request: JobRequest, path: Path, indices: list[int]) -> dict[int, JobId]:
        """Submit some tasks of a request, whose script lists all of its tasks."""
        options: tuple[str, ...] = ()
        if len(indices) < len(request.tasks):
            throttle = f"%{request.max_parallel}" if request.max_parallel else ""
            options = (f"--array={render_indices(indices)}{throttle}",)
        if request.after:
            options = (*options, f"--dependency={dependency(request.after)}")
        command = ("sbatch", "--parsable", *options, str(path))
        try:
            answer = proc.run(command, timeout_s=_SUBMIT_S, env=environment())
        except proc.ProgramMissingError as e:
            raise ExecutorUnavailableError(str(e)) from e
        except proc.ProgramTimeoutError as e:  # it was ended, but may have submitted before
            if accepted := self._accepted(request, indices, str(e)):
                return accepted
            raise SubmissionUncertainError(str(e)) from e
        self._refuse_other_clusters(answer)
        found = sbatch_answer.plain_submission(answer.stdout) if answer.code == 0 else None
        if found is None:
            return self._by_token(request, indices, answer)
        if not request.array:
            return {indices[0]: JobId(found.number)}
        return {index: JobId(f"{found.number}_{index}") for index in indices}

    def _refuse_other_clusters(self, answer: proc.Output) -> None:
        """Cancel what sbatch says that it has submitted to another cluster.

        Raises:
            SubmissionRefusedError: there was such a job.
        """
        named = sbatch_answer.named_clusters(answer.stdout)
        try:
            own = job_text.parse_config(self._config, "ClusterName") if named else None
        except ExecutorUnavailableError as e:
            raise SubmissionUncertainError(f"sbatch named a cluster: {e}") from e
        for job, name in sorted((s.number, s.cluster or "") for s in named):
            if name.lower() == (own or "").lower():
                continue
            ended = self._query.ask(("scancel", f"--clusters={name}", job))
            state = "is cancelled" if ended.code == 0 else "could not be cancelled from here"
            raise SubmissionRefusedError(
                f"sbatch has sent job {job} to cluster {name}, and mtf follows only those of"
                f" {own}. The job {state} (scancel -M {name} {job}). Correct what redirects sbatch"
            )

    def _by_token(
        self, request: JobRequest, indices: list[int], answer: proc.Output
    ) -> dict[int, JobId]:
        """Return the jobs that have the request's token, or raise the error in sbatch's message.

        sbatch has failed, or its answer is not plain. An unknown message is a refusal only if no
        job has the token.
        """
        error = job_text.submission_error(answer.stderr) if answer.code else None
        if error is not None:
            raise error
        if accepted := self._accepted(request, indices, answer.stderr.strip()):
            return accepted
        if answer.code == 0:
            said = answer.stderr.strip()
            raise SubmissionUncertainError(
                "sbatch printed no job id" + (f": {said}" if said else "")
            )
        refusal = job_text.refusal(answer.stderr or answer.stdout)
        unused = unused_options()
        raise SubmissionRefusedError(f"{refusal}. {unused}") if unused else refusal

    def _accepted(
        self, request: JobRequest, indices: list[int], problem: str
    ) -> dict[int, JobId] | None:
        """Return the jobs that have the request's token, None if squeue knows none.

        Raises:
            SubmissionUncertainError: squeue does not answer, or not plainly.
        """
        names = {request.token: job_name(request.name, request.token)}
        try:
            views = [v for v in self._query.squeue(names) if v.token in names]
        except ExecutorUnavailableError as e:
            raise SubmissionUncertainError(f"{problem}; {e}") from e
        if unreadable := next((v for v in views if not v.job_id), None):
            raise SubmissionUncertainError(unreadable.reason)
        if not request.array and views:
            return {indices[0]: views[0].job_id}
        if found := [v.job_id.partition("_")[0] for v in views if v.index in indices]:
            return {index: JobId(f"{found[0]}_{index}") for index in indices}
        return None

    def jobs(
        self, names: Mapping[Token, str], since: datetime, tasks: Collection[TaskOf] | None = None
    ) -> Collection[JobView]:
        """Return the jobs of these submissions; see ``Executor.jobs``."""
        return self._query.jobs(names, since, tasks)

    def used(self, jobs: Collection[JobId], since: datetime) -> Mapping[JobId, Mapping[str, float]]:
        """Return the resources that jobs have used, from one `sacct`; see ``Executor.used``."""
        return JobQuery(_HELP_S).used(jobs, since)

    def cancel(self, jobs: Collection[JobId], marks: Mapping[Token, Mark]) -> Mapping[JobId, str]:
        """Cancel jobs; see ``Executor.cancel``."""
        ours, others = self._ours(jobs, marks)
        if ours:
            self._command(("scancel", "--quiet", *_by_array(ours)))
        return others

    def preempt(self, jobs: Collection[JobId], marks: Mapping[Token, Mark]) -> Mapping[JobId, str]:
        """Requeue running jobs: they get TERM, and have KillWait to save their state.

        Jobs that wait, are over or unknown are skipped.
        """
        ours, others = self._ours(jobs, marks)
        if ours:
            self._command(("scontrol", "requeue", *_by_array(ours)))
        return others

    def array_limits(self, numbers: Collection[str]) -> Mapping[str, ArrayLimit]:
        """Return the limits of arrays; see ``Executor.array_limits``."""
        return array_limits(numbers)

    def set_limits(self, limits: Iterable[ArrayLimit]) -> None:
        """Set the limits of arrays; see ``Executor.set_limits``."""
        set_limits(limits)

    def _ours(
        self, jobs: Collection[JobId], marks: Mapping[Token, Mark]
    ) -> tuple[list[JobId], dict[JobId, str]]:
        """Return the jobs in the queue that are ours, and the others with the reasons."""
        if not jobs:
            return [], {}
        numbers = ",".join(sorted({job.partition("_")[0] for job in jobs if job[0].isdigit()}))
        fields = ",".join(f"{f}:{job_text.SEPARATOR}" for f in job_owner.FIELDS)
        command = ("squeue", "--noheader", "--states=all", f"--Format={fields}")
        parse = job_owner.parse
        try:
            answer = self._query.ask((*command, f"--jobs={numbers}"))
        except ExecutorUnavailableError:  # squeue alone may hang, if a site has replaced it
            answer = self._query.ask(("scontrol", "--oneliner", "show", "jobs"))
            parse = job_owner.parse_scontrol
        if answer.code and not job_text.is_unknown_job(answer.stderr):
            raise ExecutorUnavailableError(answer.stderr.strip())
        user = pwd.getpwuid(os.getuid()).pw_name
        try:
            queued = parse(answer.stdout)
        except ValueError as e:
            raise ExecutorUnavailableError(
                f"the queue lists array tasks in an unknown form: {e}"
            ) from e
        return job_owner.divided(jobs, queued, marks, user)

    def _command(self, command: tuple[str, ...]) -> None:
        """Run a command on jobs. SLURM applies it to as many as it can, and reports the others."""
        answer = self._query.ask(command)
        error = job_text.command_error(answer.stderr)
        if error is not None:
            raise error

    def limits(self) -> Limits:
        """Return the limits of one array; see ``Executor.limits``."""
        return self._limits

    @cached_property
    def _limits(self) -> Limits:
        size = job_text.max_array_size(self._config)
        if size is None:
            raise ExecutorUnavailableError("scontrol show config: no MaxArraySize")
        return Limits(max_array_size=size)

    @cached_property
    def _config(self) -> str:
        answer = self._query.ask(("scontrol", "show", "config"))
        if answer.code:
            raise ExecutorUnavailableError(answer.stderr.strip() or "scontrol show config failed")
        return answer.stdout


def _by_array(jobs: Collection[JobId]) -> list[str]:
    """Return job ids as SLURM's programs accept them, one word for each array: ``8_[0-9,12]``."""
    tasks: dict[str, list[int]] = defaultdict(list)
    for job in jobs:
        number, _, index = job.partition("_")
        tasks[number] += [int(index)] if index else []
    return [f"{n}_[{render_indices(i)}]" if i else n for n, i in tasks.items()]
