"""`ExecutionMode`: where a program wants its experiments to run."""

from __future__ import annotations

from enum import Enum

from mtf.core.vocabulary.spelling import did_you_mean
from mtf.errors import ConfigurationError, Problem


class ExecutionMode(Enum):
    """Where experiments run. Left out, it is the executor that mtf.yaml names."""

    SLURM = "slurm"
    """As jobs of the cluster."""
    LOCAL = "local"
    """On this machine, in the queue of the local executor."""
    DRY_RUN = "dry_run"
    """Nowhere: nothing is submitted or written, and the result shows what would be."""


def mode_of(given: object) -> ExecutionMode | None:
    """Return the mode that a program asks for, by itself or by its value; None stays None.

    Raises:
        ConfigurationError: there is no such mode.
    """
    if given is None or isinstance(given, ExecutionMode):
        return given
    values = [mode.value for mode in ExecutionMode]
    if given in values:
        return ExecutionMode(given)
    message = f"mode: expected an ExecutionMode, got {given!r}. {did_you_mean(str(given), values)}"
    raise ConfigurationError([Problem("configuration", 1, 1, message)])
