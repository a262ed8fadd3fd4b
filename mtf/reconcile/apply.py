"""Carries a plan out: the last of the three steps of a sync, gather, decide and apply.

`gather` reads the world, the planner decides and `fencing` settles what may be done. Here each
effect is idempotent or guarded by the ledger's compare-and-swap, and their order makes a sync that
is killed anywhere repairable by the next one: claim and pin in one commit, submit, record the jobs
in another commit.
"""

from __future__ import annotations

import itertools
import secrets
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mtf import rundir
from mtf.core.planner.deeds import Done, deeds
from mtf.core.planner.grids.throttles import LiveArray, live_arrays
from mtf.core.vocabulary.actions import (
    Action,
    Cancel,
    Plan,
    Record,
    Repair,
    Restore,
    Resume,
    RunAction,
    Submit,
    Throttle,
    withdraws,
)
from mtf.core.vocabulary.ids import job_branch, name_of, submission_of
from mtf.core.vocabulary.records import RunRecord
from mtf.errors import EXIT_ERROR, EXIT_PARTIAL, MtfError, SpecError
from mtf.ledger.store import Change
from mtf.project.judgement import Judge
from mtf.project.location.folder import at_commit
from mtf.project.sample_scripts import template_problem
from mtf.project.template_files import script_kind, templates_at
from mtf.reconcile.cas_retry import update_records
from mtf.reconcile.checkout import materialise
from mtf.reconcile.claimant import Claimant
from mtf.reconcile.cleanup import sweep_requests
from mtf.reconcile.fencing import Fence
from mtf.reconcile.handover import Handover
from mtf.reconcile.job_requests import (
    Batch,
    Start,
    bridge,
    make_batches,
    no_room,
    placed,
    refused_ahead,
    written_ahead,
)
from mtf.reconcile.record_updates import (
    changed_record,
    claim_message,
    submission_records,
    superseded_records,
    too_large,
    unended,
)
from mtf.reconcile.repair import restore, set_throttle
from mtf.reconcile.summaries import write_summaries
from mtf.report.tables import count
from mtf.spec.set_overrides import changed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from mtf.core.planner.placement import Placement
    from mtf.core.vocabulary.ids import CommitId, JobId, RunId, SubmissionId
    from mtf.core.vocabulary.records import SubmissionRecord
    from mtf.errors import Problem
    from mtf.executor.protocol import Executor
    from mtf.git.repo import GitRepo
    from mtf.ledger.store import Ledger, LedgerStore
    from mtf.project.judgement import Script
    from mtf.reconcile.executors import Executors
    from mtf.reconcile.gather import Situation


_Action = TypeVar("_Action", bound=Action)
Prepared = list[tuple["Executor", Batch, str]]  # each with its script


@dataclass(frozen=True)
class Report:
    """The outcome of one sync."""

    plan: Plan
    commit: CommitId
    submitted: Mapping[RunId, JobId] = field(default_factory=dict)
    refused: Mapping[RunId, str] = field(default_factory=dict)
    uncertain: Mapping[RunId, str] = field(default_factory=dict)  # the next sync looks them up
    put_off: Mapping[RunId, str] = field(default_factory=dict)  # a later sync submits them
    unreadable: Mapping[str, str] = field(default_factory=dict)  # executor -> why
    done: tuple[Done, ...] = ()  # what happened to each run
    problems: tuple[Problem, ...] = ()  # of the commit: nothing that has them was submitted
    is_usable: bool = True  # False: the problems concern the whole commit, nothing was submitted
    placement: Placement | None = None  # of new jobs, if there were any to submit

    @property
    def exit_code(self) -> int:
        """Return 0 if everything could be read and done, else the exit code of an error."""
        if self.problems:
            return EXIT_ERROR
        undone = self.refused or self.uncertain or self.put_off or self.unreadable or self.plan.held
        return EXIT_PARTIAL if undone else 0


