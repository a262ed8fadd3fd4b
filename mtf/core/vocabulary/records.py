"""The ledger's records as values: what is known of a run, its attempts and its submission.

Times are ISO 8601 text, UTC, as they stand in the ledger and in ``mtf status --json``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mtf.core.vocabulary.ids import SINGLE, RunId, label_of, submission_of
from mtf.core.vocabulary.states import OVER, RunState, Sync

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mtf.core.vocabulary.ids import CommitId, JobId, RunKey, SubmissionId, Token

FORMAT = 1  # of the records; a reader refuses a greater one


@dataclass(frozen=True)
class Checkpoint:
    """Where a run's newest durable checkpoint is, and how to know it again."""

    path: str  # absolute
    step: int
    sha256: str
    bytes: int
    epoch: int = 0


@dataclass(frozen=True)
class Origin:
    """The checkpoint of another run that a run begins from; also in the job's configuration."""

    run: RunId
    path: str  # absolute
    sha256: str
    step: int


@dataclass(frozen=True)
class Best:
    """The best value that the monitored metric has had."""

    name: str
    value: float
    epoch: int
    step: int
    mode: str = "min"  # or "max": which values are better


@dataclass(frozen=True)
class Attempt:
    """One job of a run."""

    token: Token
    index: int  # in the job array
    claimed_at: str
    claimed_by: str  # user@host:pid of the submitter
    lease_until: str  # from then on another submitter may give the claim up
    job_id: JobId | None = None
    submitted_at: str | None = None
    started_at: str | None = None
    ended_at: str | None = None
    outcome: str | None = None  # how it ended: a cause of mtf.core.vocabulary.causes
    reason: str = ""
    node: str | None = None
    exit_code: int | None = None
    start_step: int = 0  # the step of the checkpoint it could start from
    end_step: int | None = None  # the step of the checkpoint it left: progress is the difference
    asked: bool = False  # for by a person: what was fruitless before does not count any more
    changes: Mapping[str, Any] = field(default_factory=dict)  # of the configuration, by dotted key
    put_off: int = 0  # how often in a row its submission has come to nothing that is final


@dataclass(frozen=True)
class RunRecord:
    """All that the ledger knows of one run."""

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
    best_checkpoint: Checkpoint | None = None  # of the best value, where one was saved there
    origin: Origin | None = None  # what it began from, where that is another run
    parameters: Mapping[str, Any] = field(default_factory=dict)
    run_dir: str = ""
    packages: str | None = None  # sha256 of the installed packages, from the job's proof
    cancel_requested: bool = False  # by mtf: otherwise a cancellation is somebody's by hand
    observed_at: str | None = None  # when a sync last wrote this record
    retry_at: str | None = None  # the newest attempt is over; another may start from then on
    wanted: bool = True  # by a committed spec; False: asked for directly, pruning leaves it alone
    attempts: tuple[Attempt, ...] = ()

    @property
    def submission(self) -> SubmissionId:
        """Return the submission this run belongs to."""
        return submission_of(self.run)

    @property
    def member(self) -> str:
        """Return what stands for this run in its submission's folder of the ledger."""
        return self.experiment if self.grid else SINGLE

    @property
    def label(self) -> str:
        """Return the short name people read and type: ``grid/lr=0.01,seed=1`` or the experiment.

        Parameters go by the last part of their path where that tells them apart.
        """
        return label_of(self.grid, self.experiment)

    @property
    def attempt(self) -> Attempt:
        """Return the newest attempt; a record always has one."""
        return self.attempts[-1]

    def with_attempt(self, attempt: Attempt) -> RunRecord:
        """Return the record with ``attempt`` in place of its newest one."""
        return replace(self, attempts=(*self.attempts[:-1], attempt))

    @property
    def job_id(self) -> JobId | None:
        """Return the job of the newest attempt, None while it is only claimed."""
        return self.attempt.job_id

    @property
    def cause(self) -> str | None:
        """Return why the newest attempt has ended, None while it may go on."""
        return self.attempt.outcome if self.attempt.ended_at else None

    @property
    def is_put_off(self) -> bool:
        """Return whether the newest attempt has surely no job, and gives way to the next one."""
        return self.retry_at is not None and self.job_id is None

    @property
    def has_begun(self) -> bool:
        """Return whether a trainer of this run has told of itself: there is a folder of its own."""
        return self.max_epochs is not None

    @property
    def is_over(self) -> bool:
        """Return whether the recorded state is final."""
        return self.state in OVER


@dataclass(frozen=True)
class SubmissionRecord:
    """What one sync submitted for one spec. Written once, never changed."""

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


def best_run(records: Iterable[RunRecord]) -> RunRecord | None:
    """Return the run with the best value of the monitored metric, None when there is no value."""
    ranked = [
        (r.best.value if r.best.mode == "min" else -r.best.value, r) for r in records if r.best
    ]
    return min(ranked, key=lambda pair: pair[0])[1] if ranked else None
