"""Plans and their actions: a closed set, each action with its reason."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeGuard

from mtf.core.vocabulary.ids import name_of
from mtf.core.vocabulary.records import RunRecord, SubmissionRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mtf.core.vocabulary.experiments import Desired, Experiment
    from mtf.core.vocabulary.ids import CommitId, JobId, RunId, RunKey
    from mtf.core.vocabulary.jobs import ArrayLimit
    from mtf.core.vocabulary.records import Origin


@dataclass(frozen=True)
class Submit:
    """Start a run that is not recorded yet."""

    run: RunId
    desired: Desired
    experiment: Experiment
    key: RunKey
    reason: str = "new"
    origin: Origin | None = None  # the checkpoint that it begins from
    supersedes: RunRecord | None = None  # the run that it takes the place of
    holds_back: int = 0  # members of its grid that wait for it (canary)


@dataclass(frozen=True)
class Resume:
    """Start another attempt of a recorded run. ``record`` is as observed now."""

    run: RunId
    record: RunRecord
    reason: str
    fence: bool = False  # the newest claim has no job: fence it first
    asked: bool = False  # for by a person
    changes: Mapping[str, Any] = field(default_factory=dict)  # of the configuration, from now on
    followed: Mapping[str, Any] = field(default_factory=dict)  # those of its spec among them
    withdraws: bool = False  # its newest job waits: shut it out and cancel it first


@dataclass(frozen=True)
class Adopt:
    """Record a job with a claim's token as the job of that claim."""

    run: RunId
    record: RunRecord
    job_id: JobId
    reason: str


@dataclass(frozen=True)
class Record:
    """Write down what was observed; ``record`` is the new one."""

    run: RunId
    record: RunRecord
    reason: str
    withdraws: bool = False  # its newest job waits: shut it out and cancel it first


@dataclass(frozen=True)
class Cancel:
    """Cancel a run and its job for good."""

    run: RunId
    record: RunRecord
    reason: str
    asked: bool = False  # for by a person
    kind: Literal["cancelled", "pruned", "replaced"] = "cancelled"


@dataclass(frozen=True)
class Restore:
    """Restore a record from the ledger's history. ``run`` may be a submission's id."""

    run: RunId
    record: RunRecord | SubmissionRecord
    reason: str


@dataclass(frozen=True)
class Repin:
    """Restore the job branch of a run's submission at the pinned commit."""

    run: RunId
    record: RunRecord
    reason: str
    found: CommitId | None  # the branch's commit now, None if it was deleted
    on_remote: bool


@dataclass(frozen=True)
class Rebuild:
    """Restore the checkout that a run's job uses."""

    run: RunId
    record: RunRecord
    reason: str


@dataclass(frozen=True)
class Throttle:
    """Set how many runs of a grid run at a time. ``run`` is one of them, ``record`` its record."""

    run: RunId
    record: RunRecord
    reason: str
    limits: tuple[ArrayLimit, ...]  # in the order in which they are to be set


RunAction = Submit | Resume | Adopt | Record | Cancel  # each writes a run's record
Repair = Repin | Rebuild  # of things outside the ledger
Action = RunAction | Restore | Repair | Throttle


def withdraws(action: Action) -> TypeGuard[Resume | Record]:
    """Return True if an action first withdraws a job that waits."""
    return isinstance(action, Resume | Record) and action.withdraws


def experiment_name(action: Action) -> str:
    """Return the name of the action's experiment."""
    match action:
        case Submit():
            return action.experiment.name
        case Restore(record=SubmissionRecord()):
            return owner_name(action)
        case _:
            assert isinstance(action.record, RunRecord)
            return action.record.experiment


def owner_name(action: Action) -> str:
    """Return the name of the action's spec: the grid's or the experiment's."""
    return name_of(action.run)


@dataclass(frozen=True)
class Plan:
    """The actions, in the order of their runs' ids, and what needs no action."""

    actions: tuple[Action, ...]
    unchanged: int  # selected runs that are recorded, and that no action concerns
    notes: tuple[str, ...]  # drift, orphans, blocked runs: each says what to do
    waiting: int = 0  # desired runs that begin from runs which are not over
    held: int = 0  # desired runs that are not submitted, since their spec breaks a policy
    waiting_for_slurm: int = 0  # desired runs that this machine, which has none, leaves to others
    left_alone: frozenset[RunId] = frozenset()  # recorded runs that are not believed

    @property
    def is_empty(self) -> bool:
        """Return True if there is nothing to do."""
        return not self.actions

    def only(self, actions: tuple[Action, ...]) -> Plan:
        """Return the plan with only these of its actions."""
        return replace(self, actions=actions)
