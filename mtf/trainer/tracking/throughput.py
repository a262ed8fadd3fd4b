"""The speed of a training and its time left, computed from marks that carry their own time."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

WINDOW_S = 60.0


@dataclass(frozen=True)
class ProgressMark:
    """How far the training was at a time."""

    at_s: float
    steps: int
    batches: int


class Throughput:
    """The speed of this process over the last minute, counted from its own first mark.

    Time without progress (a validation, a save) does not lower the speed; its share of the time so
    far is added to the time left.

    Attributes:
        steps_per_s: optimizer steps per second; None if unknown.
        batches_per_s: micro-batches per second of each process; None if unknown.
    """

    steps_per_s: float | None = None
    batches_per_s: float | None = None

    def __init__(self) -> None:
        self._first: ProgressMark | None = None
        self._last: ProgressMark | None = None
        self._spans: deque[tuple[float, int, int]] = deque()  # seconds, steps, batches
        self._window_s = 0.0
        self._idle_s = 0.0

    def add(self, mark: ProgressMark) -> None:
        """Add how far the training is now."""
        last = self._last or mark
        self._first, self._last = self._first or mark, mark
        seconds, steps = mark.at_s - last.at_s, mark.steps - last.steps
        if steps <= 0:
            self._idle_s += seconds
            return
        self._spans.append((seconds, steps, mark.batches - last.batches))
        self._window_s += seconds
        while self._window_s - self._spans[0][0] > WINDOW_S:
            self._window_s -= self._spans.popleft()[0]
        if self._window_s > 0:
            # plain attributes: the thread of a progress bar reads them
            self.steps_per_s = sum(steps for _, steps, _ in self._spans) / self._window_s
            self.batches_per_s = sum(batches for _, _, batches in self._spans) / self._window_s

    def eta_s(self, total_steps: int) -> float | None:
        """Return the expected seconds to the end, None if unknown."""
        rate, first, last = self.steps_per_s, self._first, self._last
        if rate is None or first is None or last is None:
            return None
        idle_s_per_step = self._idle_s / (last.steps - first.steps)
        return max(total_steps - last.steps, 0) * (1 / rate + idle_s_per_step)
