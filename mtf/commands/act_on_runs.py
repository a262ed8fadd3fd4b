"""Cancels, retries and preempts recorded runs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mtf.commands.sync import belief_of, executors_of
from mtf.core.vocabulary.actions import Action, Cancel, Plan, Resume
from mtf.core.vocabulary.states import RunState
from mtf.errors import MtfError
from mtf.project.committed import Specs
from mtf.project.project import CLUSTER
from mtf.project.run_lookup import choose, counts_by_state, existing_runs, find_runs
from mtf.reconcile.apply import Application, Report
from mtf.reconcile.cas_retry import with_retries
from mtf.reconcile.drift_scan import has_checkpoints
from mtf.reconcile.executors import jobs_of
from mtf.reconcile.gather import Options, Target, gather
from mtf.reconcile.run_access import is_elsewhere
from mtf.spec.set_overrides import parse_changes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from mtf.core.vocabulary.ids import JobId
    from mtf.core.vocabulary.records import RunRecord
    from mtf.ledger.store import Ledger
    from mtf.project.project import Project


def cancel(
    project: Project,
    names: Sequence[str],
    *,
    where: Sequence[str] = (),
    publish: bool,
    say: Callable[[str], None],
) -> Report:
    """End these runs for good; those that are already over are left alone; ``say`` reports them.

    Raises:
        MtfError: there is no run of a name, or none that meets the conditions in ``where``.
    """

    def decide(ledger: Ledger) -> list[Action]:
        actions: list[Action] = []
        for record in _chosen(ledger, names, where, "cancelled", lambda r: not r.is_over):
            if record.is_over:
                say(f"over     {record.run} is {record.state}: not cancelled")
            else:
                actions.append(Cancel(record.run, record, "mtf cancel", asked=True))
        return actions

    return _act(project, decide, publish=publish, say=say)


def retry(
    project: Project,
    names: Sequence[str],
    *,
    where: Sequence[str] = (),
    changes: Sequence[str] = (),
    publish: bool,
    say: Callable[[str], None],
) -> Report:
    """Start another attempt of these runs, which resumes from their newest checkpoint.

    A run whose checkpoints are gone starts from the beginning. Active and completed runs are left
    alone. ``say`` reports both.

    ``changes`` to their configuration, each like ``slurm.mem=16G``, also hold for later attempts.

    Raises:
        MtfError: there is no run of a name, none that meets the conditions in ``where``, or a
            change is not valid.
    """
    new = parse_changes(changes)

    def decide(ledger: Ledger) -> list[Action]:
        actions: list[Action] = []
        for record in _chosen(ledger, names, where, "retried", may_be_retried):
            if record.state is RunState.COMPLETED:
                say(
                    f"complete {record.run}: not retried. To run it again, set"
                    f" `generation: {record.generation + 1}` in its spec, commit, and run mtf sync"
                )
            elif not record.is_over:
                say(
                    f"active   {record.run} is {record.state}: not retried. To end its job first,"
                    f" run mtf cancel {record.run}"
                )
            else:
                why = " ".join(["mtf retry", *(f"--set {change}" for change in changes)])
                resumable = _resumable(project, record, say)
                actions.append(Resume(record.run, resumable, why, asked=True, changes=new))
        return actions

    return _act(project, decide, publish=publish, say=say)


def may_be_retried(record: RunRecord) -> bool:
    """Return True if a run is over and did not complete."""
    return record.is_over and record.state is not RunState.COMPLETED


def _resumable(project: Project, record: RunRecord, say: Callable[[str], None]) -> RunRecord:
    """Return a run's record, without its progress if its checkpoints are gone."""
    if (
        record.checkpoint is None
        or is_elsewhere(project.runs_root, record)
        or has_checkpoints(record)
    ):
        return record
    say(
        f"restart  {record.run}: its checkpoints are gone from {record.run_dir}, so it starts from"
        " the beginning"
    )
    return replace(
        record, checkpoint=None, best=None, best_checkpoint=None, metrics={}, epoch=None, step=None
    )


