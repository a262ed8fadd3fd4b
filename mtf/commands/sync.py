"""Makes the live state match the committed one, once.

Every effect is either idempotent or guarded by the ledger's compare-and-swap, so the next sync
completes a sync that dies anywhere.
"""

from __future__ import annotations

import stat
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from mtf import rundir
from mtf.commands.uncommitted import noticing_uncommitted
from mtf.core.planner.plan import plan
from mtf.core.vocabulary.actions import Cancel, Submit
from mtf.core.vocabulary.ids import name_of
from mtf.core.vocabulary.spelling import did_you_mean
from mtf.errors import LockedError, RepositoryError, SpecError, not_shared
from mtf.project.belief import Belief
from mtf.project.cluster_check import remarks
from mtf.project.committed import Specs, read_specs
from mtf.project.location.folder import check_only_project
from mtf.project.settings_file import SETTINGS, settings_at
from mtf.project.signatures import check_signed
from mtf.project.spec_tree import SpecTree
from mtf.project.tree_check import check_tree
from mtf.reconcile.cas_retry import with_retries
from mtf.reconcile.checkout import is_checked_out
from mtf.reconcile.drift_scan import scan
from mtf.reconcile.executors import Executors, limits_of
from mtf.reconcile.gather import Target, gather
from mtf.reconcile.run_access import submitter
from mtf.spec.schema.patterns import matches_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from filelock import FileLock

    from mtf.core.planner.drift import Drift
    from mtf.core.vocabulary.actions import Action, Plan
    from mtf.core.vocabulary.ids import CommitId
    from mtf.core.vocabulary.records import RunRecord
    from mtf.errors import Problem
    from mtf.ledger.store import Ledger, LedgerStore
    from mtf.project.project import Project
    from mtf.reconcile.apply import Report
    from mtf.reconcile.gather import Options, Situation
    from mtf.spec.schema.settings import Settings

PATIENCE_S = 300.0  # the wait for a lock that is held for one sync at a time
_MOST_WARNINGS = 10  # that a sync prints
WATCH = "mtf sync --watch"


def sync_once(
    project: Project, options: Options, *, publish: bool, say: Callable[[str], None]
) -> Report:
    """Reconcile once; the caller holds the lock.

    A spec with mistakes submits nothing new; if the settings contain mistakes, no spec does.
    Recorded runs are observed and continued all the same, and the report has the mistakes.

    Args:
        project: the opened repository.
        options: what to reconcile.
        publish: False keeps the ledger's commits in this clone.
        say: takes progress lines for people.

    Raises:
        MtfError: nothing was submitted; the message says why.
    """
    # late: mtf plan reads its world through this module, and apply takes 1/8 of its imports' time
    from mtf.reconcile.apply import Application, Report

    store = project.store(publish=publish)

    def tick() -> Report:
        now = datetime.now(UTC)
        situation = read_situation(project, store, options, now)
        planned = plan_for(situation, options, now)
        if planned.is_empty:
            store.publish()
            done = Report(planned, situation.world.commit, unreadable=situation.world.unreadable)
        else:
            planned = _with_warnings(situation, planned)
            executors = executors_of(project.with_settings(situation.settings))
            executor = situation.placement().executor
            application = Application(project.repo, store, executors, situation, executor, say)
            done = application.carry_out(planned)
            done = replace(done, placement=situation.placement() if done.submitted else None)
        return replace(done, problems=situation.problems, is_usable=situation.is_usable)

    with project.repo.reading():
        return with_retries(tick)


def sync_with_notes(
    project: Project, options: Options, *, publish: bool, say: Callable[[str], None]
) -> Report:
    """Reconcile once, like ``sync_once``, for a person, who is told what is not committed."""
    with noticing_uncommitted(project) as uncommitted:
        done = sync_once(project, options, publish=publish, say=say)
        notes = (*done.plan.notes, *uncommitted())
        return replace(done, plan=replace(done.plan, notes=notes))


