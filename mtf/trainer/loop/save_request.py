"""Requests for checkpoints: the loop makes them, the checkpointer carries them out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

Setting = Literal["every_n_steps", "every_n_epochs", "every_n_minutes", "keep_best"]


@dataclass(frozen=True)
class SaveRequest:
    """A request to save the state at the next cut.

    Attributes:
        setting: key of the spec's section ``checkpoint`` that makes the save due.
    """

    setting: Setting


class SaveRequests:
    """The request that waits for the next cut, if there is one, and the clock of timed ones.

    Attributes:
        pending: the request; a plain attribute, since the trainer reads it at every phase.
    """

    def __init__(self, every_n_minutes: float | None, *, is_first_rank: bool) -> None:
        self.pending: SaveRequest | None = None
        self._minutes = every_n_minutes if is_first_rank else None
        self._saved_at_s = time.monotonic()

    def clock_is_due(self) -> bool:
        """Return True if ``every_n_minutes`` have passed; the first rank's clock alone counts."""
        minutes = self._minutes
        return minutes is not None and time.monotonic() - self._saved_at_s >= minutes * 60

    def add(self, setting: Setting) -> None:
        """Request a checkpoint, unless a request is pending."""
        self.pending = self.pending or SaveRequest(setting)

    def take(self) -> SaveRequest | None:
        """Return the pending request and forget it; with a request, the clock starts anew."""
        request, self.pending = self.pending, None
        if request is not None:
            self._saved_at_s = time.monotonic()
        return request
