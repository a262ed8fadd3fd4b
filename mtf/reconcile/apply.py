"""Carries a plan out: claim and pin in one commit, submit, record the jobs in another."""

from __future__ import annotations

import secrets
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from mtf import rundir
from mtf.core.vocabulary.actions import (
    Action,
    Adopt,
    Cancel,
    Plan,
    Record,
    Repair,
    Restore,
    Resume,
    RunAction,
    Submit,
)
from mtf.core.vocabulary.ids import JobId, job_branch, record_path, submission_of
from mtf.core.vocabulary.records import RunRecord
from mtf.errors import (
    EXIT_ERROR,
    EXIT_PARTIAL,
    MtfError,
)
from mtf.ledger.store import Change
from mtf.reconcile.cas_retry import with_retries
from mtf.reconcile.checkout import materialise
from mtf.reconcile.cleanup import sweep_requests
from mtf.reconcile.executors import jobs_of, open_executor
from mtf.reconcile.fencing import end_rivals
from mtf.reconcile.handover import Handover
from mtf.reconcile.job_requests import Batch, Start, make_batches
from mtf.reconcile.record_updates import (
    Claimant,
    changed_record,
    submission_records,
    with_job,
)
from mtf.reconcile.repair import put_back
from mtf.reconcile.run_access import submitter
from mtf.reconcile.summaries import write_summaries
from mtf.report.tables import count
from mtf.spec.set_overrides import changed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mtf.core.vocabulary.ids import CommitId, RunId, SubmissionId
    from mtf.core.vocabulary.records import SubmissionRecord
    from mtf.errors import Problem
    from mtf.executor.protocol import Executor
    from mtf.ledger.store import Ledger, LedgerStore
    from mtf.project.project import Project
    from mtf.reconcile.gather import Situation

Prepared = list[tuple["Executor", Batch, str]]  # each with its script


@dataclass(frozen=True)
class Report:
    """What one sync did."""

    plan: Plan
    commit: CommitId
    submitted: Mapping[RunId, JobId] = field(default_factory=dict)
    refused: Mapping[RunId, str] = field(default_factory=dict)
    uncertain: Mapping[RunId, str] = field(default_factory=dict)  # the next sync looks them up
    put_off: Mapping[RunId, str] = field(default_factory=dict)  # a later sync submits them
    unreadable: Mapping[str, str] = field(default_factory=dict)  # executor -> why
    problems: tuple[Problem, ...] = ()  # with what is committed: nothing of that was submitted
    is_usable: bool = True  # False: they are of the commit as a whole, so nothing new was at all

    @property
    def exit_code(self) -> int:
        """Return 0 when all was seen and done that was to be, else the code for a part of it."""
        if self.problems:
            return EXIT_ERROR
        bad = self.refused or self.uncertain or self.put_off or self.unreadable or self.plan.held
        return EXIT_PARTIAL if bad else 0


