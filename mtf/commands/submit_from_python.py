"""Submits experiments that somebody asks for at once, by the same reconciler as committed ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mtf import rundir
from mtf.commands.sync import belief_of, check_commit_signed, executors_of
from mtf.commands.uncommitted import Pin, check_snapshot_allowed
from mtf.core.planner.plan import plan
from mtf.core.vocabulary.actions import Submit
from mtf.core.vocabulary.experiments import Asked, run_key
from mtf.core.vocabulary.ids import RunId, RunKey, run_id, submission_id, timestamp
from mtf.core.vocabulary.states import RunState
from mtf.errors import MtfError
from mtf.executor.script import render
from mtf.project.committed import Specs, keys_of
from mtf.project.spec_tree import SpecTree
from mtf.project.template_files import templates_at
from mtf.project.tree_check import check_tree
from mtf.reconcile.apply import Application, Report
from mtf.reconcile.cas_retry import with_retries
from mtf.reconcile.checkout import is_checked_out
from mtf.reconcile.gather import Options, Target, gather
from mtf.reconcile.job_requests import Start, make_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from mtf.core.vocabulary.actions import Plan
    from mtf.core.vocabulary.experiments import Desired
    from mtf.core.vocabulary.ids import CommitId
    from mtf.core.vocabulary.records import RunRecord
    from mtf.ledger.store import Ledger, LedgerStore
    from mtf.project.committed import Keyed
    from mtf.project.project import Project


@dataclass(frozen=True)
class Request:
    """The experiments that somebody asks for at once, and where they are to run."""

    wanted: Sequence[Desired]
    executor: str | None = None  # None: that of the settings
    templates: Mapping[str, str] | None = None  # instead of those of the commit, by name
    pin: Pin | None = None  # None: HEAD
    to_run_here: str = "local=True"  # what asks for the local executor, for people


@dataclass(frozen=True)
class Preview:
    """What would be submitted now."""

    plan: Plan
    keys: frozenset[RunKey]  # of all wanted runs
    scripts: Mapping[RunId, str]  # of the jobs, with tokens that no job has


def submit(
    project: Project, request: Request, *, publish: bool, say: Callable[[str], None]
) -> tuple[Report, frozenset[RunKey]]:
    """Submit the runs that are not recorded yet, pinned to HEAD or to a snapshot.

    Return the report and the keys of all wanted runs. No committed spec asks for these runs, but
    pruning leaves them alone. What another process has left undone of them, killed between claim
    and submission, is completed.

    Raises:
        MtfError: nothing was submitted, for example because a run in ``init_from`` is not over.
    """
    store = project.store(publish=publish)

    def once() -> tuple[Report, frozenset[RunKey]]:
        planned, application, keys = _planned(project, request, store, say)
        return application.carry_out(planned), keys

    with project.repo.reading():
        return with_retries(once)


def preview(project: Project, request: Request) -> Preview:
    """Return the plan that ``submit`` would carry out now, and its scripts; write nothing.

    Raises:
        MtfError: nothing would be submitted.
    """
    with project.repo.reading():
        planned, application, keys = _planned(
            project, request, project.store(publish=False), lambda _: None
        )
        return Preview(planned, keys, application.scripts(planned))


def write_script(
    project: Project,
    desired: Desired,
    templates: Mapping[str, str] | None,
    context: Mapping[str, Any],
) -> Path:
    """Write the script of an experiment's job for SLURM to a file of this clone; return its path.

    Args:
        project: whose settings and HEAD count.
        desired: the experiment.
        templates: instead of those of HEAD, by name.
        context: further values for the template; ``run`` and ``token`` are those of the job.

    Raises:
        MtfError: the template is broken.
    """
    commit, experiment = project.repo.commit("HEAD"), desired.experiments[0]
    new = submission_id(desired.name, timestamp(datetime.now(UTC)), commit)
    run = RunId(context.get("run") or run_id(new, experiment.member))
    start = Start(
        run=run,
        key=RunKey(""),
        commit=commit,
        grid=experiment.grid,
        config=experiment.config,
        max_parallel=desired.max_parallel,
        root=project.runs_root,
        folder=project.repo.prefix.rstrip("/"),
    )
    (batch,) = make_batches([start], 1, lambda: context.get("token") or "0" * 16)
    own = templates_at(project.repo, commit) if templates is None else templates
    further = {key: value for key, value in context.items() if key not in ("run", "token")}
    text = render(batch.request, "slurm", own, context=further)
    path = project.folder / "scripts" / f"{desired.name}.sbatch"
    rundir.make_shared(path.parent, project.repo.common_dir)
    rundir.write_atomically(path, text.encode())
    return path


def _planned(
    project: Project, request: Request, store: LedgerStore, say: Callable[[str], None]
) -> tuple[Plan, Application, frozenset[RunKey]]:
    """Return the plan for a request, what carries it out, and the keys of all its runs.

    Raises:
        MtfError: a run cannot be submitted now, or its commit must not run.
    """
    names = {d.name for d in request.wanted}
    tip = store.fetch(project.settings.branch)
    pin = request.pin or Pin(project.repo.commit("HEAD"))
    tracked = tip or project.repo.find_commit(f"refs/heads/{project.settings.branch}") or pin.commit
    ledger = store.read()
    tree = SpecTree.at(project.repo, pin.commit)
    here = project.with_settings(project.serving(tree.checked().settings))
    if pin.snapshot_of is not None:
        policies = belief_of(here, store, ledger, tracked).settings.policies
        check_snapshot_allowed(project, pin, policies, ledger)
    check_commit_signed(project, pin.commit, tree, ledger, tracked)
    if not is_checked_out(here.runs_root, pin.commit):
        check_tree(project.repo, pin.commit)
    keyed = _Keys(project, pin, tracked, ledger).of(request.wanted)
    belief = belief_of(here, store, ledger, tracked, pin.commit, option="")
    target = Target(pin.commit, here.settings, lambda: Specs(keyed), belief)
    found = gather(target, ledger, executors_of(here), Options(executor=request.executor))
    keys = frozenset(key for _, each in keyed for key in each)
    policy = replace(found.policy, again=_failed(ledger, keyed))
    planned = belief.sift(plan(found.world, policy, datetime.now(UTC)))
    undone = {r.run for r in _of_keys(ledger, keys) if r.job_id is None and not r.is_over}
    new = [
        a
        for a in planned.actions
        if a.run in undone or (isinstance(a, Submit) and a.desired.name in names)
    ]
    placement = replace(found.placement(), to_run_here=request.to_run_here)
    planned = placement.sift(planned.only(tuple(new)))
    if waiting := [n for n in planned.notes if n.split(" ", 1)[0].rstrip(":") in names]:
        raise MtfError("\n".join(waiting))
    if new:
        say(f"new jobs: {placement.text}")
    application = Application(
        project.repo,
        store,
        executors_of(here),
        found,
        placement.executor,
        say,
        is_asked=True,
        templates=request.templates,
    )
    return planned, application, keys


def _failed(ledger: Ledger, keyed: Sequence[Keyed]) -> dict[RunKey, RunRecord]:
    """Return the runs that are to be run again: they are over, and have not completed."""
    asked = {
        key for desired, keys in keyed if desired.asked and desired.asked.by_code for key in keys
    }
    over = [r for r in _of_keys(ledger, asked) if r.is_over]
    return {r.key: r for r in over if r.state is not RunState.COMPLETED}


def _of_keys(ledger: Ledger, keys: Collection[RunKey]) -> list[RunRecord]:
    """Return the runs of these keys that no other run has superseded."""
    return [r for r in ledger.runs.values() if r.key in keys and r.superseded_by is None]


@dataclass(frozen=True)
class _Keys:
    """Makes the keys of runs that are asked for at once."""

    project: Project
    pin: Pin
    tracked: CommitId
    ledger: Ledger

    def of(self, wanted: Sequence[Desired]) -> tuple[Keyed, ...]:
        """Return each wanted spec with the keys of its runs.

        A run counts as that of a committed spec with the same values if it has code of the tracked
        branch. A snapshot does not: a sync would take it for the reviewed run.
        """
        recorded = {record.key for record in self.ledger.runs.values()}
        keyed = []
        for each in wanted:
            d = each
            if self.pin.snapshot_of is not None:
                asked = each.asked or Asked()
                d = replace(each, asked=replace(asked, snapshot_of=self.pin.snapshot_of))
            plain = keys_of(self.project.repo, self.pin.commit, d, recorded)
            keyed.append((d, self._apart(d) if self._is_apart(d, plain) else plain))
        return tuple(keyed)

    def _is_apart(self, desired: Desired, plain: Sequence[RunKey]) -> bool:
        asked, repo, commit = desired.asked, self.project.repo, self.pin.commit
        if asked is None:
            return False
        if asked.snapshot_of or asked.reproduces:
            return True
        if not asked.by_code:
            return False
        same = _of_keys(self.ledger, plain)
        if not same:
            return not repo.is_ancestor(commit, self.tracked)
        return self._code(commit) not in {self._code(record.commit) for record in same}

    def _apart(self, desired: Desired) -> tuple[RunKey, ...]:
        """Return keys that no run of a committed spec has, by the code or the reproduced run."""
        asked, repo, commit = desired.asked, self.project.repo, self.pin.commit
        assert asked is not None
        apart = f"code {self._code(commit)}"
        if asked.reproduces:
            same = (r for r in self.ledger.runs.values() if r.reproduces == asked.reproduces)
            before = [r for r in same if r.is_over]  # one that goes on is this very run
            apart = f"reproduces {asked.reproduces} {len(before)}"
        trees = repo.object_ids(
            commit, sorted({p for e in desired.experiments for p in e.rerun_on})
        )
        return tuple(run_key(e, trees, apart) for e in desired.experiments)

    def _code(self, commit: CommitId) -> str:
        """Return the id of a commit's tree; of one that this clone lacks, its own."""
        found = self.project.repo.whole.object_ids(commit, [""])[""]
        return commit if found == "absent" else found
