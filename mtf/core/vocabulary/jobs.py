"""What is asked of an executor and what it answers: values that cross the executor's border."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from mtf.core.vocabulary.ids import JobId, RunId, Token
    from mtf.core.vocabulary.states import JobState


class Resources(TypedDict):
    """The resolved ``slurm`` section of an experiment, settings' defaults filled in.

    None means "the cluster's default"; ``time`` and ``mem`` are in SLURM's spelling.
    """

    partition: str | None
    account: str | None
    qos: str | None
    nodes: int
    ntasks_per_node: int
    gpus_per_node: int
    cpus_per_task: int
    mem: str | None
    time: str | None
    constraint: str | None
    reservation: str | None
    signal_lead: int  # seconds before the time limit at which USR1 arrives
    requeue: bool
    modules: list[str]
    venv: str | None
    conda: str | None
    container: str | None
    variables: dict[str, str]
    extra: list[str]  # further `#SBATCH` options, each like "--exclusive"


@dataclass(frozen=True)
class Task:
    """One run inside a job request. ``index`` is its place in the array."""

    run: RunId
    index: int
    run_dir: str  # absolute


@dataclass(frozen=True)
class JobRequest:
    """One submission to an executor: runs of one spec that need equal resources.

    ``job_dir`` is a folder of its own for this request (``<submission>/.jobs/<token>``); it holds
    the script, what each task is to run, and what the tasks print. A task makes its run's folder.
    """

    token: Token
    name: str
    tasks: tuple[Task, ...]
    resources: Resources
    code_dir: str  # the read-only checkout of the pinned commit
    job_dir: str
    array: bool  # False: one single experiment, a plain job
    max_parallel: int | None
    python: str  # the interpreter used where `venv`, `conda` and `container` are not set
    module: str = "mtf.trainer"  # what it runs, with the run folder


@dataclass(frozen=True)
class JobView:
    """What the executor says of one task of one job. Times are aware, UTC.

    ``index`` None: of all the tasks of the token that have no view of their own.
    """

    job_id: JobId
    token: Token | None  # None: the job's name does not carry one
    index: int | None
    state: JobState
    raw_state: str  # the executor's own word, for people
    reason: str = ""  # why pending, or how it ended
    exit_code: int | None = None
    signal: int | None = None  # that ended it
    node: str | None = None
    restarts: int = 0
    cancelled_by: str | None = None  # the user who has cancelled it, where that is known
    started_at: datetime | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True)
class Submitted:
    """What an executor has taken of a request: the job of each task, by its index."""

    jobs: Mapping[int, JobId]
    put_off: str = ""  # why the tasks that are not among them have to wait for room in the queue


@dataclass(frozen=True)
class Limits:
    """What one submission to this executor may hold at most."""

    max_array_size: int  # array indices must be below it
