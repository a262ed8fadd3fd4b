"""``current_run``: the run that this process trains, or outside of a job one that only prints."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping


class CurrentRun(Protocol):
    """What a script asks of its run."""

    @property
    def run_dir(self) -> Path:
        """Return the folder for results."""

    @property
    def stop_requested(self) -> bool:
        """Return True if the job is asked to stop: save, then end."""

    def log(self, metrics: Mapping[str, float], *, step: int, epoch: int | None = None) -> None:
        """Log metrics."""

    def checkpoint(
        self, content: Mapping[str, Any], epoch: int | None = None, step: int = 0
    ) -> None:
        """Save a state durably."""

    def resume(self) -> dict[str, Any] | None:
        """Return the state of the newest checkpoint, None at the first start."""

    def stop_if_requested(self, epoch: int, step: int) -> None:
        """End the job if it is asked to stop."""


class PrintingRun:
    """Stands in for a run where no job runs: it prints metrics, and saves nothing."""

    stop_requested = False

    @property
    def run_dir(self) -> Path:
        """Return the current folder."""
        return Path.cwd()

    def log(self, metrics: Mapping[str, float], *, step: int, epoch: int | None = None) -> None:
        """Print metrics."""
        place = f"step {step}" if epoch is None else f"epoch {epoch}, step {step}"
        values = ", ".join(f"{name} {_number(value)}" for name, value in metrics.items())
        sys.stdout.write(f"{place}: {values}\n")

    def checkpoint(
        self, content: Mapping[str, Any], epoch: int | None = None, step: int = 0
    ) -> None:
        """Print that nothing is saved."""
        place = f"step {step}" if epoch is None else f"epoch {epoch}, step {step}"
        names = ", ".join(map(str, content))
        sys.stdout.write(f"{place}: no checkpoint outside of a job (it would hold {names})\n")

    def resume(self) -> None:
        """Return None: there is nothing to continue."""

    def stop_if_requested(self, epoch: int, step: int) -> None:
        """Do nothing: nobody asks."""


def _number(value: float) -> str:
    return f"{float(value):.4g}"


_PRINTING = PrintingRun()
_current: list[CurrentRun] = []  # one at most: that of this process's job


def set_current_run(run: CurrentRun) -> None:
    """Make a run that of this process, for ``current_run``."""
    _current[:] = [run]


def current_run() -> CurrentRun:
    """Return the run of this job, a ``RunContext``; outside of a job, an object that only prints.

    So a script runs by hand as it runs in a job::

        run = current_run()
        run.log({"train_loss": loss}, step=step)
    """
    return _current[0] if _current else _PRINTING
