"""The progress bar of a training in a terminal."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mtf.core.vocabulary.times import duration

if TYPE_CHECKING:
    from collections.abc import Callable

REFRESHES_PER_S = 4  # by a thread of its own, so that steps do not wait for it


@dataclass(frozen=True)
class ProgressStatus:
    """How far a training is."""

    epoch: int  # the current one, counted from 1
    max_epochs: int
    step: int
    total_steps: int
    loss: float | None
    steps_per_s: float | None
    eta_s: float | None
    validation: tuple[int, int] | None = None  # batches done, and their number

    def text(self) -> str:
        """Return the status as one line."""
        parts = [f"epoch {self.epoch}/{self.max_epochs}", f"step {self.step}/{self.total_steps}"]
        if self.validation is not None:
            parts.append(f"validation {self.validation[0]}/{self.validation[1]}")
        if self.loss is not None:
            parts.append(f"loss {self.loss:.4g}")
        if self.steps_per_s is not None:
            parts.append(f"{self.steps_per_s:.3g} steps/s")
        if self.eta_s is not None:
            parts.append(f"{duration(self.eta_s)} left")
        return " · ".join(parts)


class TerminalProgress:
    """Draws the progress of a training to stderr until it is closed.

    Args:
        status: returns how far the training is; called from another thread.
    """

    def __init__(self, status: Callable[[], ProgressStatus]) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        def render() -> Any:
            now = status()
            line = Table.grid(padding=(0, 1))
            bar = ProgressBar(total=now.total_steps, completed=now.step, width=24)
            line.add_row(bar, now.text())
            return line

        self._streams = sys.stdout, sys.stderr
        self._live = Live(
            console=Console(file=sys.stderr),
            get_renderable=render,
            refresh_per_second=REFRESHES_PER_S,
            redirect_stdout=sys.stdout.isatty(),  # output to a file is left alone
        )
        self._live.start()
        os.register_at_fork(after_in_child=self._in_fork)

    def close(self) -> None:
        """Draw a last time and restore the terminal."""
        self._live.stop()

    def _in_fork(self) -> None:
        """Let data workers write directly: they lack the thread that holds the lock."""
        if self._live.is_started:
            sys.stdout, sys.stderr = self._streams


def is_interactive() -> bool:
    """Return True if stderr is a terminal on which a line can be redrawn."""
    return sys.stderr.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
