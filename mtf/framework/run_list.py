"""`RunList`: chosen runs of a repository; `load_model`: the model of one of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

from mtf.core.selection.run_conditions import where as condition
from mtf.framework.results.run_results import Results, results_table
from mtf.framework.results.run_weights import model_in, model_of
from mtf.framework.run_handles import Run, records_now
from mtf.project.project import open_project
from mtf.project.run_lookup import find_run, matching
from mtf.report.tables import count

if TYPE_CHECKING:
    from os import PathLike

    from mtf.framework.results.run_weights import Model
    from mtf.project.project import Project


class RunList(Sequence[Run]):
    """Handles on runs, the newest submission first. As a table it shows what they have reached."""

    def __init__(self, runs: Sequence[Run], results: Results) -> None:
        self._runs, self._results = tuple(runs), results

    @property
    def results(self) -> Results:
        """Return the results of the runs as of when they were listed."""
        return self._results

    @overload
    def __getitem__(self, index: int) -> Run: ...
    @overload
    def __getitem__(self, index: slice) -> RunList: ...
    def __getitem__(self, index: int | slice) -> Run | RunList:
        """Return a run, or some of them."""
        if isinstance(index, slice):
            return RunList(self._runs[index], self._results[index])
        return self._runs[index]

    def __len__(self) -> int:
        """Return the number of runs."""
        return len(self._runs)

    def __repr__(self) -> str:
        return repr(self._results)

    def _repr_html_(self) -> str:
        return self._results._repr_html_()


def list_runs(
    project: Project, globs: Sequence[str], where: str | Sequence[str], *, superseded: bool
) -> RunList:
    """Return the runs with a name that matches a glob, and that meet all conditions.

    Raises:
        WhereError: a condition is not valid.
    """
    texts = [where] if isinstance(where, str) else list(where)
    ledger = project.ledger()
    records = records_now(project, ledger, matching(ledger, globs, superseded=superseded))
    tests = [condition(text, records) for text in texts if text.strip()]
    chosen = [record for record in records if all(test(record) for test in tests)]
    handles = [Run(project, record.run, record.job_id) for record in chosen]
    return RunList(handles, results_table(chosen, count(len(chosen), "run")))


def load_model(
    run: Run | str | PathLike[str],
    *,
    best: bool = False,
    average: bool = False,
    root: str | Path = ".",
) -> Model:
    """Return the trained model of a run, on the CPU and in evaluation mode.

    The pinned code builds it from the run's configuration, whatever the work tree holds; then the
    weights are loaded, and each must fit.

    Args:
        run: a handle, a name or id as in ``mtf show``, or the ``Path`` of a run folder.
        best: take the checkpoint with the best metric, not the newest.
        average: take the averaged weights of ``callbacks.ema``.
        root: the repository, where the run is given by its name.

    Raises:
        MtfError: there is no such run or checkpoint, or its code, its data or some weights are
            missing or do not fit; the message names them.
    """
    if isinstance(run, Run):
        return run.load_model(best=best, average=average)
    if not isinstance(run, str):
        return model_in(Path(run).absolute(), best=best, average=average)
    project = open_project(Path(root))
    return model_of(project, find_run(project.ledger(), run), best=best, average=average)
