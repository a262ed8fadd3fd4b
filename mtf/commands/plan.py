"""What a sync would do now, without doing anything."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mtf.commands.gather import gather
from mtf.core.actions import Plan, Submit
from mtf.core.diff import plan
from mtf.errors import SpecError
from mtf.report.plans import SpecChange

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mtf.commands.gather import Options
    from mtf.commands.project import Project
    from mtf.core.diff import World
    from mtf.core.ids import CommitId


@dataclass(frozen=True)
class Planned:
    """A plan, what it submits of each spec, and the commit it is for."""

    plan: Plan
    specs: tuple[SpecChange, ...]
    commit: CommitId


def plan_sync(project: Project, options: Options) -> Planned:
    """Return what ``mtf sync`` with these options would do now.

    Raises:
        SpecError: what is committed is wrong; a sync would only observe what is recorded.
    """
    now = datetime.now(UTC)
    with project.repo.reading():
        found = gather(project, project.store(publish=False), options, now)
    if found.problems:
        raise SpecError(list(found.problems))
    planned = plan(found.world, found.policy, now)
    return Planned(planned, tuple(_changes(planned, found.world)), found.world.commit)


def _changes(planned: Plan, world: World) -> Iterator[SpecChange]:
    new = {action.key for action in planned.actions if isinstance(action, Submit)}
    for desired, keys in world.desired:
        runs = [e for e, key in zip(desired.experiments, keys, strict=True) if key in new]
        if runs:
            yield SpecChange(desired.name, desired.path, tuple(runs))
