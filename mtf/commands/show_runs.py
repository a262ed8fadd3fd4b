"""Shows runs (status, page, results, output) from ledger, executors and journals."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mtf import rundir
from mtf.core.planner.drift import Branches, described
from mtf.core.planner.grids.holds import held_back
from mtf.core.planner.journal_reader import starts_by_attempt
from mtf.core.vocabulary import json_text
from mtf.core.vocabulary.ids import JOB_BRANCH_PREFIX, record_path
from mtf.errors import MtfError
from mtf.ledger.codec import run_as_dict
from mtf.project.run_lookup import existing_runs, find_run, find_runs, matching
from mtf.project.settings_file import SETTINGS
from mtf.reconcile.drift_scan import look_for_drift
from mtf.reconcile.live.look import WATCHED_S, Look, as_recorded
from mtf.reconcile.run_access import is_elsewhere, job_dir_of, private_folder, read_progress
from mtf.report.runs import rank, run_page
from mtf.report.tables import count

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from mtf.core.planner.journal_reader import Start
    from mtf.core.planner.rows.run_rows import Row
    from mtf.core.vocabulary.records import RunRecord
    from mtf.ledger.store import Ledger
    from mtf.project.project import Project
    from mtf.reconcile.live.look import Looked


@dataclass(frozen=True)
class Status:
    """The runs to show, notes on the repository, and the ledger that they are from."""

    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    ledger: Ledger

    @property
    def records(self) -> list[RunRecord]:
        """Return the runs as of now."""
        return [row.record for row in self.rows]


def status_of(
    project: Project,
    globs: Sequence[str],
    *,
    recorded: bool = False,
    superseded: bool = False,
    within_s: float = 0.0,
) -> Status:
    """Return the runs that match, the newest submission first, with or without superseded ones.

    The executors answer while the repository is read. ``recorded`` asks nobody and looks at no run
    folder; an answer of the executors that is at most ``within_s`` seconds old will do.
    """
    ledger = project.whole_ledger()
    records = matching(ledger, globs, superseded=superseded)
    look = None if recorded else _begun(project, ledger, records, within_s)
    with project.repo.reading():
        root = project.runs_root
        here = [r for r in ledger.runs.values() if look and not is_elsewhere(root, r)]
        branches = Branches(project.repo.refs(JOB_BRANCH_PREFIX))
        drift = look_for_drift(
            ledger,
            here,
            branches,
            project.store(),
            repository=project.repo.root,
            is_shared=project.remote is not None,
        )
        notes = described(drift, ledger.runs)
        notes += _behind(project, ledger.runs.values())
    hidden = 0 if superseded else len(matching(ledger, globs)) - len(records)
    if hidden:
        notes.append(f"{count(hidden, 'superseded run')} not shown: mtf status --all")
    looked = look.rows(records) if look else as_recorded(records)
    seen = (row.record for row in looked.rows)
    notes += [f"{grid}: {text}" for grid, text in held_back(seen).items()]
    return Status(looked.rows, (*looked.notes, *notes), ledger)


def _begun(project: Project, ledger: Ledger, records: Iterable[RunRecord], within_s: float) -> Look:
    """Return a look at the runs of a ledger, which has begun if some of ``records`` are active."""
    look = Look(project, ledger.runs.values())
    return look.begin(within_s) if any(not r.is_over for r in records) else look


def rows_of(
    project: Project, ledger: Ledger, records: Iterable[RunRecord], *, within_s: float = 0.0
) -> Looked:
    """Return these runs of a ledger as of now; see ``status_of``."""
    records = list(records)
    return _begun(project, ledger, records, within_s).rows(records)


def no_match(ledger: Ledger, globs: Sequence[str]) -> str:
    """Return a line that says that no run matches, and which runs there are."""
    wanted = " ".join(globs)
    if ledger.damaged and not ledger.runs:
        return "no record of mtf/ledger can be read"
    known = existing_runs(ledger.runs.values(), near=wanted)
    return f"no run matches {wanted}. {known}" if globs else known


def _behind(project: Project, records: Iterable[RunRecord]) -> list[str]:
    """Return a note if experiments have changed since the newest submission."""
    branch = project.settings.branch
    remote = f"refs/remotes/{project.remote}/{branch}"
    tip = (project.remote and project.repo.find_commit(remote)) or project.repo.find_commit(
        f"refs/heads/{branch}"
    )
    committed = (r for r in records if r.wanted)  # not a snapshot, and not an older pin
    newest = max(committed, key=lambda r: r.run.split("/")[1], default=None)
    if tip is None or newest is None or tip == newest.commit:
        return []
    paths = (project.settings.experiments, SETTINGS)
    if project.repo.object_ids(tip, paths) == project.repo.object_ids(newest.commit, paths):
        return []
    return [f"experiments on {branch} have changed since the newest submission. mtf plan shows how"]


def as_json_list(rows: Iterable[Row]) -> str:
    """Return runs as a JSON list with an object for each run."""
    values = [{**run_as_dict(r.record), "as_of": r.as_of, "live": r.live} for r in rows]
    return json_text.dumps(values, indent=2, ensure_ascii=False)


def page_of(project: Project, name: str, *, recorded: bool = False) -> tuple[Row, str]:
    """Return one run and a page of text about it: state, configuration and history.

    Raises:
        MtfError: no run, or more than one, has that name.
    """
    ledger = project.ledger()
    found = find_run(ledger, name)
    looked = as_recorded([found]) if recorded else rows_of(project, ledger, [found])
    (row,), record = looked.rows, looked.rows[0].record
    submission = project.store().submission(ledger, record.submission)
    config = rundir.render_yaml(submission.configs.get(record.member, {}))
    assert ledger.tip is not None
    history = project.repo.history(ledger.tip, record_path(record.run))
    progress = None if recorded else read_progress(record)
    why = looked.notes[0] if looked.notes else ""
    starts = {} if recorded else _starts(record)
    return row, run_page(row, config, history, progress, why_old=why, starts=starts)


def _starts(record: RunRecord) -> dict[str, list[Start]]:
    try:
        return starts_by_attempt(rundir.read_journal(Path(record.run_dir)))
    except PermissionError:
        return {}


def results_of(project: Project, name: str) -> list[RunRecord]:
    """Return the runs of a grid's newest submission, or of an experiment, the best first.

    Raises:
        MtfError: no run has that name.
    """
    ledger = project.ledger()
    rows = rows_of(project, ledger, find_runs(ledger, [name])).rows
    return sorted((row.record for row in rows), key=rank)


def output_of(project: Project, name: str, *, err: bool) -> str:
    """Return the standard output (``err``: standard error) of a run's newest job.

    Raises:
        MtfError: there is no such run, or it has no output yet.
    """
    record = find_run(project.ledger(), name)
    if why := private_folder(record):
        raise MtfError(f"{record.run}: {why}. Its output is in {record.run_dir}")
    path = _output_path(record, err=err)
    if path is None or not path.exists():
        raise MtfError(
            f"{record.run}: no output yet ({record.state}{_why(record)})."
            f" It will be in {record.run_dir}"
        )
    return path.read_text(encoding="utf-8", errors="replace")


def script_of(project: Project, name: str) -> str:
    """Return the script of a run's newest job, as it was submitted.

    Raises:
        MtfError: there is no such run, it has no job yet, or its script was removed.
    """
    record = find_run(project.ledger(), name)
    if why := private_folder(record):
        raise MtfError(f"{record.run}: {why}. Its script is in {record.run_dir}")
    newest = next((a for a in reversed(record.attempts) if a.job_id), None)
    if newest is None:
        raise MtfError(
            f"{record.run}: no job yet ({record.state}{_why(record)}), so it has no script."
            " mtf plan --scripts shows those of the next sync"
        )
    places = (
        job_dir_of(record, newest) / rundir.SCRIPT,
        Path(record.run_dir, f"{newest.job_id}.sbatch"),
    )
    path = next((path for path in places if path.exists()), None)
    if path is None:
        raise MtfError(f"{record.run}: the script of job {newest.job_id} is not at {places[1]}")
    return path.read_text(encoding="utf-8", errors="replace")


def _why(record: RunRecord) -> str:
    return f": {record.reason}" if record.reason else ""


def _output_path(record: RunRecord, *, err: bool) -> Path | None:
    """Return the output file of a run's newest job: in the job's folder, else in the run's."""
    newest = next((a for a in reversed(record.attempts) if a.job_id), None)
    if newest is None or newest.job_id is None:
        return None
    path = rundir.job_output(job_dir_of(record, newest), newest.job_id, err=err)
    return path if path.exists() else Path(record.run_dir, path.name)


def follow_output(project: Project, name: str, *, err: bool) -> Iterator[str]:
    """Yield a run's output as it is written, until the run is over."""
    at = 0
    while True:
        ledger = project.ledger()
        (row,) = rows_of(project, ledger, [find_run(ledger, name)], within_s=WATCHED_S).rows
        record = row.record
        path = _output_path(record, err=err)
        if path is not None and path.exists():
            with path.open(encoding="utf-8", errors="replace") as f:
                f.seek(at)
                yield f.read()
                at = f.tell()
        if record.is_over:
            return
        time.sleep(0.5)
