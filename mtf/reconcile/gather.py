"""Gathers all that a plan depends on; nothing here changes anything but fetched objects."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from mtf.core.planner.drift import Drift
from mtf.core.planner.plan import Policy, World
from mtf.core.planner.run_update import Retry
from mtf.core.vocabulary.causes import Cause
from mtf.errors import SpecError
from mtf.project.committed import Specs, read_specs
from mtf.project.signatures import check_signed
from mtf.project.spec_tree import SpecTree
from mtf.reconcile.drift_scan import fetched_branches, known_submissions, look_for_drift
from mtf.reconcile.executors import read_live
from mtf.reconcile.run_access import abandoned, is_elsewhere, read_progress, shut_out

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from mtf.core.planner.journal_reader import Progress
    from mtf.core.vocabulary.ids import CommitId, JobId, RunId, Token
    from mtf.errors import Problem
    from mtf.ledger.store import Ledger, LedgerStore
    from mtf.project.project import Project
    from mtf.reconcile.executors import Live
    from mtf.spec.schema.settings import Settings


@dataclass(frozen=True)
class Options:
    """What the command line chooses."""

    rev: str | None = None  # instead of the tracked branch's tip
    only: str | None = None  # glob over the names of experiments and grids
    executor: str | None = None
    prune: bool = False


@dataclass(frozen=True)
class Situation:
    """A world with what it was read from."""

    world: World
    policy: Policy
    settings: Settings
    ledger: Ledger
    problems: tuple[Problem, ...] = ()  # with what is committed
    is_usable: bool = True  # False: they are of the commit as a whole, nothing new can be wanted


def gather(project: Project, store: LedgerStore, options: Options, now: datetime) -> Situation:
    """Read what is committed, recorded and live.

    Where a spec or the settings hold mistakes, what is recorded is read all the same.

    Raises:
        RepositoryError: as its readers say.
    """
    commit = project.tracked(store)
    if options.rev is not None:
        commit = project.repo.commit(options.rev)
    ledger = store.read_whole()
    tree = SpecTree.at(project.repo, commit, now=now)
    settings, problems = _settings(project, commit, tree, ledger)
    with ThreadPoolExecutor(1) as aside:  # the executor answers while the specs are read
        mine = project.with_settings(settings)
        looking = aside.submit(_look, mine, ledger)
        drift = _drift(mine, store, ledger)
        if options.rev is None and _is_unpushed(project, commit):
            branch, remote = project.settings.branch, project.remote
            drift = drift.saying(f"{branch} here has commits that {remote} lacks: git push")
        specs = Specs(problems=problems)
        if not problems:
            specs = read_specs(project.repo, commit, tree, ledger.runs)
        committed = Committed(commit, settings, specs, is_usable=not problems)
        return _situation(ledger, committed, options, looking.result(), drift)


def _settings(
    project: Project, commit: CommitId, tree: SpecTree, ledger: Ledger
) -> tuple[Settings, tuple[Problem, ...]]:
    """Return the settings at a commit; where it must not be used, the last ones known, and why."""
    try:
        check_signed(project.repo, commit, tree.settings.policies, ledger.runs.values())
        return project.serving(tree.checked().settings), ()
    except SpecError as e:
        return project.settings, tuple(e.problems)


def _is_unpushed(project: Project, commit: CommitId) -> bool:
    """Return whether the tracked branch has commits here that are not in what is gone by."""
    here = project.repo.find_commit(f"refs/heads/{project.settings.branch}")
    return here is not None and here != commit and not project.repo.is_ancestor(here, commit)


def _drift(project: Project, store: LedgerStore, ledger: Ledger) -> Drift:
    here = [r for r in ledger.runs.values() if not is_elsewhere(project, r)]
    drift = look_for_drift(project, ledger, here, fetched_branches(store))
    if store.is_ahead:
        drift = drift.saying(f"{project.remote} lacks commits of mtf/ledger: mtf sync pushes it")
    return drift


@dataclass(frozen=True)
class Committed:
    """What a commit asks for."""

    commit: CommitId
    settings: Settings
    specs: Specs
    is_usable: bool = True


def situation(
    project: Project, ledger: Ledger, committed: Committed, options: Options
) -> Situation:
    """Return the world around what is committed."""
    seen = _look(project.with_settings(committed.settings), ledger)
    return _situation(ledger, committed, options, seen, Drift())


@dataclass(frozen=True)
class _Seen:
    """What is known of the active runs beside their records."""

    live: Live
    unreadable: Mapping[str, str]
    progress: Mapping[RunId, Progress]
    elsewhere: frozenset[RunId]
    abandoned: frozenset[Token]
    shut_out: Mapping[RunId, JobId | None]


def _look(project: Project, ledger: Ledger) -> _Seen:
    cluster = project.settings.cluster.name
    active = [r for r in ledger.runs.values() if not r.is_over and r.cluster == cluster]
    elsewhere = frozenset(r.run for r in active if is_elsewhere(project, r))
    active = [r for r in active if r.run not in elsewhere]
    live, unreadable = read_live(project, active)
    progress = {r.run: read_progress(r) for r in active}
    gone, late = abandoned(active), shut_out(active, live)
    return _Seen(live, unreadable, progress, elsewhere, gone, late)


def _situation(
    ledger: Ledger, committed: Committed, options: Options, seen: _Seen, drift: Drift
) -> Situation:
    known, specs = known_submissions(ledger), committed.specs
    world = World(
        commit=committed.commit,
        desired=specs.desired,
        records=ledger.runs,
        live=seen.live,
        unreadable=seen.unreadable,
        progress=seen.progress,
        elsewhere=seen.elsewhere,
        known=known,
        taken=known | (drift.branches.submissions if drift.branches else frozenset()),
        abandoned=seen.abandoned,
        shut_out=seen.shut_out,
        can_submit=not seen.unreadable,
        specs_read=not specs.problems,
        drift=drift,
        refused=specs.refused,
    )
    settings = committed.settings
    policy = policy_of(settings, options)
    return Situation(world, policy, settings, ledger, specs.problems, committed.is_usable)


def policy_of(settings: Settings, options: Options) -> Policy:
    """Return the planner's policy."""
    only = options.only
    return Policy(
        retry=Retry(
            max_attempts=settings.retry.max_attempts,
            on=frozenset(Cause(c) for c in settings.retry.on),
            backoff_s=settings.retry.backoff,
        ),
        prune=options.prune,
        wants=lambda name: only is None or fnmatchcase(name, only),
        cluster=settings.cluster.name,
        progress_every=timedelta(minutes=1),
    )
