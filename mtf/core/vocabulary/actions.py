"""What a plan is made of: a closed set of actions, each saying what and why."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mtf.core.vocabulary.ids import name_of
from mtf.core.vocabulary.records import RunRecord, SubmissionRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mtf.core.vocabulary.experiments import Desired, Experiment
    from mtf.core.vocabulary.ids import CommitId, JobId, RunId, RunKey
    from mtf.core.vocabulary.records import Origin


@dataclass(frozen=True)
class Submit:
    """Start a run that nobody has recorded yet."""

    run: RunId
    desired: Desired
    experiment: Experiment
    key: RunKey
    reason: str = "new"
    origin: Origin | None = None  # what it is to begin from


@dataclass(frozen=True)
class Resume:
    """Start a further attempt of a recorded run. ``record`` is as observed now."""

    run: RunId
    record: RunRecord
    reason: str
    fence: bool = False  # the last claim has no job: shut it out first
    asked: bool = False  # by a person
    changes: Mapping[str, Any] = field(default_factory=dict)  # of the configuration, from now on


@dataclass(frozen=True)
class Adopt:
    """Take a job that bears a claim's token for that claim's job."""

    run: RunId
    record: RunRecord
    job_id: JobId
    reason: str


@dataclass(frozen=True)
class Record:
    """Write down what has been observed; ``record`` is the new one."""

    run: RunId
    record: RunRecord
    reason: str


@dataclass(frozen=True)
class Cancel:
    """End a run's job for good."""

    run: RunId
    record: RunRecord
    reason: str


@dataclass(frozen=True)
class Restore:
    """Put a record of the ledger back as its history has it. ``run`` may be a submission's id."""

    run: RunId
    record: RunRecord | SubmissionRecord
    reason: str


@dataclass(frozen=True)
class Repin:
    """Put the job branch of a run's submission back at the pinned commit."""

    run: RunId
    record: RunRecord
    reason: str
    found: CommitId | None  # where the branch is now
    on_remote: bool


@dataclass(frozen=True)
class Rebuild:
    """Make the checkout that a run's job uses once more."""

    run: RunId
    record: RunRecord
    reason: str


RunAction = Submit | Resume | Adopt | Record | Cancel  # each leaves a run's record
Repair = Repin | Rebuild  # of things outside the ledger
Action = RunAction | Restore | Repair


def experiment_name(action: Action) -> str:
    """Return the name of the experiment an action is about."""
    match action:
        case Submit():
            return action.experiment.name
        case Restore(record=SubmissionRecord()):
            return owner_name(action)
        case _:
            assert isinstance(action.record, RunRecord)
            return action.record.experiment


def owner_name(action: Action) -> str:
    """Return the name of the spec an action is about: the grid's or the experiment's."""
    return name_of(action.run)


@dataclass(frozen=True)
class Plan:
    """The actions, in the order of their runs' ids, and what is true without any action."""

    actions: tuple[Action, ...]
    unchanged: int  # desired runs that are already there
    notes: tuple[str, ...]  # drift, orphans, things waited for: in words, each with what to do
    waiting: int = 0  # desired runs that begin from others, which are not over
    held: int = 0  # desired runs that are not submitted: their spec breaks a policy

    @property
    def is_empty(self) -> bool:
        """Return whether there is nothing to do."""
        return not self.actions

    def only(self, actions: tuple[Action, ...]) -> Plan:
        """Return the plan with these of its actions alone."""
        return replace(self, actions=actions)
