"""Runs one experiment of the work tree at once, outside of the committed desired state."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtf import rundir
from mtf.commands import act_on_runs
from mtf.commands.submit_from_python import Request, submit
from mtf.commands.sync import sync_lock, sync_once
from mtf.commands.uncommitted import Pin, pin_work_tree
from mtf.core.vocabulary.experiments import Asked
from mtf.core.vocabulary.ids import label_of
from mtf.core.vocabulary.spelling import did_you_mean
from mtf.core.vocabulary.times import time_limit_s
from mtf.errors import MtfError, SpecError
from mtf.project.spec_tree import SpecTree
from mtf.reconcile.gather import Options
from mtf.reconcile.live.look import WATCHED_S, Look
from mtf.reconcile.run_access import job_dir_of
from mtf.report.runs import progress_lines
from mtf.report.tables import count

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mtf.core.vocabulary.experiments import Desired, Experiment
    from mtf.core.vocabulary.ids import RunId
    from mtf.core.vocabulary.records import RunRecord
    from mtf.project.project import Project

# Of a trial (`--fast`).
TRAIN_BATCHES, VAL_BATCHES = 3, 2
_TRIAL_TIME = "00:10:00"
_TRIAL_SUFFIX = "-fast"

_LONGEST_NAME = 100
_LOOK_EVERY_S = 0.5
_SYNC_EVERY_S = 10.0  # while nothing is seen to have ended: a continuation may be due
_MEMBERS_SHOWN = 5


@dataclass(frozen=True)
class Started:
    """The run that was asked for: a new one, or one that has the same code and values already."""

    record: RunRecord
    is_new: bool
    pin: Pin
    exit_code: int  # that of the submission


def run(
    project: Project,
    spec: str,
    *,
    member: str | None = None,
    snapshot: bool = False,
    fast: bool = False,
    executor: str | None = None,
    publish: bool = True,
    say: Callable[[str], None],
) -> Started:
    """Submit the experiment of a spec of the work tree, pinned to HEAD or to a snapshot.

    Args:
        project: the opened repository.
        spec: its path on disk, relative to the current folder, or the experiment's name.
        member: of a grid, the member to run.
        snapshot: pin the work tree as it is if it differs from HEAD.
        fast: train a few steps and validate once, to see that all fits.
        executor: slurm or local; None: that of the settings.
        publish: False keeps the ledger's commits in this clone.
        say: takes progress lines for people.

    Raises:
        MtfError: nothing was submitted.
        SpecError: the spec contains mistakes, or breaks a policy.
    """
    _path_of(project, spec, SpecTree.on_disk(project.root))
    pin = pin_work_tree(project, snapshot=snapshot, cure="mtf run --snapshot")
    if pin.snapshot_of is not None:
        say(f"snapshot {pin.commit[:8]} of the work tree on {pin.snapshot_of[:8]}")
    elif snapshot:
        say(f"snapshot not needed: the work tree is that of {pin.commit[:8]}")
    wanted = _wanted(project, spec, pin, member)
    if fast:
        wanted = _trial(wanted)
    with sync_lock(project, wait_s=60, role="mtf run"):
        wanted = replace(wanted, asked=Asked(trial=fast, by_code=True))
        request = Request([wanted], executor, pin=pin, to_run_here="mtf run --local")
        report, keys = submit(project, request, publish=publish, say=say)
    if report.refused:
        raise MtfError("\n".join(f"{run}: {why}" for run, why in report.refused.items()))
    runs = project.ledger().runs.values()
    found = [r for r in runs if r.key in keys and r.superseded_by is None]
    if not found:
        raise MtfError("\n".join(report.plan.notes) or f"{spec}: nothing could be submitted")
    newest = max(found, key=lambda r: r.claimed_at)
    is_new = newest.run in {action.run for action in report.plan.actions}
    return Started(newest, is_new, pin, report.exit_code)


# -- the experiment --------------------------------------------------------------------------------


def _wanted(project: Project, spec: str, pin: Pin, member: str | None) -> Desired:
    """Return the one experiment that a spec and a member name.

    Raises:
        MtfError: there is none, or it takes a member to name one.
        SpecError: it contains mistakes.
    """
    tree = SpecTree.at(project.repo, pin.commit, now=datetime.now(UTC)).checked()
    path = _path_of(project, spec, tree)
    loaded = tree.load([path])
    if errors := [p for p in loaded.problems if p.is_error]:
        raise SpecError(errors)
    if not loaded.desired:
        raise MtfError(f"{path} is a base for other specs, not an experiment. Name one of these")
    desired, serves = loaded.desired[0], project.settings.cluster.name
    if desired.cluster not in (None, serves):
        raise MtfError(f"{path} is for cluster {desired.cluster}, and this clone serves {serves}")
    desired = replace(desired, cluster=serves, max_parallel=None, canary=None, max_failed=None)
    if desired.experiments[0].grid is None:
        if member is not None:
            raise MtfError(f"{path} is a single experiment, which has no member {member}")
        return desired
    return _as_single(desired, _member(desired, member))


def _path_of(project: Project, spec: str, tree: SpecTree) -> str:
    """Return the path of a spec in the project.

    Raises:
        MtfError: there is no such spec in the pinned commit; the message says why.
    """
    file = Path(spec).absolute()
    root, folder = project.root.resolve(), project.settings.experiments
    if file.exists():
        resolved = file.parent.resolve() / file.name
        inside = resolved.is_relative_to(root / folder)
        path = resolved.relative_to(root).as_posix() if inside else spec
        if path in tree.specs:
            return path
        if not inside or file.suffix not in (".yaml", ".yml") or file.is_dir():
            raise MtfError(
                f"{spec}: a spec is a YAML file in {folder}/ of the project. Move it there"
            )
        raise MtfError(
            f"{spec}: git ignores it (git check-ignore -v {spec}), so no run can have it"
        )
    if not spec.endswith((".yaml", ".yml")):
        named = [d.path for d in tree.load_all().desired if d.name == spec]
        if named:
            return named[0]
    known = {*tree.specs, *(d.name for d in tree.load_all().desired)}
    raise MtfError(f"{spec}: no such spec. {did_you_mean(spec, known)}".rstrip())


def _member(grid: Desired, member: str | None) -> Experiment:
    names = {label_of(e.grid, e.name).partition("/")[2]: e for e in grid.experiments}
    names |= {e.name: e for e in grid.experiments}
    if member in names:
        return names[member]
    first = ", ".join(e.name for e in grid.experiments[:_MEMBERS_SHOWN])
    more = len(grid.experiments) - _MEMBERS_SHOWN
    listed = f"{first} and {more} more" if more > 0 else first
    if member is None:
        raise MtfError(
            f"{grid.path} is a grid of {count(len(grid.experiments), 'run')}. To run all of them,"
            f" commit it, then run mtf sync; to run one, add --member NAME: {listed}"
        )
    raise MtfError(f"{grid.path} has no member {member}. {did_you_mean(member, names) or listed}")


def _as_single(grid: Desired, experiment: Experiment) -> Desired:
    """Return one member of a grid as an experiment of its own, which is no part of the grid."""
    return _renamed(grid, experiment, f"{experiment.grid}-{experiment.name}", experiment.config)


def _renamed(
    desired: Desired, experiment: Experiment, name: str, config: Mapping[str, Any]
) -> Desired:
    plain = re.sub(r"[^A-Za-z0-9._-]+|\.{2,}", "-", name)
    plain = plain[:_LONGEST_NAME].rstrip(".-") if len(plain) > _LONGEST_NAME else plain
    config = {**config, "experiment_name": plain}
    single = replace(experiment, name=plain, grid=None, config=config, resources=config["slurm"])
    return replace(desired, name=plain, experiments=(single,))


def _trial(desired: Desired) -> Desired:
    """Return an experiment that trains a few steps and validates once, under a name of its own.

    Its limits are part of its configuration, so that it never counts as the experiment itself.
    """
    (experiment,) = desired.experiments
    config, slurm = experiment.config, experiment.config["slurm"]
    limit = time_limit_s(slurm["time"]) if slurm["time"] else None
    short = limit is not None and limit <= (time_limit_s(_TRIAL_TIME) or 0)
    changed = {
        **config,
        "training": {
            **config["training"],
            "max_epochs": 1,
            "limit_train_batches": TRAIN_BATCHES
            * config["training"]["gradient_accumulation_steps"],
            "limit_val_batches": VAL_BATCHES,
        },
        "slurm": {**slurm, "time": slurm["time"] if short else _TRIAL_TIME, "requeue": False},
    }
    if changed.get("init_from"):  # its own limits would count the epochs of the other run
        changed["init_from"] = {**changed["init_from"], "load": "weights"}
    name = experiment.name[: _LONGEST_NAME - len(_TRIAL_SUFFIX)] + _TRIAL_SUFFIX
    return _renamed(desired, experiment, name, changed)


# -- following it ----------------------------------------------------------------------------------


@dataclass
class Follower:
    """Follows one run to its end: shows its output as it is written, and reconciles it alone."""

    project: Project
    run: RunId
    publish: bool
    show: Callable[[str], None]  # takes output of the job
    show_errors: Callable[[str], None]
    say: Callable[[str], None]  # takes a line about the progress of the training

    def __post_init__(self) -> None:
        self._read: dict[Path, int] = {}
        self._events = 0  # of the journal that were shown

    def until_over(self, pause: Callable[[float], bool]) -> RunRecord:
        """Return the run's record when it is over, or as it is after a stop request.

        ``pause`` waits some seconds, and returns True if a stop is requested.
        """
        since_sync = 0.0
        while True:
            record = self._look()
            if record.is_over or since_sync >= _SYNC_EVERY_S or record.retry_at is not None:
                recorded = self._reconcile()
                if recorded.is_over:
                    self._show(recorded)
                    return recorded
                since_sync = 0.0
            if pause(_LOOK_EVERY_S):
                return record
            since_sync += _LOOK_EVERY_S

    def cancel(self, say: Callable[[str], None], pause: Callable[[float], bool]) -> RunRecord:
        """Cancel the run, wait until its job has ended, and return its record."""
        act_on_runs.cancel(self.project, [self.run], publish=self.publish, say=say)
        return self.until_over(pause)

    def _look(self) -> RunRecord:
        ledger = self.project.ledger()
        look = Look(self.project, ledger.runs.values()).begin(WATCHED_S)
        (row,) = look.rows([ledger.runs[self.run]]).rows
        self._show(row.record)
        return row.record

    def _show(self, record: RunRecord) -> None:
        self._show_output(record)
        with suppress(PermissionError):
            events = rundir.read_journal(Path(record.run_dir))
            for line in progress_lines(events[self._events :], record.max_epochs):
                self.say(line)
            self._events = len(events)

    def _show_output(self, record: RunRecord) -> None:
        newest = next((a for a in reversed(record.attempts) if a.job_id), None)
        if newest is None or newest.job_id is None:
            return
        for err, show in ((False, self.show), (True, self.show_errors)):
            path = rundir.job_output(job_dir_of(record, newest), newest.job_id, err=err)
            path = path if path.exists() else Path(record.run_dir, path.name)
            key = path.relative_to(path.parent)  # it moves from the job's folder to the run's
            if path.exists():
                with path.open(encoding="utf-8", errors="replace", newline="") as file:
                    file.seek(self._read.get(key, 0))
                    if text := file.read():
                        show(text)
                    self._read[key] = file.tell()

    def _reconcile(self) -> RunRecord:
        options = Options(runs=frozenset({self.run}))
        with sync_lock(self.project, wait_s=60, role="mtf run"):
            sync_once(self.project, options, publish=self.publish, say=lambda _: None)
        return self.project.ledger().runs[self.run]
