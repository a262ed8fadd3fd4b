"""Cancels, retries and preempts recorded runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from mtf.commands.sync import belief_of, executors_of
from mtf.core.planner.reasons import was_cancelled_unseen
from mtf.core.planner.spec_changes import with_spec
from mtf.core.selection.eligibility import (
    LEFT_OUT,
    Tip,
    summed_up,
    why_a_retry_is_hopeless,
    why_not_cancelled,
    why_not_retried,
)
from mtf.core.vocabulary.actions import Action, Cancel, Plan, Resume
from mtf.errors import MtfError, SpecError
from mtf.executor.slurm.programs import patience
from mtf.project.committed import Specs, read_specs
from mtf.project.project import CLUSTER
from mtf.project.run_lookup import (
    choose,
    counts_by_state,
    existing_runs,
    find_runs,
    named_one_by_one,
)
from mtf.project.spec_tree import SpecTree
from mtf.reconcile.apply import Application, Report
from mtf.reconcile.cas_retry import with_retries
from mtf.reconcile.drift_scan import has_checkpoints
from mtf.reconcile.executors import jobs_of
from mtf.reconcile.gather import Options, Target, gather, respecified
from mtf.reconcile.live.look import as_of_now, with_ends
from mtf.reconcile.run_access import is_elsewhere, owner_if_read_only, private_folder
from mtf.spec.set_overrides import parse_changes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from mtf.core.planner.spec_changes import KeyChange
    from mtf.core.vocabulary.ids import CommitId, JobId
    from mtf.core.vocabulary.records import RunRecord
    from mtf.ledger.store import Ledger
    from mtf.project.project import Project

_PATIENCE_S = 3.0  # of a person who cancels, for each of SLURM's programs


@dataclass(frozen=True)
class Rules:
    """The runs that a command may act on."""

    done: str  # "cancelled": what they will be
    why_not: Callable[[RunRecord], str | None]
    # also None for runs that a person names one by one, or with --force
    why_hopeless: Callable[[RunRecord], str | None] = lambda _: None


@dataclass(frozen=True)
class Selection:
    """The runs to act on, and a line for each that was asked for and is left out."""

    runs: tuple[RunRecord, ...]
    left_out: tuple[str, ...]
    tip: CommitId  # of the tracked branch
    is_broad: bool  # chosen by a condition or a grid's name, not named one by one


def selected(
    ledger: Ledger,
    tip: CommitId,
    names: Sequence[str],
    where: Sequence[str],
    rules: Rules,
) -> Selection:
    """Return the runs of these names that meet the conditions and the rules.

    Raises:
        MtfError: there is no run of a name, or none that meets the conditions.
    """
    found = choose(ledger, names, where) if where else find_runs(ledger, names)
    one_by_one = named_one_by_one(ledger, names)
    runs: list[RunRecord] = []
    left_out: list[tuple[RunRecord, str]] = []
    for record in found:
        line = rules.why_not(record)
        if line is None and record.run not in one_by_one:
            line = rules.why_hopeless(record)
        if line is None:
            runs.append(record)
        else:
            left_out.append((record, line))
    if where:  # it has selected runs in any state; only those in a fitting one are meant
        left_out = [(record, line) for record, line in left_out if line.startswith(LEFT_OUT)]
    if where and not runs:
        conditions = " and ".join(where)
        if found:
            states = counts_by_state(found)
            why = f"no run with {conditions} can be {rules.done}: {states}. See mtf status"
            raise MtfError("\n".join([why, *summed_up(left_out)]))
        raise MtfError(f"no run with {conditions}. {existing_runs(choose(ledger, names, ()))}")
    lines = summed_up(left_out)
    is_broad = bool(where) or any(record.run not in one_by_one for record in found)
    return Selection(tuple(runs), tuple(lines), tip, is_broad)


def preview(
    project: Project,
    names: Sequence[str],
    where: Sequence[str],
    rules_at: Callable[[Project, CommitId, Ledger], Rules],
) -> Selection:
    """Return the runs that a command would act on now; the remote's ledger is fetched.

    Raises:
        MtfError: there is no run of a name, or none that meets the conditions.
    """
    store = project.store(publish=False)
    with project.repo.reading():
        commit = project.tracked(store)
        ledger = store.read_audited()
        if rules_at is not cancel_rules:
            ledger = with_ends(project, ledger)
        elif where:
            ledger = as_of_now(project, ledger)
        return selected(ledger, commit, names, where, rules_at(project, commit, ledger))


def specs_at(project: Project, commit: CommitId, ledger: Ledger) -> Specs:
    """Return the specs of a commit; mistakes in the settings are among their problems."""
    try:
        return read_specs(project.repo, commit, SpecTree.at(project.repo, commit), ledger.runs)
    except SpecError as e:
        return Specs(problems=tuple(e.problems))


def tip_of(project: Project, commit: CommitId, ledger: Ledger) -> Tip:
    """Return the runs that the specs of a commit ask for."""
    specs = specs_at(project, commit, ledger)
    keys = frozenset(key for _, keys in specs.desired for key in keys)
    return Tip(commit, project.settings.branch, keys, frozenset(p.path for p in specs.problems))


def cancel_rules(_: Project, __: CommitId, ___: Ledger) -> Rules:
    """Return the rules of `mtf cancel`."""
    return Rules("cancelled", why_not_cancelled)


def retry_rules(project: Project, commit: CommitId, ledger: Ledger, *, force: bool) -> Rules:
    """Return the rules of `mtf retry`; with ``force`` also runs that will probably fail again."""
    if force:
        return Rules("retried", why_not_retried)
    tip = cache(lambda: tip_of(project, commit, ledger))
    return Rules("retried", why_not_retried, lambda r: why_a_retry_is_hopeless(r, tip()))


def cancel(
    project: Project,
    names: Sequence[str],
    *,
    where: Sequence[str] = (),
    publish: bool,
    say: Callable[[str], None],
) -> Report:
    """End these runs for good; those that are already over are left alone; ``say`` reports them.

    It holds no lock and waits only briefly for SLURM, so that it gets through while a sync waits.
    If SLURM does not answer, the cancellation is recorded, and a later sync ends the jobs.

    Raises:
        MtfError: there is no run of a name, or none that meets the conditions in ``where``.
    """

    def decide(ledger: Ledger, commit: CommitId) -> list[Action]:
        rules = cancel_rules(project, commit, ledger)
        seen = as_of_now(project, ledger) if where else ledger
        found = selected(seen, commit, names, where, rules)
        for line in found.left_out:
            say(line)
        recorded = (ledger.runs[r.run] for r in found.runs)
        return [Cancel(r.run, r, "mtf cancel", asked=True) for r in recorded]

    with patience(_PATIENCE_S):
        return _act(project, decide, publish=publish, say=say)


def retry(
    project: Project,
    names: Sequence[str],
    *,
    where: Sequence[str] = (),
    changes: Sequence[str] = (),
    force: bool = False,
    publish: bool,
    say: Callable[[str], None],
) -> Report:
    """Start another attempt of these runs, which resumes from their newest checkpoint.

    A run whose checkpoints are gone starts from the beginning. Active and completed runs are left
    alone, and without ``force`` so are runs that will probably fail again, unless they are named
    one by one. ``say`` reports all of these.

    ``changes`` to their configuration, each like ``slurm.mem=16G``, also hold for later attempts.

    Raises:
        MtfError: there is no run of a name, none that meets the conditions in ``where``, or a
            change is not valid.
    """
    new = parse_changes(changes)
    why = " ".join(["mtf retry", *(f"--set {change}" for change in changes)])

    def decide(ledger: Ledger, commit: CommitId) -> list[Action]:
        ledger = with_ends(project, ledger)
        rules = retry_rules(project, commit, ledger, force=force)
        found = selected(ledger, commit, names, where, rules)
        afresh = [(r, _afresh_text(r)) for r in found.runs if _has_lost_checkpoints(project, r)]
        for line in (*found.left_out, *summed_up(afresh)):
            say(line)
        lost = {record.run for record, _ in afresh}
        return [
            Resume(
                r.run,
                _afresh(r) if r.run in lost else r,
                why,
                fence=was_cancelled_unseen(r),
                asked=True,
                changes=new,
            )
            for r in found.runs
        ]

    return _act(project, decide, publish=publish, say=say)


def _has_lost_checkpoints(project: Project, record: RunRecord) -> bool:
    """Return True if a run has recorded a checkpoint, and its folder here has none."""
    return not (
        record.checkpoint is None
        or is_elsewhere(project.runs_root, record)
        or has_checkpoints(record)
    )


def _afresh_text(record: RunRecord) -> str:
    return (
        f"restart  {record.run}: its checkpoints are gone from {record.run_dir}, so it starts from"
        " the beginning"
    )


def _afresh(record: RunRecord) -> RunRecord:
    """Return a run's record without its progress."""
    return replace(
        record, checkpoint=None, best=None, best_checkpoint=None, metrics={}, epoch=None, step=None
    )


