"""``Results``: what the runs of a grid or an experiment have reached, the best first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

from mtf.framework.results.value_table import ValueTable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mtf.core.vocabulary.ids import RunId
    from mtf.core.vocabulary.records import Best, RunRecord


@dataclass(frozen=True)
class RunResult:
    """What one run has reached.

    Attributes:
        run: its id.
        name: its short name, such as ``search/lr=0.01``.
        state: one of ``mtf.core.vocabulary.states.RunState``.
        epoch: epochs done; None before the first.
        step: optimizer steps done; None before the first.
        parameters: the values that its grid has set, by dotted key.
        metrics: the newest value of each metric.
        best: the best value of the monitored metric, with its place.
        commit: whose code it trains.
        run_dir: the run folder.
    """

    run: RunId
    name: str
    state: str
    epoch: int | None
    step: int | None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    best: Best | None = None
    commit: str = ""
    run_dir: str = ""

    @classmethod
    def of(cls, record: RunRecord) -> RunResult:
        """Return the result of a run as its record has it."""
        return cls(
            record.run,
            record.label,
            str(record.state),
            record.epoch,
            record.step,
            dict(record.parameters),
            dict(record.metrics),
            record.best,
            record.commit,
            record.run_dir,
        )

    def row(self) -> dict[str, Any]:
        """Return the result as a flat row: parameters and metrics are columns."""
        row: dict[str, Any] = {"name": self.name, "state": self.state, "epoch": self.epoch}
        row |= {"step": self.step, **self.parameters}
        row |= {
            name if name not in row else f"metrics.{name}": v for name, v in self.metrics.items()
        }
        best = self.best
        return row | {f"best_{best.name}": best.value, "best_epoch": best.epoch} if best else row


class Results(Sequence[RunResult]):
    """The results of runs in their order. ``to_pandas`` and ``to_polars`` return data frames."""

    def __init__(self, results: Iterable[RunResult], caption: str = "") -> None:
        self._results = tuple(results)
        self._caption = caption

    @property
    def table(self) -> ValueTable:
        """Return a row for each run: name, state, parameters, metrics, and its id as ``run``."""
        rows = [{**result.row(), "run": result.run} for result in self._results]
        return ValueTable.of_rows(rows, self._caption)

    def to_pandas(self) -> Any:
        """Return ``table`` as a ``pandas.DataFrame``.

        Raises:
            MtfError: pandas is not installed.
        """
        return self.table.to_pandas()

    def to_polars(self) -> Any:
        """Return ``table`` as a ``polars.DataFrame``.

        Raises:
            MtfError: polars is not installed.
        """
        return self.table.to_polars()

    @overload
    def __getitem__(self, index: int) -> RunResult: ...
    @overload
    def __getitem__(self, index: slice) -> Results: ...
    def __getitem__(self, index: int | slice) -> RunResult | Results:
        """Return a result, or some of them."""
        if isinstance(index, slice):
            return Results(self._results[index], self._caption)
        return self._results[index]

    def __len__(self) -> int:
        """Return the number of runs."""
        return len(self._results)

    def __repr__(self) -> str:
        return repr(self.table)

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


def results_table(records: Iterable[RunRecord], caption: str = "") -> Results:
    """Return the results of runs in the given order."""
    return Results(map(RunResult.of, records), caption)