@dataclass(frozen=True)
class Application:
    """One plan being carried out: what its steps share, and nothing that outlives it."""

    project: Project
    store: LedgerStore
    situation: Situation
    executor: str  # the name of the one that new attempts go to
    say: Callable[[str], None]  # takes progress lines for people

    def carry_out(self, plan: Plan) -> Report:
        """Do everything the plan says.

        Raises:
            RefMovedError: another writer was faster; nothing was submitted.
            MtfError: nothing was submitted; or all was, and a job could not be ended, which a later
                sync tries again. Where only what starts is in the way (a template, a checkout), all
                the rest of the plan has been done.
        """
        commit = self.situation.world.commit
        if plan.is_empty:
            return Report(plan, commit)
        for action in plan.actions:
            if isinstance(action, Repair):
                put_back(self.project, self.store, action, self.say)
        actions = [self._fenced(a) for a in self._without_rivals(plan)]
        if not actions:
            return Report(plan, commit, unreadable=self.situation.world.unreadable)
        starting = [a for a in actions if isinstance(a, Submit | Resume)]
        configs = cache(lambda s: self.store.submission(self.situation.ledger, s))
        try:
            prepared = self._prepare([self._start(a, configs) for a in starting])
        except MtfError:
            self.carry_out(plan.only(tuple(a for a in actions if a not in starting)))
            raise
        self._sweep(actions)
        claimed = self._claim(actions, prepared)
        outcome = Handover(self.project.repo.root, self.say)
        for executor, batch, script in prepared:
            outcome.submit(executor, batch, script)
        final = self._record(claimed, outcome)
        with ThreadPoolExecutor(1) as aside:
            aside.submit(self.project.repo.tidy)
            self._summarise(final, [a.run for a in actions if a.run in final.runs])
        self._cancel(actions)  # last: that one cannot be ended keeps nothing else from being done
        unreadable = self.situation.world.unreadable
        return Report(
            plan, commit, outcome.submitted, outcome.refused, outcome.uncertain, outcome.put_off,
            unreadable,
        )  # fmt: skip

    def _sweep(self, actions: list[Action]) -> None:
        """Clear up after submissions that are about to be over: whoever dies here does it again."""
        by = self._claimant()
        new = [changed_record(a, None, by) for a in actions if isinstance(a, Record | Cancel)]
        touched = {r.submission for r in new if r.is_over}
        records = {**self.situation.ledger.runs, **{r.run: r for r in new}}.values()
        sweep_requests(self.project, [r for r in records if r.submission in touched])

    # -- before anything is written to the ledger --------------------------------------------------

    def _without_rivals(self, plan: Plan) -> list[RunAction | Restore]:
        """End what other ledgers have started of the plan's runs; return what is to be written.

        Where that fails, the run's record stays as it is, which tells the next sync to try again.
        """
        rivals = {t.path: t.rivals for t in self.situation.ledger.troubles or () if t.rivals}
        kept: list[RunAction | Restore] = []
        for action in plan.actions:
            if isinstance(action, Repair):
                continue
            found = rivals.get(record_path(action.run))
            if found and not isinstance(action, Submit):
                assert isinstance(action.record, RunRecord)
                try:
                    end_rivals(self.project, action.record, found)
                except MtfError as e:
                    self.say(f"failed   {action.run}: other attempts of it may run, and {e}")
                    continue
                self.say(f"ended    {action.run}: {count(len(found), 'attempt')} of another ledger")
            kept.append(action)
        return kept

    def _fenced(self, action: Action) -> Action:
        """Shut out the job of a claim that is given up.

        One that has started after all is adopted; where the run is to end, it is cancelled, and so
        is one that waits.
        """
        match action:
            case Resume(fence=True):
                pass
            case Cancel(record=record) if record.job_id is None and record.retry_at is None:
                pass
            case _:
                return action
        token = action.record.attempt.token
        job = self._job_of(action.record) if isinstance(action, Cancel) else None
        job = job or JobId(rundir.claim(Path(action.record.run_dir), token, rundir.FENCED))
        if job == rundir.FENCED:
            return action
        if isinstance(action, Cancel):
            return replace(action, record=with_job(action.record, job, self._claimant().at))
        return Adopt(action.run, action.record, job, "its job has started")

    def _job_of(self, record: RunRecord) -> JobId | None:
        """Return the job that the executor knows by the newest attempt's token."""
        live = self.situation.world.live.get(record.executor, {})
        view = live.get((record.attempt.token, record.attempt.index))
        return view.job_id or None if view else None

    def _start(
        self, action: Submit | Resume, submission_of_run: Callable[[SubmissionId], SubmissionRecord]
    ) -> Start:
        """Return what a new attempt needs to know of its run."""
        if isinstance(action, Submit):
            e, commit = action.experiment, self.situation.world.commit
            throttle = action.desired.max_parallel
            root = self.project.runs_root
            return Start(
                action.run, action.key, commit, e.grid, e.config, throttle, root, action.origin
            )
        record = action.record
        submission = submission_of_run(record.submission)
        changes = {**record.attempt.changes, **action.changes}
        config = changed(submission.configs[record.member], changes)
        root = rundir.root_of(Path(record.run_dir), record.run)
        throttle = submission.max_parallel
        return Start(
            action.run, record.key, record.commit, record.grid, config, throttle, root,
            record.origin,
        )  # fmt: skip

    def _prepare(self, starts: list[Start]) -> Prepared:
        """Make checkouts and scripts: what can fail for a user's mistake fails here."""
        executors = {
            commit: open_executor(self.project, self.executor, self._templates(commit))
            for commit in {s.commit for s in starts}
        }
        with ThreadPoolExecutor() as aside:  # others answer while the checkouts are made
            limits = aside.map(lambda e: e.limits(), executors.values())
            aside.submit(lambda: self.project.repo.identity)  # it stays known, for the claim
            for root, commit in {(s.root, s.commit) for s in starts}:
                materialise(self.project.repo, root, commit)
            most = min((limit.max_array_size for limit in limits), default=1)
        batches = make_batches(starts, most, lambda: secrets.token_hex(8))
        of = [(executors[batch.starts[0].commit], batch) for batch in batches]
        return [(executor, batch, executor.script(batch.request)) for executor, batch in of]

    def _templates(self, commit: CommitId) -> dict[str, str]:
        """Return the repository's own script templates, as committed."""
        repo = self.project.repo
        files = {p: e for p, e in repo.files(commit, "templates").items() if p.endswith(".j2")}
        contents = repo.blobs(e.oid for e in files.values())
        return {p.split("/", 1)[1]: contents[e.oid].decode() for p, e in files.items()}

    # -- claim and pin -----------------------------------------------------------------------------

    def _claim(self, actions: list[Action], prepared: Prepared) -> Ledger:
        """Write all that the plan changes, and a fresh claim for each run that starts, at once."""
        by = self._claimant()
        place = {
            start.run: (batch.request.token, index)
            for _, batch, _ in prepared
            for index, start in batch.indices()
        }
        change = Change(
            runs=tuple(
                changed_record(a, place.get(a.run), by)
                for a in actions
                if isinstance(a, RunAction)
                or (isinstance(a, Restore) and isinstance(a.record, RunRecord))
            ),
            submissions=submission_records(actions, by),
            branches={
                job_branch(submission_of(a.run)): by.commit
                for a in actions
                if isinstance(a, Submit)
            },
        )
        message = _message(actions)
        ledger = self.store.append(self.situation.ledger, change, message)
        for submission in change.submissions:
            if f"refs/heads/{submission.branch}" in change.branches:
                number = count(len(submission.runs), "run")
                self.say(f"pinned   {submission.branch} ({number} claimed)")
        for action in actions:
            if isinstance(action, Restore):
                self.say(f"put back {action.run}: {action.reason}")
        return ledger

    def _claimant(self) -> Claimant:
        settings = self.situation.settings
        return Claimant(
            who=submitter(),
            now=datetime.now(UTC),
            commit=self.situation.world.commit,
            executor=self.executor,
            cluster=settings.cluster.name,
            lease_s=settings.lease,
            root=self.project.runs_root,
        )

    # -- act ---------------------------------------------------------------------------------------

    def _cancel(self, actions: list[Action]) -> None:
        cancelled = [a.record for a in actions if isinstance(a, Cancel) and a.record.job_id]
        for name, (jobs, names) in jobs_of(cancelled).items():
            open_executor(self.project, name).cancel(jobs, names)

    # -- record ------------------------------------------------------------------------------------

    def _record(self, ledger: Ledger, outcome: Handover) -> Ledger:
        """Write the jobs down. Others may have written in between: only our claims change."""
        if not outcome.runs:
            return ledger
        tokens = {run: ledger.runs[run].attempt.token for run in outcome.runs}
        retry = self.situation.policy.retry
        known: list[Ledger] = [ledger]

        def write() -> Ledger:
            if not known:
                self.store.fetch(self.situation.settings.branch)
            current = known.pop() if known else self.store.read()
            ours = [
                outcome.settled(current.runs[run], retry)
                for run, token in tokens.items()
                if run in current.runs and current.runs[run].attempt.token == token
            ]
            if not ours:
                return current
            return self.store.append(current, Change(runs=tuple(ours)), outcome.message)

        return with_retries(write)

    def _summarise(self, ledger: Ledger, changed: list[RunId]) -> None:
        try:
            write_summaries(self.project.runs_root, ledger, changed)
        except OSError as e:  # copies for the eye: the ledger has it all
            self.say(f"note     {e.filename}: {e.strerror}: the summary there is not new")


_WORDS: dict[type[Action], str] = {
    Submit: "claim",
    Resume: "continue",
    Adopt: "adopt",
    Record: "record",
    Cancel: "cancel",
    Restore: "put back",
}


def _message(actions: list[Action]) -> str:
    """Return a commit message that tells what happens to which run."""
    counts = Counter(_WORDS[type(a)] for a in actions)
    what = ", ".join(f"{word} {count(n, 'run')}" for word, n in counts.items())
    lines = [f"{a.run}: {a.reason}" for a in actions[:100]]
    more = [f"... and {len(actions) - 100} more"] if len(actions) > 100 else []
    return "\n".join([f"mtf: {what}", "", *lines, *more]) + "\n"