def read_situation(
    project: Project, store: LedgerStore, options: Options, now: datetime
) -> Situation:
    """Read what is committed, recorded and live.

    If a spec or the settings contain mistakes, the recorded runs are read all the same.

    Raises:
        RepositoryError: the repository or its remote cannot be read.
    """
    tracked = commit = project.tracked(store)
    if options.rev is not None:
        commit = project.repo.commit(options.rev)
    ledger = store.read_audited()
    tree = SpecTree.at(project.repo, commit, now=now)
    settings, problems = _usable_settings(project, commit, tree, ledger, tracked)
    here = project.with_settings(settings)

    def specs() -> Specs:
        if problems:
            return Specs(problems=problems)
        return read_specs(project.repo, commit, tree, ledger.runs)

    def drift() -> Drift:
        root, remote = project.repo.root, project.remote
        found = scan(store, ledger, here.runs_root, root, remote)
        note = unpushed_note(project, commit) if options.rev is None else None
        return found.with_note(note) if note else found

    belief = belief_of(here, store, ledger, tracked, options.rev)
    target = Target(commit, here.settings, specs, belief, is_usable=not problems)
    known = None if options.runs is None else [r for r in options.runs if r in ledger.runs]
    return gather(target, ledger, executors_of(here), options, drift, runs=known)


def belief_of(
    project: Project,
    store: LedgerStore,
    ledger: Ledger,
    tracked: CommitId,
    rev: str | None = None,
    *,
    option: str = "--rev",
) -> Belief:
    """Return the belief of this clone, which trusts the tracked branch and those it may run.

    Args:
        project: the opened repository.
        store: of the ledger.
        ledger: whose records are to be judged.
        tracked: the tracked branch's tip.
        rev: a revision besides the tracked branch whose commits are to run.
        option: of the command line, that names it.

    Raises:
        RepositoryError: the policies allow only certain branches, and none contains the revision;
            or the ledger is that of another project.
    """
    repo, settings = project.repo, project.settings
    check_only_project(repo, tracked, {record.folder for record in ledger.runs.values()})
    with suppress(SpecError):  # otherwise the last settings that can be used
        settings = settings_at(repo, tracked)
    tips = {project.settings.branch: tracked}
    patterns = settings.policies.branches
    if patterns:
        own, theirs = "refs/heads/", f"refs/remotes/{project.remote}/"
        for ref, tip in repo.refs(own, *([theirs] if project.remote else [])).items():
            name = ref.removeprefix(own).removeprefix(theirs)
            if any(matches_path(pattern, name) for pattern in patterns):
                tips.setdefault(name, tip)
    belief = Belief(repo, store, ledger, settings, project.runs_root, tips)
    if rev is None:
        return belief
    named = repo.commit(rev)
    if patterns is not None and not any(repo.is_ancestor(named, tip) for tip in tips.values()):
        raise RepositoryError(
            f"{option} {rev}: not in the history of".lstrip()
            + f" {' or '.join(tips)}. `policies.branches` in {SETTINGS} names the branches that"
            " may run"
        )
    return replace(belief, tips={**tips, f"--rev {rev}": named})


def plan_for(situation: Situation, options: Options, now: datetime) -> Plan:
    """Return the plan for a situation, with a note if ``--only`` selects nothing in it."""
    planned = situation.belief.sift(plan(situation.world, situation.policy, now))
    if options.runs is not None:
        followed = [a for a in planned.actions if not isinstance(a, Submit)]
        followed = [a for a in followed if a.run in options.runs]
        return replace(planned.only(tuple(followed)), notes=())
    if any(isinstance(action, Submit) for action in planned.actions):
        planned = situation.placement().sift(planned)
    if options.only_prune is not None:
        kept = (a for a in planned.actions if not _is_pruned(a) or a.run in options.only_prune)
        planned = planned.only(tuple(kept))
    world, only = situation.world, options.only
    names = {desired.name for desired, _ in world.desired} | {*world.refused}
    names |= {name_of(run) for run in world.records}
    if only is None or any(fnmatchcase(name, only) for name in names):
        return planned
    known = did_you_mean(only, names) or "mtf plan without --only lists them"
    note = f"--only {only} matches no experiment or grid. {known}"
    return replace(planned, notes=(*planned.notes, note))


def _with_warnings(situation: Situation, planned: Plan) -> Plan:
    """Return a plan with a note for each probable mistake in the specs that it submits."""
    new = {a.desired.path: a.desired for a in planned.actions if isinstance(a, Submit)}
    doubts = {*situation.warnings_on(new), *remarks(new.values(), situation.settings, None)}
    notes = [str(problem) for problem in sorted(doubts)]
    if len(notes) > _MOST_WARNINGS:
        left = len(notes) - _MOST_WARNINGS + 1
        notes = [*notes[:-left], f"{left} more warnings: mtf validate lists them"]
    return replace(planned, notes=(*planned.notes, *notes))