@dataclass(frozen=True)
class Application:
    """One plan that is being carried out, with everything that its steps share."""

    repo: GitRepo
    store: LedgerStore
    executors: Executors
    situation: Situation
    executor: str  # the name of the executor that new attempts are submitted to
    say: Callable[[str], None]  # takes progress lines for people
    is_asked: bool = False  # a person asked for these runs: a broken policy is an error
    templates: Mapping[str, str] | None = None  # instead of those of the runs' commits, by name

    def carry_out(self, plan: Plan) -> Report:
        """Do everything that the plan says.

        Raises:
            RefMovedError: another writer was faster; nothing was submitted.
            MtfError: nothing was submitted; or everything was, and the executor refused to cancel
                a job. Where only new attempts are at fault (a template, a
                checkout), the rest of the plan was carried out.
        """
        if plan.is_empty:
            return Report(plan, self.situation.world.commit)
        # once no job of a given-up attempt can interfere
        actions = self._fence().settle(plan.actions)
        for action in actions:
            if isinstance(action, Repair):
                restore(self.repo, self.store, action, self.say)
            elif isinstance(action, Throttle):
                set_throttle(self.executors, action, self.say)
        writing = [a for a in actions if not isinstance(a, Repair | Throttle)]
        starting = [a for a in writing if isinstance(a, Submit | Resume)]
        try:
            prepared, broken = self._prepare(starting)
        except MtfError:
            others = [a for a in writing if not isinstance(a, Submit | Resume)]
            self._apply([a for a in others if not withdraws(a)], [])
            raise
        if stay := self._fence().withdraw(_but_for(writing, broken)):
            writing = _but_for(writing, stay)
            prepared, broken = self._prepare(_but_for(starting, stay))
        outcome = self._apply(_but_for(writing, broken), prepared)
        applied = [a for a in actions if a.run not in {*broken, *stay} or isinstance(a, Repair)]
        return Report(
            _held(plan, broken),
            self.situation.world.commit,
            submitted=outcome.submitted,
            refused=outcome.refused,
            uncertain=outcome.uncertain,
            put_off=outcome.put_off,
            unreadable={**self.situation.world.unreadable, **outcome.unended},
            done=deeds(applied, self.situation.ledger.runs, outcome),
        )

    def scripts(self, plan: Plan) -> dict[RunId, str]:
        """Return the script of each run that the plan starts; nothing is written.

        They are those that ``carry_out`` would submit, except that no job has their tokens.

        Raises:
            MtfError: a template is broken.
            SpecError: some scripts break a policy.
        """
        actions = [a for a in plan.actions if isinstance(a, Submit | Resume)]
        configs = cache(lambda s: self.store.submission(self.situation.ledger, s))
        starts = self._starts(actions, configs)
        opened = self._opened(starts)
        numbers = itertools.count(1)
        sizes = [executor.limits().max_array_size for executor in opened.values()]
        batches = make_batches(starts, min(sizes, default=1), lambda: f"{next(numbers):016x}")
        batches, _ = placed(batches, self._arrays({s.run for s in starts}), self.executor)
        prepared, judged, broken = self._scripts(opened, batches)
        broken |= too_large(actions, self._claimant())
        broken |= self._judge(configs).refused(actions, judged)
        if broken:
            raise SpecError(sorted({p for problems in broken.values() for p in problems}))
        return {start.run: text for _, batch, text in prepared for start in batch.starts}

    def _fence(self) -> Fence:
        cluster = self.situation.settings.cluster.name
        live, at = self.situation.world.live, self._claimant().at
        return Fence(self.situation.ledger, live, self.executors, cluster, at, self.say)

    def _apply(self, actions: Sequence[Action], prepared: Prepared) -> Handover:
        """Commit the claims, submit, record and cancel; return the outcome of each submission."""
        outcome = Handover(
            self.repo.root, self.say, {b.request.token: b.after for _, b, _ in prepared}
        )
        if not actions:
            return outcome
        self._sweep(actions)
        asked = {a.run for a in actions if isinstance(a, Submit) and not a.desired.is_committed}
        ahead = [batch for _, batch, _ in prepared if batch.starts[0].run in asked]
        with written_ahead(ahead, self.repo.root):
            claimed = self._claim(actions, prepared)
        for executor, batch, script in prepared:
            outcome.submit(executor, batch, script)
        final = self._record(claimed, outcome)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(self.repo.tidy)
            self._summarise(
                final,
                [a.run for a in actions if a.run in final.runs and a.run not in outcome.refused],
            )
        # last, so that a job that cannot be cancelled prevents nothing else
        submitted = (final.runs[run] for run in outcome.submitted if run in final.runs)
        overtaken = [r for r in submitted if r.cancel_requested]  # while they were submitted
        cancelled = [a.record for a in actions if isinstance(a, Cancel)]
        if left := outcome.end([*cancelled, *overtaken], self.executors):
            branch, why = self.situation.settings.branch, "mtf: jobs are still to be ended"
            update_records(self.store, branch, left, unended, why)
        return outcome

    def _claimant(self) -> Claimant:
        commit, settings = self.situation.world.commit, self.situation.settings
        root = self.executors.runs_root
        folder = self.repo.prefix.rstrip("/")
        return Claimant.this_process(commit, settings, self.executor, root, folder)

    def _sweep(self, actions: Sequence[Action]) -> None:
        """Remove the job requests of submissions that are about to be over.

        This is done before the ledger says so: if this process dies, the next sync does it again.
        """
        claimant = self._claimant()
        new = [changed_record(a, None, claimant) for a in actions if isinstance(a, Record | Cancel)]
        touched = {r.submission for r in new if r.is_over}
        records = {**self.situation.ledger.runs, **{r.run: r for r in new}}.values()
        sweep_requests(self.executors, [r for r in records if r.submission in touched])

    # -- before anything is written to the ledger --------------------------------------------------

    def _prepare(
        self, actions: Sequence[Submit | Resume]
    ) -> tuple[Prepared, Mapping[RunId, Sequence[Problem]]]:
        """Make checkouts and scripts: a user's mistake in a template fails here, before the claim.

        Return the scripts to submit, and the runs that get none with the policies that are broken.

        Raises:
            MtfError: a template is broken, or the run root cannot be written.
            SpecError: runs that a person asked for break a policy.
        """
        configs = cache(lambda s: self.store.submission(self.situation.ledger, s))
        starts = self._starts(actions, configs)
        opened = self._opened(starts)
        with ThreadPoolExecutor() as pool:  # executors answer while the checkouts are made
            limits = pool.map(lambda e: e.limits(), opened.values())
            pool.submit(lambda: self.repo.identity)  # is cached for the claim
            for root, commit in {(s.root, s.commit) for s in starts}:
                materialise(self.repo, root, commit, self.store.remote, self.say)
            max_size = min((limit.max_array_size for limit in limits), default=1)
        batches = make_batches(starts, max_size, lambda: secrets.token_hex(8))
        batches, waiting = placed(batches, self._arrays({s.run for s in starts}), self.executor)
        prepared, judged, broken = self._scripts(opened, batches)
        specs = {a.run: a.desired.path if isinstance(a, Submit) else a.record.spec for a in actions}
        for batch in waiting:
            problem = no_room(batch, specs[batch.starts[0].run])
            broken |= dict.fromkeys((s.run for s in batch.starts), (problem,))
        broken |= too_large(actions, self._claimant())
        broken |= self._judge(configs).refused(actions, judged)
        broken |= refused_ahead(prepared, {a.run for a in actions if withdraws(a)}, specs)
        if broken and self.is_asked:
            raise SpecError(sorted({p for problems in broken.values() for p in problems}))
        kept = [p for p in prepared if p[1].starts[0].run not in broken]
        bridged = bridge([batch for _, batch, _ in kept], batches)
        return [(e, b, s) for (e, _, s), b in zip(kept, bridged, strict=True)], broken

    def _starts(
        self,
        actions: Iterable[Submit | Resume],
        configs: Callable[[SubmissionId], SubmissionRecord],
    ) -> list[Start]:
        within = cache(lambda commit: at_commit(self.repo, commit).prefix.rstrip("/"))
        starts = (self._start(action, configs) for action in actions)
        return [replace(start, folder=within(start.commit)) for start in starts]

    def _opened(self, starts: Iterable[Start]) -> dict[CommitId, Executor]:
        """Return the executor with the templates of each commit."""

        def templates(commit: CommitId) -> Mapping[str, str]:
            if self.templates is not None:
                return self.templates
            return templates_at(at_commit(self.repo, commit), commit)

        commits = {start.commit for start in starts}
        return {c: self.executors.open(self.executor, templates(c)) for c in commits}

    def _judge(self, configs: Callable[[SubmissionId], SubmissionRecord]) -> Judge:
        return Judge(
            self.situation.belief.settings.policies,  # of the tracked commit, also with --rev
            self.situation.ledger.runs,
            configs,
            self._max_parallel,
        )

    def _scripts(
        self, opened: Mapping[CommitId, Executor], batches: Sequence[Batch]
    ) -> tuple[Prepared, list[Script], dict[RunId, Sequence[Problem]]]:
        """Return the scripts, the options in them, and the runs whose scripts cannot be made.

        Raises:
            MtfError: no script can be made.
        """
        prepared: Prepared = []
        judged: list[Script] = []
        broken: dict[RunId, Sequence[Problem]] = {}
        error: MtfError | None = None
        for commit, executor in opened.items():
            own = [batch for batch in batches if batch.starts[0].commit == commit]
            for batch, script in zip(own, executor.scripts([b.request for b in own]), strict=True):
                try:
                    if isinstance(script, MtfError):
                        raise script
                    judged.append(_judged(executor, batch, script))
                    prepared.append((executor, batch, script))
                except MtfError as e:
                    error = error or e
                    problem = template_problem(str(e), script_kind(self.situation.settings))
                    broken |= dict.fromkeys((start.run for start in batch.starts), (problem,))
        if error and not judged:
            raise error
        return prepared, judged, broken

    def _start(
        self, action: Submit | Resume, submission_record: Callable[[SubmissionId], SubmissionRecord]
    ) -> Start:
        """Return the facts about a run that its next attempt needs."""
        if isinstance(action, Submit):
            e = action.experiment
            return Start(
                run=action.run,
                key=action.key,
                commit=self.situation.world.commit,
                grid=e.grid,
                config=e.config,
                max_parallel=action.desired.max_parallel,
                root=self.executors.runs_root,
                origin=action.origin,
            )
        record = action.record
        submission = submission_record(record.submission)
        changes = {**record.attempt.changes, **action.changes}
        return Start(
            run=action.run,
            key=record.key,
            commit=record.commit,
            grid=record.grid,
            config=changed(submission.configs[record.member], changes),
            max_parallel=self._max_parallel(submission),
            root=rundir.root_of(Path(record.run_dir), record.run),
            origin=record.origin,
        )

    def _arrays(self, without: Collection[RunId]) -> dict[str, list[LiveArray]]:
        """Return the arrays of each grid that may still run jobs, but for those of some runs."""
        world, cluster = self.situation.world, self.situation.settings.cluster.name
        records = (r for r in world.records.values() if r.cluster == cluster)
        others = (r for r in records if r.run not in without)
        return live_arrays(others, world.live, world.limits, world.elsewhere)

    def _max_parallel(self, submission: SubmissionRecord) -> int | None:
        """Return ``max_parallel`` of a grid: the present one, if a spec still asks for it."""
        name = name_of(submission.submission)
        now = {desired.name: desired.max_parallel for desired, _ in self.situation.world.desired}
        return now.get(name, submission.max_parallel)

    # -- the two ledger commits --------------------------------------------------------------------

    def _claim(self, actions: Sequence[Action], prepared: Prepared) -> Ledger:
        """Commit all records that the plan changes, with a new claim for each run that starts."""
        claimant = self._claimant()
        place = {
            start.run: (batch.request.token, index)
            for _, batch, _ in prepared
            for index, start in batch.indices()
        }
        written = [
            changed_record(a, place.get(a.run), claimant)
            for a in actions
            if isinstance(a, RunAction)
            or (isinstance(a, Restore) and isinstance(a.record, RunRecord))
        ]
        change = Change(
            runs=(*written, *superseded_records(actions)),
            submissions=submission_records(actions, claimant),
            branches={
                job_branch(submission_of(a.run)): claimant.commit
                for a in actions
                if isinstance(a, Submit)
            },
        )
        ledger = self.store.append(self.situation.ledger, change, claim_message(actions))
        for submission in change.submissions:
            if f"refs/heads/{submission.branch}" in change.branches:
                number = count(len(submission.runs), "run")
                self.say(f"pinned   {submission.branch} ({number} claimed)")
        for action in actions:
            if isinstance(action, Restore):
                self.say(f"restored {action.run}: {action.reason}")
        return ledger

    def _record(self, ledger: Ledger, outcome: Handover) -> Ledger:
        """Record the outcomes, in current records that still have the claim of this sync."""
        if not outcome.runs:
            return ledger
        tokens = {run: ledger.runs[run].attempt.token for run in outcome.runs}
        retry = self.situation.policy.retry

        def settled(record: RunRecord) -> RunRecord:
            is_ours = record.attempt.token == tokens[record.run]
            return outcome.settled(record, retry) if is_ours else record

        branch = self.situation.settings.branch
        return update_records(
            self.store, branch, outcome.runs, settled, outcome.message, first=ledger
        )

    def _summarise(self, ledger: Ledger, runs: list[RunId]) -> None:
        try:
            write_summaries(self.executors.runs_root, ledger, runs)
        except OSError as e:  # the summaries are copies: the ledger has everything
            self.say(f"note     {e.filename}: {e.strerror}: could not update the summary")


def _judged(executor: Executor, batch: Batch, script: str) -> Script:
    """Return the submission and the resources that a script is for, and the options in it."""
    request = batch.request
    return submission_of(batch.starts[0].run), request.resources, executor.options(request, script)


def _but_for(actions: Iterable[_Action], runs: Collection[RunId]) -> list[_Action]:
    return [action for action in actions if action.run not in runs]


def _held(plan: Plan, broken: Mapping[RunId, Sequence[Problem]]) -> Plan:
    """Return the plan as it was carried out, with a note for each policy that held runs back."""
    runs = Counter(problem for problems in broken.values() for problem in problems)
    notes = [f"{problem}: {count(n, 'run')} held back" for problem, n in sorted(runs.items())]
    actions = tuple(a for a in plan.actions if a.run not in broken)
    return replace(plan, actions=actions, notes=(*plan.notes, *notes), held=plan.held + len(broken))
