"""Submits batches to an executor; turns each outcome of a submission into records."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mtf.core.vocabulary.ids import Token
from mtf.core.vocabulary.times import iso
from mtf.errors import (
    ExecutorUnavailableError,
    SubmissionRefusedError,
    SubmissionUncertainError,
)
from mtf.reconcile.job_requests import prepare, remove_request
from mtf.reconcile.record_updates import put_off, refused, unclear, with_job
from mtf.reconcile.run_access import job_owner
from mtf.report.tables import count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from mtf.core.planner.run_update import Retry
    from mtf.core.vocabulary.ids import JobId, RunId
    from mtf.core.vocabulary.jobs import Submitted
    from mtf.core.vocabulary.records import RunRecord
    from mtf.executor.protocol import Executor
    from mtf.reconcile.executors import Executors
    from mtf.reconcile.job_requests import Batch

_ALL = None  # stands for every queue of the executor


@dataclass
class Handover:
    """The submissions of one sync, and the outcome for each of their runs."""

    repository: Path
    say: Callable[[str], None]
    # what each batch waits for, by token: other batches, or numbers of arrays
    after: Mapping[Token, tuple[str, ...]] = field(default_factory=dict)
    submitted: dict[RunId, JobId] = field(default_factory=dict)
    refused: dict[RunId, str] = field(default_factory=dict)
    uncertain: dict[RunId, str] = field(default_factory=dict)
    put_off: dict[RunId, str] = field(default_factory=dict)
    unended: dict[str, str] = field(default_factory=dict)  # executors that could not cancel now
    _full: set[RunId] = field(default_factory=set)  # put off only because the queue is full
    _arrays: dict[str, str] = field(default_factory=dict)  # number of the newest array, by token
    _closed: dict[object, str] = field(default_factory=dict)  # queues that accept nothing now

    def submit(self, executor: Executor, batch: Batch, script: str) -> None:
        """Submit one batch; the next sync can continue from every outcome."""
        runs = [s.run for s in batch.starts]
        name = batch.request.name
        if self._is_closed(batch):
            return
        try:
            prepare(batch, self.repository)
            request = replace(batch.request, after=tuple(dict.fromkeys(self._numbers(batch.after))))
            done = executor.submit(request, script)
        except SubmissionRefusedError as e:
            self.refused |= dict.fromkeys(runs, str(e))
            self.say(f"refused  {name}: {e}")
            remove_request(batch)
        except SubmissionUncertainError as e:
            self.uncertain |= dict.fromkeys(runs, str(e))
            self._closed[_ALL] = str(e)  # the next batch might have to wait for the time-out, too
            self.say(f"unclear  {name}: {e}. The next mtf sync checks for the jobs")
        except ExecutorUnavailableError as e:
            self.put_off |= dict.fromkeys(runs, str(e))
            self._closed[_ALL] = str(e)
            self.say(f"put off  {name}: {e}. A later mtf sync submits it")
        except OSError as e:
            self.uncertain |= dict.fromkeys(runs, str(e))
            self.say(f"failed   {e.filename}: {e.strerror}. The next mtf sync tries again")
        else:
            self._note_submitted(executor, batch, done)

    def _numbers(self, names: Iterable[str]) -> Iterator[str]:
        """Yield the numbers of these arrays; in place of one without jobs, those it waits for."""
        for name in names:
            if name in self._arrays:
                yield self._arrays[name]
            elif (before := self.after.get(Token(name))) is not None:
                yield from self._numbers(before)
            else:
                yield name

    def _is_closed(self, batch: Batch) -> bool:
        """Put a batch off if its queue has just refused another batch; return True if so."""
        runs = [s.run for s in batch.starts]
        queue = _queue(batch)
        why = self._closed.get(_ALL) or self._closed.get(queue)
        if why is None:
            return False
        self.put_off |= dict.fromkeys(runs, why)
        self._full |= set(runs) if _ALL not in self._closed else set()
        self.say(f"put off  {batch.request.name}: {count(len(runs), 'run')}, for the same reason")
        return True

    def _note_submitted(self, executor: Executor, batch: Batch, done: Submitted) -> None:
        name = batch.request.name
        accepted = {s.run: done.jobs[index] for index, s in batch.indices() if index in done.jobs}
        left = [s.run for s in batch.starts if s.run not in accepted]
        self.submitted |= accepted
        if accepted and batch.request.array:  # parts of one request wait for each other
            self._arrays[batch.request.token] = [*accepted.values()][-1].partition("_")[0]
        if accepted:
            ids = list(accepted.values())
            shown = ids[0] if len(ids) == 1 else f"{ids[0]} ... {ids[-1]}"
            self.say(f"submit   {name}: {count(len(ids), 'run')} -> {executor.name} {shown}")
        if left:
            self.put_off |= dict.fromkeys(left, done.put_off)
            self._full |= set(left)
            self._closed[_queue(batch)] = done.put_off
            self.say(
                f"put off  {name}: {count(len(left), 'run')}: {done.put_off}."
                " Later mtf syncs submit them as others end"
            )

    def end(self, cancelled: Iterable[RunRecord], executors: Executors) -> list[RunId]:
        """End the jobs of cancelled runs; return the runs whose jobs a later sync has to end.

        Those are the runs of an executor that does not answer, and those with a job that only
        another user may end.
        """
        with_jobs = [record for record in cancelled if record.job_id is not None]
        left: list[RunId] = []
        try:
            others = executors.cancel(with_jobs)
        except ExecutorUnavailableError as e:
            self.unended |= dict.fromkeys((r.executor for r in with_jobs), str(e))
            number = count(len(with_jobs), "cancelled run")
            self.say(f"recorded {number}: {e}. The next mtf sync that gets an answer ends the jobs")
            return [record.run for record in with_jobs]
        for record in with_jobs:
            job = record.job_id
            if job not in others:
                continue
            if (owner := job_owner(record)) is not None:
                left.append(record.run)
                self.say(f"recorded job {job} is {owner}'s, whose next mtf sync ends it")
            else:
                self.say(f"left     job {job}: a record names it, but {others[job]}")
        return left

    @property
    def runs(self) -> list[RunId]:
        """Return the runs whose outcome is to be recorded."""
        return [*self.submitted, *self.refused, *self.uncertain, *self.put_off]

    def settled(self, record: RunRecord, retry: Retry) -> RunRecord:
        """Return the record of one of the ``runs`` after its submission."""
        now = datetime.now(UTC)
        at = iso(now)
        if record.run in self.submitted:
            return with_job(record, self.submitted[record.run], at)
        if record.is_over:  # cancelled meanwhile
            return record
        if record.run in self.refused:
            return refused(record, self.refused[record.run], at)
        if record.run in self.uncertain:
            return unclear(record, self.uncertain[record.run])
        # a full queue gets room as other jobs end: the wait does not grow
        tries = 1 if record.run in self._full else record.attempt.put_off + 1
        retry_at = iso(now + retry.wait(tries))
        return put_off(record, self.put_off[record.run], at, retry_at)

    @property
    def message(self) -> str:
        """Return the message of the commit that records the outcomes."""
        counts = {
            "submitted": len(self.submitted),
            "refused": len(self.refused),
            "unclear": len(self.uncertain),
            "put off": len(self.put_off),
        }
        what = ", ".join(f"{count(n, 'job')} {word}" for word, n in counts.items() if n)
        jobs = sorted({job.split("_")[0] for job in self.submitted.values()})
        return f"mtf: {what}\n\n" + "".join(f"Mtf-Job: {job}\n" for job in jobs[:100])


def _queue(batch: Batch) -> tuple[str | None, ...]:
    """Return the partition, account and QOS: limits of jobs in the queue apply to these."""
    needs = batch.request.resources
    return needs["partition"], needs["account"], needs["qos"]
