"""Gathers everything that a plan depends on; changes nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, replace
from datetime import timedelta
from fnmatch import fnmatchcase
from functools import cache, partial
from typing import TYPE_CHECKING

from mtf.core.planner.drift import Drift
from mtf.core.planner.plan import Policy, World
from mtf.core.planner.spec_changes import KeyChange
from mtf.errors import MtfError
from mtf.reconcile.drift_scan import known_submissions
from mtf.reconcile.executors import placement_of, read_limits, with_use
from mtf.reconcile.live.job_views import read_live
from mtf.reconcile.live.look import retry_of
from mtf.reconcile.run_access import (
    abandoned,
    is_elsewhere,
    job_owner,
    owner_if_read_only,
    private_folder,
    read_progress,
    shut_out,
)
from mtf.spec.set_overrides import difference

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from mtf.core.planner.journal_reader import Progress
    from mtf.core.planner.placement import Placement
    from mtf.core.vocabulary.ids import CommitId, JobId, RunId, Token
    from mtf.core.vocabulary.jobs import ArrayLimit
    from mtf.errors import Problem
    from mtf.executor.protocol import Live
    from mtf.ledger.store import Ledger, LedgerStore
    from mtf.project.belief import Belief
    from mtf.project.committed import Specs
    from mtf.reconcile.executors import Executors
    from mtf.spec.schema.settings import Settings


@dataclass(frozen=True)
class Options:
    """The choices of the command line."""

    rev: str | None = None  # instead of the tracked branch's tip
    only: str | None = None  # glob over the names of experiments and grids
    executor: str | None = None
    prune: bool = False
    only_prune: frozenset[RunId] | None = None  # of the runs to prune, those that were agreed to
    # only these recorded runs: nothing new is submitted, and no other run is acted on
    runs: frozenset[RunId] | None = None


@dataclass(frozen=True)
class Target:
    """The commit that the live state is to match."""

    commit: CommitId
    settings: Settings  # of the commit; if it cannot be used, the last settings that could
    read_specs: Callable[[], Specs]
    belief: Belief
    is_usable: bool = True  # False: the problems concern the whole commit, nothing is submitted


@dataclass(frozen=True)
class Situation:
    """The world that a plan is made for, with the settings and the ledger that it was read from."""

    world: World
    policy: Policy
    settings: Settings
    ledger: Ledger
    belief: Belief
    placement: Callable[[], Placement]  # of new runs; asks SLURM when it is first called
    problems: tuple[Problem, ...] = ()  # of the commit
    is_usable: bool = True  # see Target
    # probable mistakes in the specs at these paths
    warnings_on: Callable[[Collection[str]], list[Problem]] = lambda _: []


def gather(
    target: Target,
    ledger: Ledger,
    executors: Executors,
    options: Options,
    find_drift: Callable[[], Drift] = Drift,
    *,
    runs: Collection[RunId] | None = None,
) -> Situation:
    """Read what is committed, recorded and live, each source once.

    The executors answer while drift is looked for and the specs are read. They, and the folders,
    are asked about ``runs``, by default about all active ones.
    """
    with ThreadPoolExecutor(1) as pool:
        look = partial(_look, executors, target.settings.cluster.name, ledger, runs)
        seen_later = pool.submit(copy_context().run, look)
        drift = find_drift()
        specs = target.read_specs()
        seen = seen_later.result()
    known = known_submissions(ledger)
    placement = cache(lambda: placement_of(target.settings, options.executor, ledger.runs.values()))
    world = World(
        commit=target.commit,
        desired=specs.desired,
        records=ledger.runs,
        live=seen.live,
        unreadable=seen.unreadable,
        progress=seen.progress,
        elsewhere=seen.elsewhere,
        private=seen.private,
        known=known,
        taken=known | (drift.branches.submissions if drift.branches else frozenset()),
        abandoned=seen.abandoned,
        shut_out=seen.shut_out,
        can_submit=not seen.unreadable or placement().executor not in seen.unreadable,
        specs_read=not specs.problems,
        respecified=respecified(
            target.belief.store, ledger, specs, target.commit, without=seen.elsewhere
        ),
        limits=seen.limits,
        drift=replace(drift, read_only=seen.read_only, foreign=seen.foreign),
        refused=specs.refused,
    )
    policy = policy_of(target.settings, options)
    return Situation(
        world,
        policy,
        target.settings,
        ledger,
        target.belief,
        placement,
        specs.problems,
        target.is_usable,
        specs.warnings_on,
    )


@dataclass(frozen=True)
class _Seen:
    """What executors, journals and claims say of the active runs."""

    live: Live
    unreadable: Mapping[str, str]
    progress: Mapping[RunId, Progress]
    elsewhere: frozenset[RunId]
    abandoned: frozenset[Token]
    shut_out: Mapping[RunId, JobId | None]
    limits: Mapping[str, Mapping[str, ArrayLimit]]
    private: Mapping[RunId, str]
    read_only: Mapping[RunId, str]
    foreign: Mapping[RunId, str]


def _look(
    executors: Executors, cluster: str, ledger: Ledger, runs: Collection[RunId] | None
) -> _Seen:
    asked = ledger.runs.values() if runs is None else [ledger.runs[run] for run in runs]
    active = [r for r in asked if not r.is_over and r.cluster == cluster]
    elsewhere = frozenset(r.run for r in active if is_elsewhere(executors.runs_root, r))
    private = {r.run: why for r in active if r.run not in elsewhere and (why := private_folder(r))}
    elsewhere |= private.keys()
    active = [r for r in active if r.run not in elsewhere]
    live, unreadable = read_live(executors, active)
    with ThreadPoolExecutor(1) as pool:  # the accounting answers while the journals are read
        accounted = pool.submit(with_use, executors, live, active)
        progress = {r.run: read_progress(r) for r in active}
        live = accounted.result()
    limits, silent = read_limits(executors, active, live)
    unreadable |= silent
    given_up = abandoned(active), shut_out(active, live)
    read_only = {r.run: owner for r in active if (owner := owner_if_read_only(r))}
    # the worker of a local queue that this user can write ends anybody's jobs
    ended_by_owner = [r for r in active if r.executor != "local" or r.run in read_only]
    foreign = {r.run: who for r in ended_by_owner if (who := job_owner(r))}
    others = private, read_only, foreign
    return _Seen(live, unreadable, progress, elsewhere, *given_up, limits, *others)


def respecified(
    store: LedgerStore,
    ledger: Ledger,
    specs: Specs,
    commit: CommitId,
    *,
    asked: Collection[RunId] = (),
    without: Collection[RunId] = (),
) -> dict[RunId, list[KeyChange]]:
    """Return the runs whose specs ask for another execution, with the keys that differ.

    Args:
        store: of the ledger.
        ledger: whose runs they are.
        specs: of the commit.
        commit: that the specs are from.
        asked: runs that are over and that somebody asks about; otherwise only active ones count.
        without: runs to leave out.
    """
    wanted = {
        key: experiment
        for desired, keys in specs.desired
        if desired.name not in specs.refused
        for experiment, key in zip(desired.experiments, keys, strict=True)
    }
    submission = cache(lambda s: store.submission(ledger, s))
    found = {}
    for record in ledger.runs.values():
        experiment = wanted.get(record.key)
        is_same = record.commit == commit and not record.attempt.followed
        is_active = not record.is_over and record.run not in without
        if experiment is None or is_same or not (is_active or record.run in asked):
            continue
        with suppress(MtfError, LookupError, TypeError, ValueError):  # told where it is continued
            config = submission(record.submission).configs[record.member]
            differing = difference(config, record.attempt.followed, experiment.config)
            if differing:
                found[record.run] = [KeyChange(*each) for each in differing]
    return found


def policy_of(settings: Settings, options: Options) -> Policy:
    """Return the planner's policy, from the settings and the command line."""
    only = options.only
    return Policy(
        retry=retry_of(settings),
        prune=options.prune,
        wants=lambda name: only is None or fnmatchcase(name, only),
        cluster=settings.cluster.name,
        progress_every=timedelta(minutes=1),
    )
