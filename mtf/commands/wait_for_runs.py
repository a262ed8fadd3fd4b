"""Reconciles again and again until runs are over, and reports the syncs as one."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mtf.commands.sync import PATIENCE_S, sync_lock, sync_once
from mtf.core.planner.deeds import Deed
from mtf.core.planner.grids.holds import is_held_back
from mtf.core.planner.placement import LOCAL, SLURM
from mtf.project.run_lookup import newest_first
from mtf.reconcile.run_access import is_elsewhere, with_journals

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from mtf.core.vocabulary.ids import RunId
    from mtf.core.vocabulary.records import RunRecord
    from mtf.project.project import Project
    from mtf.reconcile.apply import Report
    from mtf.reconcile.gather import Options

_OPEN = (Deed.UNCLEAR, Deed.PUT_OFF)


@dataclass(frozen=True)
class Waited:
    """The runs that were waited for, as they are now, and all that was done meanwhile."""

    runs: list[RunRecord]
    report: Report | None  # None: nothing had to be waited for


def sync_until_over(
    project: Project,
    options: Options,
    *,
    publish: bool,
    update: Callable[[list[RunRecord]], None],
    every: float | None,
    runs: Collection[RunId] | None = None,
    seen: Collection[RunId] = (),
) -> Waited:
    """Reconcile again and again until these runs, by default all of this clone's, are over.

    The runs in ``seen``, whose end was seen before, are among those that were waited for.

    Runs that are left alone, since their records are not believed, are not waited for, nor those
    that are held back after too many failures.

    The clone's lock is released between reconciliations, so that others may act on runs.

    If ``runs`` are given, only they are reconciled: nothing else that is committed is submitted.

    ``update`` takes the runs, with the progress in their journals, before each reconciliation.
    ``every`` is the pause in seconds, by default 0.5 for the local executor and 5 for a cluster.
    """
    followed = {*(runs or ()), *seen}
    if runs is not None:
        options = replace(options, runs=frozenset(runs))
    left_alone: frozenset[RunId] = frozenset()
    report: Report | None = None
    while True:
        records = project.ledger().runs.values()
        if runs is None:
            followed |= {r.run for r in records if not r.is_over and _can_reconcile(project, r)}
        waited_for = [r for r in newest_first(records) if r.run in followed]
        update(with_journals(waited_for))
        active = [
            r for r in waited_for if not (r.is_over or r.run in left_alone or is_held_back(r))
        ]
        if not active:
            return Waited(waited_for, report)
        time.sleep(every or (0.5 if all(r.executor == "local" for r in active) else 5.0))
        with sync_lock(project, wait_s=PATIENCE_S):
            done = sync_once(project, options, publish=publish, say=lambda _: None)
        left_alone = done.plan.left_alone
        report = together(report, done)


def _can_reconcile(project: Project, record: RunRecord) -> bool:
    """Return True if a sync here may see the end of a run, whatever somebody has recorded."""
    is_known = record.executor in (SLURM, LOCAL)
    is_of_cluster = record.cluster == project.settings.cluster.name
    return is_known and is_of_cluster and not is_elsewhere(project.runs_root, record)


def together(first: Report | None, later: Report) -> Report:
    """Return two syncs as one: all that was done, and what the later one has left.

    Of what happened to a run several times, the newest reason is kept. What was put off or unclear
    and has been settled is left out.
    """
    if first is None:
        return later
    settled = {one.run for one in later.done if one.deed not in _OPEN}
    kept = (one for one in first.done if one.deed not in _OPEN or one.run not in settled)
    done = {(one.deed, one.run): one for one in (*kept, *later.done)}
    notes = tuple(dict.fromkeys((*first.plan.notes, *later.plan.notes)))
    return replace(
        later,
        plan=replace(later.plan, notes=notes),
        submitted={**first.submitted, **later.submitted},
        refused={**first.refused, **later.refused},
        done=tuple(done.values()),
        placement=later.placement or first.placement,
    )
