"""Values exchanged with executors: job requests, and views of jobs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NotRequired, TypedDict

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
    gpus_per_node: int | str  # a number, or types with numbers like "a100:2"
    cpus_per_task: int
    mem: str | None
    time: str | None
    constraint: str | None
    reservation: str | None
    signal_lead: int  # seconds before the time limit at which ``signal`` arrives
    signal: NotRequired[str]  # "USR1" or "USR2"; missing in records of earlier versions
    requeue: bool | str  # "expedite": requeued ahead of other jobs after the failure of a node
    modules: list[str]
    venv: str | None
    conda: str | None
    container: str | None
    variables: dict[str, str]
    extra: list[str]  # further `#SBATCH` options, each like "--exclusive"


@dataclass(frozen=True)
class Task:
    """One run in a job request. ``index`` is its index in the job array."""

    run: RunId
    index: int
    run_dir: str  # absolute


@dataclass(frozen=True)
class JobRequest:
    """One submission to an executor: runs of one spec that need equal resources.

    ``job_dir`` is a folder for this request alone (``<submission>/.jobs/<token>``): the script, the
    configuration of each task's run, and the tasks' output. A task creates its run's folder.
    """

    token: Token
    name: str
    tasks: tuple[Task, ...]
    resources: Resources
    code_dir: str  # the read-only checkout of the pinned commit
    job_dir: str
    array: bool  # False: one single experiment, a plain job
    max_parallel: int | None  # tasks that may run at a time
    python: str  # the interpreter if `venv`, `conda` and `container` are not set
    module: str = "mtf.trainer"  # the module to run, with the run folder as its argument
    folder: str = ""  # of the project in the checkout, in which its jobs work; empty: its top
    after: tuple[str, ...] = ()  # numbers of jobs that must be over before a task starts

    @property
    def work_dir(self) -> str:
        """Return the folder that the job works in."""
        return f"{self.code_dir}/{self.folder}" if self.folder else self.code_dir

    @property
    def import_path(self) -> tuple[str, ...]:
        """Return the folders that the job imports its code from, as ``import_folders`` does."""
        return tuple(
            f"{self.code_dir}/{f}" if f else self.code_dir for f in import_folders(self.folder)
        )


def import_folders(folder: str) -> tuple[str, ...]:
    """Return the folders of a checkout that jobs of a project import code from, the first first.

    They are the project's folder and its ``src``, then the repository's top and its ``src``.
    """
    top = ("", "src")
    return (folder, f"{folder}/src", *top) if folder else top


@dataclass(frozen=True)
class Mark:
    """The marks that mtf gives the jobs of one request: a job without them is somebody else's."""

    name: str  # contains the token
    job_dir: str  # of the request: the job's script is in it


@dataclass(frozen=True)
class JobView:
    """One task of one job, as its executor reports it. Times are aware, UTC.

    ``index`` None: a view of all tasks of the token that have no view of their own.
    """

    job_id: JobId
    token: Token | None  # None: the job's name contains none
    index: int | None
    state: JobState
    raw_state: str  # in the executor's own words, for people
    reason: str = ""  # why it is pending, or how it ended
    cure: str = ""  # what a person can do for a job that waits; "": it starts by itself
    exit_code: int | None = None
    signal: int | None = None  # the signal that ended it
    node: str | None = None
    restarts: int = 0
    cancelled_by: str | None = None  # the user who cancelled it, if known
    started_at: datetime | None = None
    expected_at: datetime | None = None  # the executor's estimate for the start of one that waits
    ended_at: datetime | None = None
    used: Mapping[str, float] = field(default_factory=dict, hash=False)  # see mtf.core.usage

    def of_task(self, job_id: JobId, index: int) -> JobView:
        """Return the same view of one task; in its cure, ``{job}`` becomes the task's id.

        ``dataclasses.replace`` takes ten times as long, and an array has thousands of tasks.
        """
        made = object.__new__(JobView)
        cure = self.cure.replace("{job}", job_id) if self.cure else ""
        vars(made).update(vars(self), job_id=job_id, index=index, cure=cure)
        return made


@dataclass(frozen=True)
class TaskOf:
    """One task that an executor is asked about. ``job_id`` None: perhaps it has no job."""

    token: Token
    index: int
    job_id: JobId | None = None


@dataclass(frozen=True)
class ArrayLimit:
    """The limits of a submitted array: its throttle, and the jobs that it waits for."""

    number: str  # the array's job id; for the local executor, the token
    throttle: int | None  # None: no limit, or none that is known
    after: frozenset[str] = frozenset()  # numbers of the jobs that must be over first
    is_own: bool = True  # False: it also waits for what a person has said, which is left alone


@dataclass(frozen=True)
class Submitted:
    """The tasks of a request that an executor accepted: their jobs, by index."""

    jobs: Mapping[int, JobId]
    put_off: str = ""  # why the other tasks must wait for room in the queue


@dataclass(frozen=True)
class Limits:
    """The limits of one submission to an executor."""

    max_array_size: int  # array indices must be below it
