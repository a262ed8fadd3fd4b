"""`Executor`: the interface through which the reconciler uses SLURM and the local queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from datetime import datetime

    from mtf.core.sbatch.read_script import JobOptions
    from mtf.core.vocabulary.ids import JobId, Token
    from mtf.core.vocabulary.jobs import (
        ArrayLimit,
        JobRequest,
        JobView,
        Limits,
        Mark,
        Submitted,
        TaskOf,
    )
    from mtf.errors import MtfError


Live = dict[str, dict[tuple["Token", int], "JobView"]]  # by executor, then by token and index


class JobSource(Protocol):
    """Reports the state of jobs."""

    def jobs(
        self, names: Mapping[Token, str], since: datetime, tasks: Collection[TaskOf] | None = None
    ) -> Collection[JobView]:
        """Return the jobs of the submissions in ``names`` (token -> job name).

        Jobs that the executor has forgotten are left out. A job is UNKNOWN if only a part of the
        executor's records can be read now. ``since``: no submission is older (aware, UTC).
        ``tasks``: those that matter, if not all do; one that is gone while other tasks of its array
        are listed is ABSENT.

        Raises:
            ExecutorUnavailableError: the executor cannot be read now.
        """
        ...


class Executor(JobSource, Protocol):
    """Submits job requests and reports the state of jobs. Every call starts O(1) processes."""

    name: str  # "slurm" or "local"; written to the ledger

    def scripts(self, requests: Sequence[JobRequest]) -> list[str | MtfError]:
        """Return the job scripts that ``submit`` would submit, or the error of a template.

        Raises:
            MtfError: the templates take too much time or memory.
        """
        ...

    def options(self, request: JobRequest, script: str) -> JobOptions:
        """Return the options that say what the job of a script takes. Pure.

        Raises:
            MtfError: they cannot be read, or are not those of the request.
        """
        ...

    def refusal(self, request: JobRequest, script: str) -> str | None:
        """Return the reason to refuse a script for good; None: none is known beforehand.

        Nothing is submitted or written.
        """
        ...

    def submit(self, request: JobRequest, script: str) -> Submitted:
        """Submit a request; return the tasks that were accepted and their job ids.

        ``request.job_dir`` exists and contains what the tasks need.

        Raises:
            SubmissionRefusedError: final; nothing was submitted.
            SubmissionUncertainError: the jobs may exist; look them up by the token.
            ExecutorUnavailableError: nothing was submitted; try again later.
        """
        ...

    def used(self, jobs: Collection[JobId], since: datetime) -> Mapping[JobId, Mapping[str, float]]:
        """Return the resources that jobs which have ended used (``mtf.core.usage.used``).

        Those of which nothing is known, perhaps not yet, are left out. ``since``: as for ``jobs``.
        """
        ...

    def cancel(self, jobs: Collection[JobId], marks: Mapping[Token, Mark]) -> Mapping[JobId, str]:
        """Cancel these jobs; those that are over or unknown are skipped.

        A job that is not this user's, or does not have one of the ``marks``, is left alone, and is
        returned with the reason: job ids are reused, and anybody may have written one down.

        Raises:
            ExecutorUnavailableError: the executor cannot be reached now.
            MtfError: it refuses some of them; the others are cancelled.
        """
        ...

    def preempt(self, jobs: Collection[JobId], marks: Mapping[Token, Mark]) -> Mapping[JobId, str]:
        """Interrupt these jobs like a preemption: signal, grace time, then back into the queue.

        Jobs that do not run are skipped; jobs that are not ours are returned, as by ``cancel``.

        Raises:
            ExecutorUnavailableError: the executor cannot be reached now.
            MtfError: it refuses some of them; the others are interrupted.
        """
        ...

    def array_limits(self, numbers: Collection[str]) -> Mapping[str, ArrayLimit]:
        """Return the limits of arrays by number; one whose limits are not known is left out.

        An array's number is that of its jobs, or the token if the executor counts the jobs of a
        grid itself (``throttles.SHARED``).

        Raises:
            ExecutorUnavailableError: the executor cannot be read now.
        """
        ...

    def set_limits(self, limits: Iterable[ArrayLimit]) -> None:
        """Set the limits of arrays, one after another. Tasks that have begun are left alone.

        Raises:
            ExecutorUnavailableError: the executor cannot be reached now.
            MtfError: it refuses one; those after it are not set.
        """
        ...

    def limits(self) -> Limits:
        """Return the limits of one submission.

        Raises:
            ExecutorUnavailableError: the limits cannot be read now.
        """
        ...
