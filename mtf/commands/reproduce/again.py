"""Runs a recorded run once more from its pin, and compares what the two have left."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mtf.commands.reproduce.evidence import evidence_of
from mtf.commands.submit_from_python import Request, submit
from mtf.commands.sync import sync_lock
from mtf.commands.uncommitted import Pin
from mtf.core.review.reproduction import Verdict, compare_evidence
from mtf.core.vocabulary.experiments import Asked, Desired, Experiment
from mtf.errors import MtfError
from mtf.project.run_lookup import find_run
from mtf.reconcile.live.look import with_ends
from mtf.reconcile.run_access import is_elsewhere, private_folder
from mtf.spec.set_overrides import changed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mtf.core.vocabulary.records import RunRecord
    from mtf.project.project import Project

SUFFIX = "-reproduced"
_LONGEST_NAME = 100


def run_to_reproduce(project: Project, name: str) -> RunRecord:
    """Return a run that is over and whose folder can be read here.

    Raises:
        MtfError: there is none of that name, or it cannot be compared with anything now.
    """
    ledger = with_ends(project, project.ledger())
    record = find_run(ledger, name)
    if not record.is_over:
        raise MtfError(f"{record.run} is {record.state}: wait for its end, or mtf cancel it")
    if is_elsewhere(project.runs_root, record):
        raise MtfError(
            f"{record.run}: its folder {record.run_dir} is on another host or in another clone. Run"
            " the command there"
        )
    if why := private_folder(record):
        raise MtfError(f"{record.run}: {why}")
    return record


def start(
    project: Project,
    first: RunRecord,
    *,
    executor: str | None,
    publish: bool,
    say: Callable[[str], None],
) -> RunRecord:
    """Submit the experiment of a run again, from its pin and with its recorded configuration.

    A reproduction of it that goes on is not submitted a second time. Return the new run's record.

    Raises:
        MtfError: it was not submitted; for example its commit is not in this clone.
    """
    commit = project.repo.commit(first.commit)
    pin = Pin(commit, first.snapshot_of)
    asked = Asked(reproduces=first.run, trial=first.trial, origin=first.origin)
    wanted = replace(_desired(project, first), asked=asked)
    with sync_lock(project, wait_s=60, role="mtf reproduce"):
        request = Request(
            [wanted],
            executor or first.executor,
            pin=pin,
            to_run_here="mtf reproduce --local",
        )
        report, keys = submit(project, request, publish=publish, say=say)
    if report.refused:
        raise MtfError("\n".join(f"{run}: {why}" for run, why in report.refused.items()))
    found = [r for r in project.ledger().runs.values() if r.key in keys]
    if not found:
        raise MtfError("\n".join(report.plan.notes) or f"{first.run}: nothing could be submitted")
    return max(found, key=lambda r: r.claimed_at)


def verdict_on(project: Project, first: RunRecord, second: RunRecord) -> Verdict:
    """Return the comparison of what two runs have left."""
    one, other = (evidence_of(record, _config(project, record)) for record in (first, second))
    return compare_evidence(one, other)


def _desired(project: Project, first: RunRecord) -> Desired:
    """Return the experiment of a run under a name of its own, so that it is no result of it."""
    base = first.grid or first.experiment
    name = base[: _LONGEST_NAME - len(SUFFIX)] + SUFFIX
    config = dict(_config(project, first))
    if first.grid is None:
        config["experiment_name"] = name
    experiment = Experiment(
        name=name if first.grid is None else first.experiment,
        grid=None if first.grid is None else name,
        config=config,
        resources=config["slurm"],
        parameters=first.parameters,
        generation=first.generation,
        rerun_on=(),
    )
    return Desired(name, first.spec, (experiment,), max_parallel=None, cluster=first.cluster)


def _config(project: Project, record: RunRecord) -> Mapping[str, Any]:
    """Return the configuration that a run's newest attempt had."""
    ledger = project.ledger()
    submission = project.store().submission(ledger, record.submission)
    attempt = record.attempt
    return changed(submission.configs[record.member], {**attempt.followed, **attempt.changes})