def _act(
    project: Project,
    decide: Callable[[Ledger, CommitId], list[Action]],
    *,
    publish: bool,
    say: Callable[[str], None],
) -> Report:
    store = project.store(publish=publish)

    def once() -> Report:
        commit = project.tracked(store)
        ledger = store.read_audited()
        actions = sorted(decide(ledger, commit), key=lambda a: a.run)
        here = project.at(commit)
        _check_reachable(here, [a.record for a in actions if isinstance(a, Cancel | Resume)])
        _check_writable(a.record for a in actions if isinstance(a, Resume))
        plan = Plan(tuple(actions), 0, ())
        if plan.is_empty:
            return Report(plan, commit)
        executors = executors_of(here)
        belief = belief_of(here, store, ledger, commit)
        if notes := belief.sift(plan).notes:
            raise MtfError("\n".join(notes))
        again = [a for a in actions if isinstance(a, Resume)]
        specs = specs_at(here, commit, ledger) if again else Specs()
        changes = respecified(store, ledger, specs, commit, asked={a.run for a in again})
        plan = plan.only(tuple(_with_spec(a, changes.get(a.run), say) for a in actions))
        target = Target(commit, here.settings, lambda: specs, belief)
        unsure = {a.run for a in actions if isinstance(a, Cancel) and a.record.job_id is None}
        grids = {a.record.grid for a in again} - {None}  # max_parallel is for all of their jobs
        beside = {r.run for r in ledger.runs.values() if r.grid in grids}
        found = gather(target, ledger, executors, Options(), runs=unsure | beside)
        executor = executor_of([a.record for a in again])
        return Application(
            here.repo, store, executors, found, executor, say, is_asked=True
        ).carry_out(plan)

    with project.repo.reading():
        return with_retries(once)