def _chosen(
    ledger: Ledger,
    names: Sequence[str],
    where: Sequence[str],
    done: str,
    applies: Callable[[RunRecord], bool],
) -> list[RunRecord]:
    """Return the runs to act on; with conditions, only those to which the action ``applies``."""
    if not where:
        return find_runs(ledger, names)
    found = choose(ledger, names, where)
    fitting = [record for record in found if applies(record)]
    if not fitting:
        conditions = " and ".join(where)
        if found:
            states = counts_by_state(found)
            raise MtfError(f"no run with {conditions} can be {done}: {states}. See mtf status")
        raise MtfError(f"no run with {conditions}. {existing_runs(choose(ledger, names, ()))}")
    return fitting


def _act(
    project: Project,
    decide: Callable[[Ledger], list[Action]],
    *,
    publish: bool,
    say: Callable[[str], None],
) -> Report:
    store = project.store(publish=publish)

    def once() -> Report:
        commit = project.tracked(store)
        ledger = store.read_audited()
        actions = sorted(decide(ledger), key=lambda a: a.run)
        here = project.at(commit)
        _check_reachable(here, [a.record for a in actions if isinstance(a, Cancel | Resume)])
        plan = Plan(tuple(actions), 0, ())
        if plan.is_empty:
            return Report(plan, commit)
        executors = executors_of(here)
        belief = belief_of(here, store, ledger, commit)
        if notes := belief.sift(plan).notes:
            raise MtfError("\n".join(notes))
        found = gather(Target(commit, here.settings, Specs, belief), ledger, executors, Options())
        executor = _executor_of(actions)
        return Application(
            here.repo, store, executors, found, executor, say, is_asked=True
        ).carry_out(plan)

    with project.repo.reading():
        return with_retries(once)


def _check_reachable(project: Project, records: Iterable[RunRecord]) -> None:
    """Refuse to act on runs that only another cluster, clone or host can reach."""
    cluster = project.settings.cluster.name
    for record in records:
        if record.cluster != cluster:  # this cluster may have another job of the same id
            raise MtfError(
                f"{record.run} is on cluster {record.cluster}, and this clone serves {cluster}."
                f" Run the command there, or with {CLUSTER}={record.cluster} if this host can"
                " reach that cluster"
            )
        if is_elsewhere(project.runs_root, record):
            raise MtfError(
                f"{record.run}: its folder {record.run_dir} is on another host or in another clone."
                " Run the command there"
            )


def _executor_of(actions: Sequence[Action]) -> str:
    """Return the executor that the runs were on and will be submitted to again."""
    names = {a.record.executor for a in actions if isinstance(a, Resume)}
    if len(names) > 1:
        raise MtfError(
            "these runs were on different executors. Retry the runs of one executor at a time"
        )
    return names.pop() if names else ""


def preempt(project: Project, names: Sequence[str]) -> list[RunRecord]:
    """Interrupt these runs as preemption would: they checkpoint, requeue and resume.

    Raises:
        MtfError: there is no run of a name, or it has no live job.
    """
    records = find_runs(project.ledger(), names)
    idle = [r for r in records if r.is_over or r.job_id is None]
    if idle:
        lines = [f"{r.run} is {r.state}: it has no live job to preempt" for r in idle]
        raise MtfError("\n".join([*lines, "No run was preempted. mtf status lists the jobs"]))
    here = project.at(project.tracked())
    _check_reachable(here, records)
    others: dict[JobId, str] = {}
    for executor, (jobs, marks) in jobs_of(records).items():
        others |= executors_of(here).open(executor).preempt(jobs, marks)
    if others:
        lines = [f"job {job}: a record names it, but {why}" for job, why in others.items()]
        raise MtfError("\n".join([*lines, "These jobs were left alone"]))
    return records
