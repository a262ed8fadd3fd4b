"""Submits experiments from Python through the same reconciler as committed ones."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mtf.commands.sync import belief_of, check_commit_signed, executors_of
from mtf.core.planner.plan import plan
from mtf.core.vocabulary.actions import Submit
from mtf.errors import MtfError
from mtf.project.committed import Specs, keys_of
from mtf.project.spec_tree import SpecTree
from mtf.reconcile.apply import Application, Report
from mtf.reconcile.cas_retry import with_retries
from mtf.reconcile.gather import Options, Target, gather

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mtf.core.vocabulary.experiments import Desired
    from mtf.core.vocabulary.ids import RunKey
    from mtf.project.project import Project


def submit(
    project: Project,
    wanted: Sequence[Desired],
    *,
    executor: str | None,
    publish: bool,
    say: Callable[[str], None],
) -> tuple[Report, set[RunKey]]:
    """Submit the runs that are not recorded yet, pinned to HEAD.

    Return the report and the keys of all wanted runs. No committed spec asks for these runs, but
    pruning leaves them alone.

    Raises:
        MtfError: nothing was submitted, for example because a run in ``init_from`` is not over.
    """
    store = project.store(publish=publish)
    names = {d.name for d in wanted}

    def once() -> tuple[Report, set[RunKey]]:
        tip = store.fetch(project.settings.branch)
        commit = project.repo.commit("HEAD")
        tracked = tip or project.repo.find_commit(f"refs/heads/{project.settings.branch}") or commit
        ledger = store.read()
        tree = SpecTree.at(project.repo, commit)
        check_commit_signed(project, commit, tree, ledger, tracked)
        recorded = {record.key for record in ledger.runs.values()}
        keyed = tuple((d, keys_of(project.repo, commit, d, recorded)) for d in wanted)
        here = project.with_settings(project.serving(tree.checked().settings))
        belief = belief_of(here, store, ledger, tracked, "HEAD", option="")
        target = Target(commit, here.settings, lambda: Specs(keyed), belief)
        found = gather(target, ledger, executors_of(here), Options(executor=executor))
        planned = plan(found.world, found.policy, datetime.now(UTC))
        new = tuple(a for a in planned.actions if isinstance(a, Submit) and a.desired.name in names)
        planned, name = found.placement().sift(planned.only(new)), found.placement().executor
        if waiting := [n for n in planned.notes if n.split(" ", 1)[0].rstrip(":") in names]:
            raise MtfError("\n".join(waiting))
        say(f"new jobs: {found.placement().text}")
        executors = executors_of(here)
        application = Application(project.repo, store, executors, found, name, say, is_asked=True)
        report = application.carry_out(planned)
        return report, {key for _, keys in keyed for key in keys}

    with project.repo.reading():
        return with_retries(once)
