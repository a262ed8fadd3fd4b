"""``ReadsRun``: what can be read of a run besides its state: results, output, checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtf.errors import MtfError
from mtf.framework.results.notebook_html import table_html
from mtf.framework.results.run_results import RunResult
from mtf.framework.results.run_weights import RunCheckpoint, model_of
from mtf.framework.results.scalar_history import History, read_history
from mtf.reconcile.run_access import private_folder

if TYPE_CHECKING:
    from mtf.core.vocabulary.ids import RunId
    from mtf.core.vocabulary.records import RunRecord
    from mtf.framework.results.run_weights import Model
    from mtf.project.project import Project


class ReadsRun:
    """The properties of a run that are read from its folder. Mixed into ``Run``."""

    project: Project
    id: RunId

    @property
    def record(self) -> RunRecord:
        """Return the run's record."""
        raise NotImplementedError

    @property
    def config(self) -> dict[str, Any]:
        """Return the resolved configuration that the run was submitted with."""
        ledger, record = self.project.ledger(), self.record
        submission = self.project.store().submission(ledger, record.submission)
        return dict(submission.configs.get(record.member, {}))

    @property
    def result(self) -> RunResult:
        """Return the run's result: parameters, metrics, best value."""
        return RunResult.of(self.record)

    def history(self) -> History:
        """Return the scalars that the training has logged so far; a notebook shows curves.

        Raises:
            MtfError: the run folder is private to another user, or cannot be reached from here.
        """
        record = self.record
        if (why := private_folder(record)) is not None:
            raise MtfError(f"{record.run}: {why}")
        if record.has_begun and not Path(record.run_dir).is_dir():
            raise MtfError(
                f"{record.run}: its run folder {record.run_dir} cannot be reached from this"
                " machine. Read the history where the run root is"
            )
        return read_history(record.run_dir)

    def logs(self, *, err: bool = False) -> str:
        """Return the output of the run's newest job; with ``err`` its standard error.

        Raises:
            MtfError: it has no output yet.
        """
        from mtf.commands.show_runs import output_of  # late: it would slow each import down

        return output_of(self.project, self.id, err=err)

    @property
    def checkpoint(self) -> RunCheckpoint:
        """Return the newest checkpoint: ``run.checkpoint.load(model)``.

        Raises:
            MtfError: there is none yet, or the file is not there.
        """
        return RunCheckpoint.of(self.record)

    @property
    def best_checkpoint(self) -> RunCheckpoint:
        """Return the checkpoint with the best value of the monitored metric.

        Raises:
            MtfError: there is none yet, or the file is not there.
        """
        return RunCheckpoint.of(self.record, best=True)

    def load_model(self, *, best: bool = False, average: bool = False) -> Model:
        """Return the run's model as ``mtf.load_model`` does."""
        return model_of(self.project, self.record, best=best, average=average)

    def _repr_html_(self) -> str:
        row = {**self.result.row(), "run": self.id}
        columns = {"": list(row), "value": list(row.values())}
        return table_html(columns) + self._curves()

    def _curves(self) -> str:
        try:
            history = self.history()
        except (MtfError, OSError):  # there is only the record to show
            return ""
        return history._repr_html_() if len(history) else ""
