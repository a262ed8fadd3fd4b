"""Requests for checkpoints: the loop makes them, the checkpointer carries them out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from mtf.trainer.compute.rank_sync import RankSync

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

    def __init__(self, every_n_minutes: float | None, rank_sync: RankSync) -> None:
        self.pending: SaveRequest | None = None
        self._minutes = every_n_minutes if rank_sync.is_first else None
        self._is_alone = rank_sync.is_alone
        self._saved_at_s = time.monotonic()

    def clock_is_due(self) -> bool:
        """Return True if ``every_n_minutes`` have passed; the first rank's clock alone counts."""
        minutes = self._minutes
        return minutes is not None and time.monotonic() - self._saved_at_s >= minutes * 60

    def check_clock(self) -> None:
        """Request a timed checkpoint if one is due; several ranks agree on it at the cuts."""
        if self._minutes is not None and self._is_alone and self.clock_is_due():
            self.add("every_n_minutes")

    def add(self, setting: Setting) -> None:
        """Request a checkpoint, unless a request is pending."""
        self.pending = self.pending or SaveRequest(setting)

    def take(self) -> SaveRequest | None:
        """Return the pending request and forget it; with a request, the clock starts anew."""
        request, self.pending = self.pending, None
        if request is not None:
            self._saved_at_s = time.monotonic()
        return request
