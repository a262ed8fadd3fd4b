"""`GridSearchExecutor` and `GridSearchResult`: grids that are submitted, and their outcome."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtf.core.vocabulary.states import RunState
from mtf.framework.execution import mode_of
from mtf.framework.parameter_grids import ParameterGrid
from mtf.framework.run_handles import Run, Submission

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mtf.framework.config_manager import ConfigurationManager
    from mtf.framework.execution import ExecutionMode
    from mtf.framework.experiment_values import Config
    from mtf.framework.launcher import SLURMLauncher
    from mtf.framework.submitter import Submitter

_FAILED = {RunState.FAILED, RunState.TIMEOUT, RunState.LOST, RunState.CANCELLED}


@dataclass(frozen=True)
class GridSearchResult(Submission):
    """The runs of grids: their handles, and which of them have failed so far."""

    @property
    def successes(self) -> list[Run]:
        """Return the runs that have not failed: after ``wait``, those that are complete."""
        return [run for run, has_failed in self._judged() if not has_failed]

    @property
    def failures(self) -> list[Run]:
        """Return the runs that failed, were cancelled, or were refused by the executor."""
        return [run for run, has_failed in self._judged() if has_failed]

    def _judged(self) -> list[tuple[Run, bool]]:
        if self.is_planned:
            return [(run, False) for run in self]
        pairs = zip(self, self.records, strict=True)
        return [(run, record.state in _FAILED) for run, record in pairs]


class GridSearchExecutor:
    """Submits grids through a launcher."""

    def __init__(self, launcher: SLURMLauncher, config_manager: ConfigurationManager) -> None:
        """Take what submits the runs, and what knows the repository's configurations."""
        self.launcher, self.config_manager = launcher, config_manager

    def execute_grid_search(
        self,
        base_config: Config | str,
        parameter_grids: ParameterGrid | Iterable[ParameterGrid],
        execution_mode: ExecutionMode | None = None,
    ) -> GridSearchResult:
        """Submit all members of the grids that have not been submitted before.

        Args:
            base_config: the configuration that the grids vary, or the name of a committed one.
            parameter_grids: to submit.
            execution_mode: None: the executor of mtf.yaml.

        Raises:
            ConfigurationError: base or grids contain mistakes.
            MtfError: no member was submitted.
        """
        if isinstance(base_config, str):
            base_config = self.config_manager.load(base_config)
        return search(self.launcher.submitter, base_config, parameter_grids, execution_mode)


def search(
    submitter: Submitter,
    base: Config,
    grids: ParameterGrid | Iterable[ParameterGrid],
    mode: ExecutionMode | None,
    *,
    snapshot: bool = False,
) -> GridSearchResult:
    """Submit the grids over a base; see ``GridSearchExecutor.execute_grid_search``."""
    listed = [grids] if isinstance(grids, ParameterGrid) else list(grids)
    submitter = submitter.pinned(mode_of(mode), snapshot=snapshot)
    outcome = submitter.submit(submitter.grids(base, listed), mode_of(mode))
    runs = outcome.accepted()
    return GridSearchResult(runs.project, runs.ids, runs.is_planned)
