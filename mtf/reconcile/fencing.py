"""Fencing: shuts out the jobs of attempts that are given up, before anything else is carried out.

Each effect is idempotent: a sync that is killed here leaves the ledger as it was, and the next one
plans and fences the same again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mtf import rundir
from mtf.core.vocabulary.actions import Action, Adopt, Cancel, Repair, Resume, Submit, withdraws
from mtf.core.vocabulary.ids import JobId, RunId, record_path
from mtf.core.vocabulary.records import RunRecord
from mtf.errors import MtfError
from mtf.reconcile.executors import mark_of
from mtf.reconcile.record_updates import with_job
from mtf.reconcile.run_access import is_elsewhere
from mtf.report.tables import count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from mtf.core.vocabulary.ids import Token
    from mtf.core.vocabulary.jobs import JobView
    from mtf.core.vocabulary.records import Attempt
    from mtf.ledger.store import Ledger
    from mtf.reconcile.executors import Executors


@dataclass(frozen=True)
class Fence:
    """Fences runs before a plan is carried out, with the facts that the plan was made from."""

    ledger: Ledger
    live: Mapping[str, Mapping[tuple[Token, int], JobView]]
    executors: Executors
    cluster: str  # that this clone serves
    at: str  # the time of this sync, as records spell it
    say: Callable[[str], None]

    def settle(self, planned: Iterable[Action]) -> list[Action]:
        """Return the actions to carry out instead of the planned ones, once nothing can interfere.

        Attempts that another ledger started are ended first. Where that fails, the run's action is
        left out: its record stays as it is, so that the next sync tries again. Then the claims that
        are given up are fenced: a job that has started after all is adopted, or cancelled if its
        run is.
        """
        fenced = (self._fenced_or_left(action) for action in self._without_rivals(planned))
        return [action for action in fenced if action is not None]

    def withdraw(self, actions: Iterable[Action]) -> frozenset[RunId]:
        """Shut out and cancel the waiting jobs that actions withdraw; return runs whose jobs stay.

        A job that has begun in the meantime has claimed its run's folder, and keeps what it has.
        Whoever dies after this leaves runs whose job was fenced out: the next sync continues them.
        """
        stay: set[RunId] = set()
        waiting: list[RunRecord] = []
        for action in filter(withdraws, actions):
            try:
                job = _claimed_by(action.record)
            except OSError as e:
                self.say(f"failed   {action.run}: {e.filename}: {e.strerror}. Its job stays")
                stay.add(action.run)
                continue
            if job is None:
                waiting.append(action.record)
            else:
                self.say(f"began    {action.run}: job {job} has begun and keeps what it has")
                stay.add(action.run)
        try:
            self.executors.cancel(waiting)
        except MtfError as e:
            self.say(f"failed   {count(len(waiting), 'waiting job')} could not be withdrawn: {e}")
            stay |= {record.run for record in waiting}
        return frozenset(stay)

    def _fenced_or_left(self, action: Action) -> Action | None:
        """Return ``_fenced``; None, and a line, if the claim cannot be taken or read."""
        try:
            return self._fenced(action)
        except OSError as e:
            self.say(f"failed   {action.run}: {e.filename}: {e.strerror}. Its claim is left alone")
        except MtfError as e:
            self.say(f"failed   {action.run}: {e}")
        return None

    def _without_rivals(self, planned: Iterable[Action]) -> list[Action]:
        """Return the actions of runs for which no attempt of another ledger can have a job."""
        rivals = {t.path: t.rivals for t in self.ledger.findings or () if t.rivals}
        kept: list[Action] = []
        for action in planned:
            found = rivals.get(record_path(action.run))
            if found and not isinstance(action, Submit | Repair):
                assert isinstance(action.record, RunRecord)
                try:
                    self._end_rivals(action.record, found)
                except (MtfError, OSError) as e:
                    self.say(f"failed   {action.run}: other attempts may still be running: {e}")
                    continue
                self.say(f"ended    {action.run}: {count(len(found), 'attempt')} of another ledger")
            kept.append(action)
        return kept

    def _end_rivals(self, record: RunRecord, rivals: Sequence[Attempt]) -> None:
        """Fence these attempts of a run, and cancel the jobs that they have.

        Raises:
            MtfError: a job may still run: the run's folder or the executor cannot be reached.
        """
        if record.cluster != self.cluster or is_elsewhere(self.executors.runs_root, record):
            raise MtfError(
                f"their folder {record.run_dir} cannot be reached from here. Run mtf sync where it"
                " can"
            )
        folder = Path(record.run_dir)
        jobs: set[JobId] = set()
        for attempt in rivals:
            jobs |= {attempt.job_id} if attempt.job_id else set()
            if folder.is_dir():
                holder = rundir.claim(folder, attempt.token, rundir.FENCED)
                jobs |= {JobId(holder)} - {JobId(rundir.FENCED)}
        if jobs:
            marks = {a.token: mark_of(record, a) for a in rivals}
            self.executors.open(record.executor).cancel(jobs, marks)

    def _fenced(self, action: Action) -> Action:
        """Return the action to take once the claim that ``action`` gives up is fenced."""
        match action:
            case Resume(fence=True, record=record):
                job = _claimed_by(record)
                if job is None:
                    return action
                if record.is_over:
                    raise MtfError(f"its job {job} has begun after all: it is not started again")
                return Adopt(action.run, record, job, "its job has started")
            case Cancel(record=record) if record.job_id is None and record.retry_at is None:
                job = self._live_job(record) or _claimed_by(record)
                return replace(action, record=with_job(record, job, self.at)) if job else action
            case _:
                return action

    def _live_job(self, record: RunRecord) -> JobId | None:
        """Return the job, waiting or running, that the executor knows by the attempt's token."""
        views = self.live.get(record.executor, {})
        view = views.get((record.attempt.token, record.attempt.index))
        return view.job_id or None if view else None


def _claimed_by(record: RunRecord) -> JobId | None:
    """Fence a run's newest attempt; return the job that had claimed the run's folder before."""
    holder = rundir.claim(Path(record.run_dir), record.attempt.token, rundir.FENCED)
    return None if holder == rundir.FENCED else JobId(holder)
