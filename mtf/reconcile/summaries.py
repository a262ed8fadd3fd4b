"""Writes a grid's parameters and results so far beside its run folders, for people.

Both files are copies, rebuilt from the ledger by every sync that changes a run of the grid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mtf import rundir
from mtf.core.vocabulary import json_text
from mtf.core.vocabulary.experiments import axes_of
from mtf.core.vocabulary.records import as_dict, best_run
from mtf.report.runs import rank

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from mtf.core.vocabulary.ids import RunId, SubmissionId
    from mtf.core.vocabulary.records import RunRecord
    from mtf.ledger.store import Ledger

SEARCH = "search_config.yaml"
RESULTS = "results_summary.json"
_json = json_text.encoder(ensure_ascii=False)


def write_summaries(root: Path, ledger: Ledger, changed: Collection[RunId]) -> None:
    """Rewrite the summaries of the grids that these runs belong to.

    Raises:
        OSError: the run root cannot be written.
    """
    touched = {ledger.runs[run].submission for run in changed if ledger.runs[run].grid}
    groups: dict[SubmissionId, list[RunRecord]] = {submission: [] for submission in touched}
    for record in ledger.runs.values():
        if record.submission in groups:
            groups[record.submission].append(record)
    for submission, records in groups.items():
        folder = rundir.submission_dir(root, submission)
        if folder.is_dir():  # otherwise it was submitted from a host with another run root
            _put(folder / SEARCH, rundir.render_yaml(_search(records)))
            _put(folder / RESULTS, results(records))


def _put(path: Path, text: str) -> None:
    rundir.remove_temporary_files(path)
    rundir.write_atomically(path, text.encode())


def _search(records: list[RunRecord]) -> dict[str, Any]:
    first = records[0]
    parameters = axes_of(r.parameters for r in records)
    about = {"grid": first.grid, "submission": first.submission, "commit": first.commit}
    members = {r.experiment: dict(r.parameters) for r in records}
    return {**about, "spec": first.spec, "parameters": parameters, "members": members}


def results(records: list[RunRecord]) -> str:
    """Return the results of a grid's runs as JSON, one line per run."""
    best = best_run(records)
    states: dict[str, int] = {}
    for record in records:
        states[record.state] = states.get(record.state, 0) + 1
    about = {
        "submission": records[0].submission,
        "states": states,
        "best": _result(best) if best else None,
    }
    lines = [f"{_json(key)}: {_json(value)}" for key, value in about.items()]
    runs = ",\n  ".join(_json(_result(r)) for r in sorted(records, key=rank))
    return "{\n " + ",\n ".join([*lines, f'"runs": [\n  {runs}\n ]']) + "\n}\n"


def _result(record: RunRecord) -> Mapping[str, Any]:
    return {
        "run": record.run,
        "state": record.state,
        "parameters": record.parameters,
        "metrics": record.metrics,
        "best": record.best and as_dict(record.best),
        "checkpoint": record.checkpoint.path if record.checkpoint else None,
    }
