"""Records of the ledger as values: runs, their attempts and checkpoints, and submissions.

Times are ISO 8601 text, UTC, as they stand in the ledger and in ``mtf status --json``. ``unknown``
holds the keys of a record that only a newer mtf knows: they are written back as they were read.
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 -- pydantic reads the annotations of Origin
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mtf.core.vocabulary.causes import Cause
from mtf.core.vocabulary.ids import SINGLE, RunId, label_of, submission_of
from mtf.core.vocabulary.states import OVER, RunState, Sync

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mtf.core.vocabulary.ids import CommitId, JobId, RunKey, SubmissionId, Token

FORMAT = 1  # of the records; a reader refuses a greater one


@dataclass(frozen=True)
class Checkpoint:
    """A durable checkpoint of a run: its place, its step and its checksum."""

    path: str  # absolute
    step: int
    sha256: str
    bytes: int
    epoch: int = 0
    unknown: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Origin:
    """The checkpoint of another run that a run begins from; also in the job's configuration."""

    run: RunId
    path: str  # absolute
    sha256: str
    step: int
    unknown: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Best:
    """The best value of the monitored metric so far."""

    name: str
    value: float
    epoch: int
    step: int
    mode: str = "min"  # or "max": which values are better
    unknown: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Attempt:
    """One job of a run."""

    token: Token
    index: int  # in the job array
    claimed_at: str
    claimed_by: str  # user@host:pid of the submitter
    lease_until: str  # from this time on, another submitter may give the claim up
    job_id: JobId | None = None
    submitted_at: str | None = None
    started_at: str | None = None
    ended_at: str | None = None
    outcome: str | None = None  # a cause of mtf.core.vocabulary.causes
    reason: str = ""
    node: str | None = None
    exit_code: int | None = None
    start_step: int = 0  # of the checkpoint it could start from
    end_step: int | None = None  # of the checkpoint it left: the difference is its progress
    asked: bool = False  # by a person: earlier attempts without progress no longer count
    changes: Mapping[str, Any] = field(default_factory=dict)  # to the configuration, by dotted key
    followed: Mapping[str, Any] = field(default_factory=dict)  # those of its spec since it was made
    put_off: int = 0  # submissions in a row that were neither accepted nor refused for good
    resources: Mapping[str, float] = field(default_factory=dict, hash=False)  # see mtf.core.usage
    unknown: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class RunRecord:
    """Everything that the ledger records about one run."""

    run: RunId
    experiment: str
    grid: str | None
    branch: str  # slurm-job/..., without refs/heads/
    commit: CommitId
    key: RunKey
    generation: int
    spec: str  # path of the spec at the pinned commit
    executor: str
    cluster: str
    state: RunState
    reason: str
    claimed_at: str
    sync: Sync = Sync.SYNCED
    submitted_at: str | None = None
    started_at: str | None = None
    finished_at: str | None = None
    epoch: int | None = None
    max_epochs: int | None = None
    step: int | None = None
    checkpoint: Checkpoint | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    best: Best | None = None
    best_checkpoint: Checkpoint | None = None  # of the epoch with the best value, if saved
    origin: Origin | None = None  # the other run's checkpoint that it began from
    parameters: Mapping[str, Any] = field(default_factory=dict)
    run_dir: str = ""
    folder: str = ""  # of the project in the repository at the pinned commit; empty: its top
    packages: str | None = None  # sha256 of the installed packages, as the job reported
    cancel_requested: bool = False  # through mtf; without it a cancellation was done by hand
    observed_at: str | None = None  # when a sync last wrote this record
    retry_at: str | None = None  # the newest attempt is over; another may start at this time
    wanted: bool = True  # by a committed spec; False: asked for at once, pruning leaves it alone
    superseded_by: RunId | None = None  # the run that `mtf rerun` made in place of this one
    holds_back: int = 0  # members of its grid that waited for it when it was submitted (canary)
    snapshot_of: CommitId | None = None  # its commit is a snapshot of the work tree on this commit
    reproduces: RunId | None = None  # the run that it repeats (`mtf reproduce`)
    trial: bool = False  # a few steps, to see that all fits (`mtf run --fast`)
    attempts: tuple[Attempt, ...] = ()
    unknown: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def submission(self) -> SubmissionId:
        """Return the submission this run belongs to."""
        return submission_of(self.run)

    @property
    def member(self) -> str:
        """Return the name of this run's record in its submission's folder of the ledger."""
        return self.experiment if self.grid else SINGLE

    @property
    def label(self) -> str:
        """Return the short name that people read and type: ``grid/lr=0.01,seed=1``.

        Parameters are called by the last parts of their paths, if these are all different.
        """
        return label_of(self.grid, self.experiment)

    @property
    def attempt(self) -> Attempt:
        """Return the newest attempt. A record always has one."""
        return self.attempts[-1]

    def with_attempt(self, attempt: Attempt) -> RunRecord:
        """Return the record with ``attempt`` in place of its newest one."""
        return replace(self, attempts=(*self.attempts[:-1], attempt))

    def in_state(self, state: RunState, reason: str) -> RunRecord:
        """Return the record in another state; ``replace`` takes ten times as long for each run."""
        made = object.__new__(RunRecord)
        vars(made).update(vars(self), state=state, reason=reason)
        return made

    @property
    def job_id(self) -> JobId | None:
        """Return the newest attempt's job, None while the run is only claimed."""
        return self.attempts[-1].job_id

    @property
    def cause(self) -> str | None:
        """Return the cause of the newest attempt's end, None while it may go on.

        A waiting job that was withdrawn is no end of its run.
        """
        is_withdrawn = self.retry_at is not None and self.attempt.outcome == Cause.CANCELLED
        return self.attempt.outcome if self.attempt.ended_at and not is_withdrawn else None

    @property
    def resources(self) -> Mapping[str, float] | None:
        """Return the resources that the newest attempt which has ended used, None if unknown."""
        return next((a.resources for a in reversed(self.attempts) if a.resources), None)

    @property
    def is_put_off(self) -> bool:
        """Return True if the newest attempt certainly has no job; the next attempt replaces it."""
        return self.retry_at is not None and self.job_id is None

    @property
    def was_refused(self) -> bool:
        """Return True if the executor refused its newest job for good, and none has begun."""
        jobless = self.job_id is None and not self.has_begun
        return self.is_over and jobless and self.attempt.outcome == Cause.SUBMISSION

    @property
    def has_begun(self) -> bool:
        """Return True if a job of this run has started, so that its run folder exists."""
        return self.max_epochs is not None

    @property
    def is_over(self) -> bool:
        """Return True if the recorded state is final."""
        return self.state in OVER


@dataclass(frozen=True)
class SubmissionRecord:
    """The runs that one sync submitted for one spec. Written once, never changed."""

    submission: SubmissionId
    spec: str
    commit: CommitId
    branch: str
    grid: str | None
    created_at: str
    created_by: str
    max_parallel: int | None
    runs: tuple[RunId, ...]
    configs: Mapping[str, Mapping[str, Any]]  # member -> resolved configuration
    unknown: Mapping[str, Any] = field(default_factory=dict, hash=False)


def best_run(records: Iterable[RunRecord]) -> RunRecord | None:
    """Return the run with the best value of the monitored metric, None if no run has a value."""
    ranked = [
        (r.best.value if r.best.mode == "min" else -r.best.value, r) for r in records if r.best
    ]
    return min(ranked, key=lambda pair: pair[0])[1] if ranked else None


def as_dict(
    part: RunRecord | SubmissionRecord | Attempt | Checkpoint | Best | Origin,
) -> dict[str, Any]:
    """Return a record, or a part of one, as JSON values, with the keys that only others know."""
    value = dict(vars(part))
    unknown = value.pop("unknown")
    return {**value, **unknown} if unknown else value
