"""Runs experiments again at the tracked branch's tip, in place of runs that are over.

The new runs are submitted like those of a sync, and their claim is the commit that marks the old
runs as superseded. A rerun that dies anywhere has therefore happened as a whole, and the next sync
completes it, or not at all.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mtf.commands.act_on_runs import Rules, check_cluster, executor_of, selected, tip_of
from mtf.commands.sync import executors_of, read_situation, unpushed_note
from mtf.commands.uncommitted import noticing_uncommitted
from mtf.core.planner.plan import plan
from mtf.core.selection.eligibility import Tip, why_a_rerun_is_hopeless, why_not_rerun
from mtf.core.vocabulary.actions import Submit
from mtf.core.vocabulary.ids import name_of
from mtf.errors import MtfError, SpecError
from mtf.reconcile.apply import Application, Report
from mtf.reconcile.cas_retry import with_retries
from mtf.reconcile.gather import Options

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mtf.commands.act_on_runs import Selection
    from mtf.core.vocabulary.actions import Plan
    from mtf.core.vocabulary.ids import CommitId
    from mtf.core.vocabulary.records import RunRecord
    from mtf.ledger.store import Ledger
    from mtf.project.project import Project
    from mtf.reconcile.gather import Situation


def rerun_rules(project: Project, commit: CommitId, ledger: Ledger, *, force: bool) -> Rules:
    """Return the rules of `mtf rerun`; with ``force`` also runs that will probably fail again."""
    return _rules(tip_of(project, commit, ledger), force=force)


def newer_notes(project: Project, found: Selection) -> list[str]:
    """Return notes on changes that a rerun of these runs would not have, and people may expect."""
    branch, notes = project.settings.branch, [unpushed_note(project, found.tip)]
    if found.runs and all(record.commit == found.tip for record in found.runs):
        notes.append(f"{branch} is still at {found.tip[:8]}, which these runs had")
    with noticing_uncommitted(project) as uncommitted:
        return [*(note for note in notes if note), *uncommitted()]


def _rules(tip: Tip, *, force: bool) -> Rules:
    rules = Rules("rerun", lambda record: why_not_rerun(record, tip))
    if force:
        return rules
    return replace(rules, why_hopeless=lambda record: why_a_rerun_is_hopeless(record, tip))


def rerun(
    project: Project,
    names: Sequence[str],
    *,
    where: Sequence[str] = (),
    force: bool = False,
    publish: bool,
    say: Callable[[str], None],
) -> Report:
    """Submit the experiments of these runs again, at the tracked branch's tip.

    The runs are superseded by the new ones, which go to the executor that they were on. Runs that
    are not over, that no spec at the tip asks for, or that were superseded before are left alone;
    ``say`` reports them.

    Raises:
        MtfError: there is no run of a name, none that meets the conditions in ``where``, or none
            of the experiments can be submitted now.
        SpecError: the settings at the tip contain mistakes, or the new runs break a policy.
    """
    store = project.store(publish=publish)

    def once() -> Report:
        now = datetime.now(UTC)
        found = read_situation(project, store, Options(), now)
        if not found.is_usable:
            raise SpecError(list(found.problems))
        tip = _tip(project, found)
        choice = selected(found.ledger, tip.commit, names, where, _rules(tip, force=force))
        for line in choice.left_out:
            say(line)
        old = choice.runs
        check_cluster(project.with_settings(found.settings), old)
        planned = _plan(found, old, now)
        if planned.is_empty:
            return Report(planned, tip.commit)
        executors = executors_of(project.with_settings(found.settings))
        executor = executor_of(old)
        application = Application(
            project.repo, store, executors, found, executor, say, is_asked=True
        )
        return application.carry_out(planned)

    with project.repo.reading():
        return with_retries(once)


def _tip(project: Project, found: Situation) -> Tip:
    keys = frozenset(key for _, keys in found.world.desired for key in keys)
    unread = frozenset(problem.path for problem in found.problems)
    return Tip(found.world.commit, project.settings.branch, keys, unread)


def _plan(found: Situation, old: Sequence[RunRecord], now: datetime) -> Plan:
    """Return the plan that submits the experiments of these runs again, and nothing else.

    Raises:
        MtfError: one of them cannot be submitted now; the message says why.
    """
    names = {name_of(record.run) for record in old}
    again = {record.key: record for record in old}
    policy = replace(found.policy, again=again, prune=False, wants=lambda name: name in names)
    planned = plan(found.world, policy, now)
    new = [a for a in planned.actions if isinstance(a, Submit) and a.supersedes is not None]
    left = again.keys() - {a.key for a in new}
    if left:
        runs = "\n".join(f"{again[key].run} cannot be run again now" for key in sorted(left))
        raise MtfError("\n".join([runs, *planned.notes]))
    return replace(planned.only(tuple(new)), notes=())
