"""The one interface that the reconciler knows of an executor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from mtf.core.vocabulary.ids import JobId, Token
    from mtf.core.vocabulary.jobs import JobRequest, JobView, Limits, Submitted


class Executor(Protocol):
    """Submits job requests and says what became of them. Every call costs O(1) processes."""

    name: str  # "slurm" or "local"; stands in the ledger

    def script(self, request: JobRequest) -> str:
        """Return the text that ``submit`` would hand over; pure.

        Raises:
            MtfError: a template of the user is broken.
        """
        ...

    def submit(self, request: JobRequest, script: str) -> Submitted:
        """Submit and return which tasks were taken, as which jobs.

        ``request.job_dir`` exists and holds what the tasks are to run.

        Raises:
            SubmissionRefusedError: final; nothing was submitted.
            SubmissionUncertainError: the jobs may exist; look the token up.
            ExecutorUnavailableError: nothing was submitted; try again later.
        """
        ...

    def jobs(self, names: Mapping[Token, str], since: datetime) -> Collection[JobView]:
        """Return what is known of all tasks of the submissions ``names`` (token to job name).

        A job that the executor has forgotten is simply not among them; one that may be known when
        it can be read as a whole is UNKNOWN. ``since``: no submission asked for is older (aware,
        UTC).

        Raises:
            ExecutorUnavailableError: it cannot be read now.
        """
        ...

    def cancel(self, jobs: Collection[JobId], names: Mapping[Token, str]) -> None:
        """Ask for these jobs to end for good; those over or unknown are passed over.

        So is what bears such an id but none of the ``names``, as given to ``jobs``: ids come around
        again, and then they are somebody else's.

        Raises:
            ExecutorUnavailableError: it cannot be reached now.
            MtfError: it refuses for some of them; the others are ended.
        """
        ...

    def preempt(self, jobs: Collection[JobId], names: Mapping[Token, str]) -> None:
        """Interrupt these jobs as preemption would: signal, grace, then back into the queue.

        Those that do not run are passed over, and what bears none of the ``names``.

        Raises:
            ExecutorUnavailableError: it cannot be reached now.
            MtfError: it refuses for some of them; the others are interrupted.
        """
        ...

    def limits(self) -> Limits:
        """Return what one submission may hold at most.

        Raises:
            ExecutorUnavailableError: it cannot be read now.
        """
        ...
