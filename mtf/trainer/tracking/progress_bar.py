"""The progress bar of a training that somebody watches; elsewhere there is none."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mtf.core.vocabulary.times import duration

if TYPE_CHECKING:
    from collections.abc import Callable

PER_S = 4  # how often it is drawn: by a thread of its own, so that no step pays for it


@dataclass(frozen=True)
class Standing:
    """Where a training is."""

    epoch: int  # the one at work, from 1
    max_epochs: int
    step: int
    total_steps: int
    loss: float | None
    steps_per_s: float | None
    eta_s: float | None
    validation: tuple[int, int] | None = None  # batches done, of how many

    def words(self) -> str:
        """Return it as one line."""
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


class Bar:
    """Draws where a training is to stderr, until it is closed.

    Args:
        look: returns where it is; called from another thread.
    """

    def __init__(self, look: Callable[[], Standing]) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        def drawn() -> Any:
            standing = look()
            line = Table.grid(padding=(0, 1))
            bar = ProgressBar(total=standing.total_steps, completed=standing.step, width=24)
            line.add_row(bar, standing.words())
            return line

        self._plain = sys.stdout, sys.stderr
        self._live = Live(
            console=Console(file=sys.stderr),
            get_renderable=drawn,
            refresh_per_second=PER_S,
            redirect_stdout=sys.stdout.isatty(),  # what goes to a file stays there
        )
        self._live.start()
        os.register_at_fork(after_in_child=self._in_fork)

    def close(self) -> None:
        """Draw it a last time and leave the terminal as it was."""
        self._live.stop()

    def _in_fork(self) -> None:
        """Let the lines of loading processes by: the thread that held the lock is not in them."""
        if self._live.is_started:
            sys.stdout, sys.stderr = self._plain


def is_watched() -> bool:
    """Return whether stderr is a terminal that a line can be drawn on again and again."""
    return sys.stderr.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