def to_prune(project: Project, options: Options) -> list[RunRecord]:
    """Return the runs that a sync with these options would cancel because their specs are gone."""
    now = datetime.now(UTC)
    with project.repo.reading():
        found = read_situation(project, project.store(publish=False), options, now)
    if not found.is_usable:
        return []  # the sync says why
    actions = plan_for(found, options, now).actions
    return [a.record for a in actions if isinstance(a, Cancel) and _is_pruned(a)]


def _is_pruned(action: Action) -> bool:
    """Return True if an action cancels a run because its spec is gone."""
    return isinstance(action, Cancel) and action.kind == "pruned"


def _usable_settings(
    project: Project, commit: CommitId, tree: SpecTree, ledger: Ledger, tracked: CommitId
) -> tuple[Settings, tuple[Problem, ...]]:
    """Return the settings at a commit; if it must not be used, the project's, and the reason."""
    try:
        check_commit_signed(project, commit, tree, ledger, tracked)
        if not is_checked_out(project.runs_root, commit):  # otherwise it was checked when made
            check_tree(project.repo, commit)
        return project.serving(tree.checked().settings), ()
    except SpecError as e:
        return project.settings, tuple(e.problems)


def check_commit_signed(
    project: Project, commit: CommitId, tree: SpecTree, ledger: Ledger, tracked: CommitId
) -> None:
    """Refuse an unsigned commit, if its own settings or those of the tracked commit do.

    Raises:
        SpecError: it is not signed by an allowed signer.
    """
    policies = [tree.settings.policies]
    with suppress(SpecError):  # mistakes in its settings are reported elsewhere
        policies.append(settings_at(project.repo, tracked).policies)
    for each in policies:
        check_signed(project.repo, commit, each, ledger.runs.values())


def unpushed_note(project: Project, commit: CommitId) -> str | None:
    """Return a note if the tracked branch here has commits that ``commit``, the remote's, lacks."""
    branch = project.settings.branch
    here = project.repo.find_commit(f"refs/heads/{branch}")
    if here is None or here == commit or project.repo.is_ancestor(here, commit):
        return None
    return f"{branch} here has commits that {project.remote} lacks: git push"


def executors_of(project: Project) -> Executors:
    """Return the executors that a project's runs are submitted to."""
    return Executors(project.runs_root, project.folder, limits_of(project.settings.local))


@contextmanager
def sync_lock(project: Project, wait_s: float = 0.0, *, role: str = "mtf sync") -> Iterator[None]:
    """Hold this clone's lock; other clones are kept out by the ledger's compare-and-swap.

    ``role`` is the command that holds the lock. A controller holds it for one sync at a time, so
    this waits for a controller whatever ``wait_s`` is.

    Raises:
        LockedError: another process holds the lock; the message says which.
    """
    from filelock import FileLock, Timeout  # late, as in sync_once

    folder, place = project.folder, project.repo.common_dir
    holder = folder / "sync.holder"
    try:
        rundir.make_shared(folder, place)
        file = folder / "sync.lock"
        if not file.exists():
            file.touch()
            rundir.share(file, place)
        mode = stat.S_IMODE(file.stat().st_mode)  # otherwise FileLock sets one of its own
        # a program that holds the lock (GitOperationLock) may submit: one object for each file
        lock = FileLock(file, mode=mode, fallback_to_soft=False, is_singleton=True)
        try:
            lock.acquire(timeout=wait_s)
        except Timeout:
            _wait_for_controller(lock, holder)
    except PermissionError as e:
        raise RepositoryError(not_shared(str(place), rundir.owner_of(folder))) from e
    try:
        text = f"{submitter()} ({role}, since {datetime.now(UTC):%H:%M:%S} UTC)"
        rundir.remove_temporary_files(holder)
        rundir.write_atomically(holder, text.encode())
        rundir.share(holder, place)
        yield
    finally:
        lock.release()


def _wait_for_controller(lock: FileLock, holder: Path) -> None:
    from filelock import Timeout

    who = (holder.read_text(encoding="utf-8") if holder.exists() else "") or "another process"
    try:
        lock.acquire(timeout=PATIENCE_S if WATCH in who else 0.0)
    except Timeout:
        raise LockedError(f"{who} is syncing this clone. Try again when it is done") from None