def _with_spec(
    action: Action, changes: Sequence[KeyChange] | None, say: Callable[[str], None]
) -> Action:
    """Return an action; another attempt takes the resources that its spec asks for now."""
    if not changes or not isinstance(action, Resume):
        return action
    say(f"follows  {action.run}: its spec says {', '.join(map(str, changes))}")
    return with_spec(action, changes)


def check_cluster(project: Project, records: Iterable[RunRecord]) -> None:
    """Refuse to act on runs of a cluster that this clone does not serve."""
    cluster = project.settings.cluster.name
    for record in records:
        if record.cluster != cluster:  # this cluster may have another job of the same id
            raise MtfError(
                f"{record.run} is on cluster {record.cluster}, and this clone serves {cluster}."
                f" Run the command there, or with {CLUSTER}={record.cluster} if this host can"
                " reach that cluster"
            )


def _check_reachable(project: Project, records: Sequence[RunRecord]) -> None:
    """Refuse to act on jobs that only another cluster, clone or host can reach."""
    check_cluster(project, records)
    for record in records:
        if is_elsewhere(project.runs_root, record):
            raise MtfError(
                f"{record.run}: its folder {record.run_dir} is on another host or in another clone."
                " Run the command there"
            )


def _check_writable(records: Iterable[RunRecord]) -> None:
    """Refuse to start another attempt in a folder that only another user can write."""
    for record in records:
        if why := private_folder(record):
            raise MtfError(f"{record.run}: {why}")
        if owner := owner_if_read_only(record):
            raise MtfError(
                f"{record.run}: only {owner} can write its folder {record.run_dir}. Let {owner}"
                " retry it, or share it: see mtf doctor"
            )


def executor_of(records: Iterable[RunRecord]) -> str:
    """Return the executor that these runs were on, to which they will be submitted again.

    Raises:
        MtfError: they were on several.
    """
    names = {record.executor for record in records}
    if len(names) > 1:
        raise MtfError(
            "these runs were on different executors. Choose the runs of one executor at a time:"
            f" {' or '.join(f'--where executor={name}' for name in sorted(names))}"
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
